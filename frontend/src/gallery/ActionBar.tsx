import { useReview } from "../state/store";
import { Button } from "../ui/Button";
import { ClassBadge } from "../ui/ClassBadge";
import { ClassButtons } from "../ui/ClassButtons";
import { percent } from "./words";

/** What is known of the cell with the keyboard, and what can be done with it. */
export function ActionBar() {
  const row = useReview((s) => s.rows[s.place]);
  const cell = useReview((s) => (row === undefined ? undefined : s.cells.get(row)));
  const { relabel, skip, undo, open } = useReview.getState();
  return (
    <section className="action-bar" aria-label="The chosen cell">
      <Place />
      <ClassButtons
        current={cell?.label}
        disabled={!cell}
        onPick={(className) => {
          if (cell) relabel([cell.row], className);
        }}
      />
      <div className="action-bar-rest">
        <Button
          shortcut="S"
          disabled={!cell}
          onClick={() => {
            if (cell) skip(cell.row);
          }}
        >
          Skip
        </Button>
        <Button shortcut="U" onClick={undo}>
          Undo
        </Button>
        <Button
          shortcut="↵"
          disabled={!cell}
          onClick={() => {
            if (cell) open(cell.row);
          }}
        >
          Open
        </Button>
      </div>
    </section>
  );
}

function Place() {
  const n = useReview((s) => s.rows.length);
  const place = useReview((s) => s.place);
  const cell = useReview((s) => s.cells.get(s.rows[s.place] ?? -1));
  const model = useReview((s) => (s.blind ? null : (s.study?.table_model ?? null)));
  const predictedName = useReview((s) => s.study?.class_names[cell?.predicted ?? -1] ?? null);
  if (n === 0) return <p className="action-bar-cell muted">No cell</p>;
  return (
    <p className="action-bar-cell">
      <span className="muted">
        {(place + 1).toLocaleString("en")} / {n.toLocaleString("en")}
      </span>
      <span className="action-bar-id" title={cell?.cell_id}>
        {cell?.cell_id ?? "…"}
      </span>
      {cell && model !== null && predictedName !== null && cell.confidence !== null && (
        <span className="action-bar-model muted">
          {model}: <ClassBadge label={cell.predicted ?? -1} /> {predictedName} {percent(cell.confidence)}
          {cell.abstained && ", abstained"}
        </span>
      )}
    </p>
  );
}
