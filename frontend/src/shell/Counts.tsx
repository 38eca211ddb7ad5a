import { useReview } from "../state/store";
import { ClassBadge } from "../ui/ClassBadge";

/** Cells of each class and how many are reviewed, of the whole study, clicks on their way included. */
export function Counts() {
  const names = useReview((s) => s.study?.class_names);
  const nCells = useReview((s) => s.study?.n_cells ?? 0);
  const counts = useReview((s) => s.counts);
  const nReviewed = useReview((s) => s.nReviewed);
  const nPending = useReview((s) => s.nPending);
  if (!names) return null;
  const unlabelled = counts[names.length] ?? 0;
  return (
    <div className="counts">
      <ul className="counts-classes" aria-label="Cells of each class">
        {names.map((name, code) => (
          <Count key={name} label={code} name={name} n={counts[code] ?? 0} />
        ))}
        {unlabelled > 0 && <Count label={-1} name="no label" n={unlabelled} />}
      </ul>
      <div className="counts-progress">
        {nPending > 0 && <span className="counts-pending">{nPending.toLocaleString("en")} to be saved</span>}
        <span id="counts-reviewed">
          <strong>{nReviewed.toLocaleString("en")}</strong>
          <span className="muted"> of {nCells.toLocaleString("en")} reviewed</span>
        </span>
        <progress aria-labelledby="counts-reviewed" value={nReviewed} max={Math.max(1, nCells)} />
      </div>
    </div>
  );
}

function Count({ label, name, n }: { label: number; name: string; n: number }) {
  return (
    <li className="count">
      <ClassBadge label={label} />
      <span className="count-name">{name}</span>
      <strong>{n.toLocaleString("en")}</strong>
    </li>
  );
}
