import { useEffect, useMemo, useState } from "react";
import type { StudyInfo } from "../api/types";
import { useReview } from "../state/store";
import { Button } from "../ui/Button";
import { Crop } from "../ui/Crop";
import { Dialog } from "../ui/Dialog";
import { spread } from "./selection";

const N_SHOWN = 24;

interface Props {
  study: StudyInfo;
  rows: Uint32Array;
  onClear: () => void;
}

/** What can be done with the selected cells. */
export function SelectionPanel({ study, rows, onClear }: Props) {
  const { ask, show, relabel, undo } = useReview.getState();
  const [wanted, setWanted] = useState<string | null>(null);
  const n = rows.length.toLocaleString("en");
  const showInGallery = () => {
    show("gallery");
    void ask({ within: [...rows], filters: [], text: "" });
  };
  return (
    <section className="selection" aria-label="Selected cells">
      <p role="status" className="selection-n">
        {rows.length === 1 ? "1 cell selected" : `${n} cells selected`}
      </p>
      <div className="selection-deeds">
        <Button look="main" onClick={showInGallery}>
          Show in the gallery
        </Button>
        <Button onClick={onClear}>Clear the selection</Button>
      </div>
      <div className="selection-deeds" role="group" aria-label="Set the class of all selected cells">
        Set all to
        {study.class_names.map((name) => (
          <Button
            key={name}
            onClick={() => {
              setWanted(name);
            }}
          >
            {name} …
          </Button>
        ))}
        <Button shortcut="u" onClick={undo}>
          Undo
        </Button>
      </div>
      <Strip study={study} rows={rows} />
      {wanted !== null && (
        <Confirm
          n={n}
          className={wanted}
          onAnswer={(agreed) => {
            if (agreed) relabel([...rows], wanted);
            setWanted(null);
          }}
        />
      )}
    </section>
  );
}

/** A few of the selected cells, from all over the selection; a click opens one. */
function Strip({ study, rows }: { study: StudyInfo; rows: Uint32Array }) {
  const cells = useReview((state) => state.cells);
  const { need, open } = useReview.getState();
  const shown = useMemo(() => spread(rows, N_SHOWN), [rows]);
  useEffect(() => {
    need(shown);
  }, [need, shown]);
  return (
    <ul className="selection-strip">
      {shown.map((row) => {
        const cell = cells.get(row);
        const label = study.class_names[cell?.label ?? -1] ?? "no label";
        return (
          <li key={row}>
            <button
              type="button"
              title={cell ? `${cell.cell_id}, ${label}` : `Cell ${row}`}
              onClick={() => {
                open(row);
              }}
            >
              <Crop row={row} alt={cell ? `Open cell ${cell.cell_id}, ${label}` : `Open cell ${row}`} />
            </button>
          </li>
        );
      })}
    </ul>
  );
}

interface ConfirmProps {
  n: string;
  className: string;
  onAnswer: (agreed: boolean) => void;
}

function Confirm({ n, className, onAnswer }: ConfirmProps) {
  const actions = (
    <>
      <Button
        onClick={() => {
          onAnswer(false);
        }}
      >
        Leave them as they are
      </Button>
      <Button
        look="danger"
        onClick={() => {
          onAnswer(true);
        }}
      >
        Set {n} to {className}
      </Button>
    </>
  );
  return (
    <Dialog
      title={`Set the class of ${n} cells?`}
      onClose={() => {
        onAnswer(false);
      }}
      actions={actions}
    >
      <p>
        Each of them becomes <strong>{className}</strong> and counts as reviewed by you, also those that you
        have not looked at. “Undo” takes all of it back as long as this page stays open.
      </p>
    </Dialog>
  );
}
