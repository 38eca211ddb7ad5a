import { useEffect } from "react";
import { api } from "../api/client";
import type { Cell, CellDetail, StudyInfo } from "../api/types";
import { useAnswer } from "../api/useAnswer";
import { useReview } from "../state/store";
import { Button } from "../ui/Button";
import { ClassButtons } from "../ui/ClassButtons";
import { useCellKeys } from "../ui/useCellKeys";
import { useShortcuts } from "../ui/useShortcuts";
import { Bars } from "./Bars";
import "./cell.css";
import { Facts, History } from "./Facts";
import { FieldPlace } from "./FieldPlace";
import { LargeCrop } from "./LargeCrop";
import { Neighbours } from "./Neighbours";
import { cellWords, className } from "./words";

export default function CellView() {
  const study = useReview((state) => state.study);
  const row = useReview((state) => state.row);
  if (study === null) return <p>The study is being opened …</p>;
  if (row === null) return <p>No cell is open: choose one in the gallery and press Enter.</p>;
  return <OneCell study={study} row={row} />;
}

function OneCell({ study, row }: { study: StudyInfo; row: number }) {
  const revision = useReview((state) => state.revision);
  const need = useReview((state) => state.need);
  const known = useReview((state) => state.cells.get(row));
  const detail = useAnswer(`cell ${row}`, () => api.cell(row), revision);
  useEffect(() => {
    need([row]);
  }, [need, row]);
  useCellKeys(row);
  const cell = known ?? detail.value?.cell;
  return (
    <article className="cell-view" aria-busy={detail.waiting}>
      <Head study={study} row={row} cell={cell} />
      {detail.error !== null && (
        <p className="is-error" role="alert">
          {detail.error}
        </p>
      )}
      {cell && <Decide cell={cell} />}
      {detail.value && cell ? (
        <Details study={study} detail={detail.value} cell={cell} />
      ) : (
        detail.waiting && <p>The cell is being fetched …</p>
      )}
    </article>
  );
}

function Head({ study, row, cell }: { study: StudyInfo; row: number; cell: Cell | undefined }) {
  const rows = useReview((state) => state.rows);
  const place = useReview((state) => state.place);
  const { goTo, show } = useReview.getState();
  const inList = rows[place] === row;
  const position = `${(place + 1).toLocaleString("en")} of ${rows.length.toLocaleString("en")} in the gallery`;
  const leave = () => {
    show("gallery");
  };
  const previous = () => {
    goTo(place - 1);
  };
  const next = () => {
    goTo(place + 1);
  };
  useShortcuts({ Escape: leave, ArrowLeft: previous, ArrowRight: next });
  return (
    <header className="cell-head">
      <Button onClick={leave} shortcut="Esc" aria-keyshortcuts="Escape">
        Gallery
      </Button>
      <h2>{cell ? cell.cell_id : `Cell ${row}`}</h2>
      <p>{inList ? position : "not among the cells of the gallery now"}</p>
      <nav aria-label="Cells in the order of the gallery">
        <Button disabled={place === 0} shortcut="←" aria-keyshortcuts="ArrowLeft" onClick={previous}>
          Previous
        </Button>
        <Button
          disabled={place + 1 >= rows.length}
          shortcut="→"
          aria-keyshortcuts="ArrowRight"
          onClick={next}
        >
          Next
        </Button>
      </nav>
      {cell && (
        <p className="visually-hidden" aria-live="polite">
          {cellWords(cell, study)}
        </p>
      )}
    </header>
  );
}

function Decide({ cell }: { cell: Cell }) {
  const { relabel, skip, undo } = useReview.getState();
  return (
    <div className="cell-decide">
      <ClassButtons
        current={cell.label}
        onPick={(name) => {
          relabel([cell.row], name);
        }}
      />
      <Button
        shortcut="s"
        onClick={() => {
          skip(cell.row);
        }}
      >
        Skip
      </Button>
      <Button shortcut="u" onClick={undo}>
        Undo
      </Button>
      <span className="cell-reviewed">
        {cell.reviewed ? "A person has confirmed it" : "Not reviewed yet"}
      </span>
    </div>
  );
}

function Details({ study, detail, cell }: { study: StudyInfo; detail: CellDetail; cell: Cell }) {
  const blind = useReview((state) => state.blind);
  const about = cell.predicted ?? Math.max(0, cell.label);
  const name = `Cell ${cell.cell_id}, labelled ${className(study, cell.label)}`;
  return (
    <div className="cell-parts">
      <section className="cell-part part-crop" aria-label="Picture and facts">
        <LargeCrop study={study} row={cell.row} about={about} alt={name} />
        <h3>Facts</h3>
        <Facts detail={detail} study={study} />
      </section>
      {study.models.length > 0 && (
        <section className="cell-part part-says">
          <h3>What models say</h3>
          {blind ? (
            <p>Hidden while you read blind.</p>
          ) : (
            <Bars study={study} probabilities={detail.probabilities} />
          )}
        </section>
      )}
      {study.has_fields && (
        <section className="cell-part part-place">
          <h3>Place in the image</h3>
          {detail.field === null ? (
            <p>The image that this cell was cut from is not in the study.</p>
          ) : (
            <FieldPlace study={study} field={detail.field} row={cell.row} />
          )}
        </section>
      )}
      <section className="cell-part part-neighbours">
        <h3>Most alike</h3>
        {blind ? (
          <p>Hidden while you read blind: which cells are alike is what a network says.</p>
        ) : (
          <Neighbours study={study} neighbours={detail.neighbours} note={detail.neighbours_note} />
        )}
      </section>
      <section className="cell-part part-history">
        <h3>History</h3>
        <History history={detail.history} study={study} showsModels={!blind} />
      </section>
    </div>
  );
}
