import { useEffect, useId, useRef, useState } from "react";
import { api } from "../api/client";
import type { Field, StudyInfo } from "../api/types";
import { useAnswer } from "../api/useAnswer";
import { useReview } from "../state/store";
import { Button } from "../ui/Button";
import { FieldViewer, type Move } from "./fieldViewer";
import { Outlines } from "./outlines";
import { className } from "./words";

interface Props {
  study: StudyInfo;
  field: number;
  row: number;
}

/** The image that a cell comes from, with all outlines. */
export function FieldPlace({ study, field: number_, row }: Props) {
  const field = useAnswer(`field ${number_}`, () => api.field(number_));
  if (field.error !== null) return <p className="is-error">{field.error}</p>;
  if (field.value === null) return <p>The image is being fetched …</p>;
  return <FieldPicture key={number_} study={study} field={field.value} row={row} />;
}

const MOVES: [move: Move, sign: string, words: string][] = [
  ["in", "+", "Zoom in"],
  ["out", "−", "Zoom out"],
  ["home", "⤢", "Whole image"],
];

function FieldPicture({ study, field, row }: { study: StudyInfo; field: Field; row: number }) {
  const host = useRef<HTMLDivElement>(null);
  const drawn = useRef<{ viewer: FieldViewer; outlines: Outlines } | null>(null);
  const [pointed, setPointed] = useState<number | null>(null);
  const [trouble, setTrouble] = useState<string | null>(null);
  const open = useReview((state) => state.open);
  const cells = useReview((state) => state.cells);
  const help = useId();

  useEffect(() => {
    if (!host.current) return;
    const outlines = new Outlines(field, study.class_colours);
    const told = { onOpen: open, onPoint: setPointed, onTrouble: setTrouble };
    const viewer = new FieldViewer(host.current, field, outlines, told);
    viewer.describe(`Image ${field.image_id} with ${field.cells.length} outlined cells`, help);
    drawn.current = { viewer, outlines };
    return () => {
      drawn.current = null;
      viewer.destroy();
    };
  }, [field, study, open, help]);

  useEffect(() => {
    drawn.current?.outlines.mark(row);
    drawn.current?.viewer.lookAt(row, true);
  }, [row, field, study, open, help]);

  useEffect(() => {
    for (const { row: other, label } of field.cells) {
      drawn.current?.outlines.recolour(other, cells.get(other)?.label ?? label, study.class_colours);
    }
  }, [cells, field, study]);

  useEffect(() => {
    drawn.current?.outlines.point(pointed);
  }, [pointed]);

  const look = (other: number) => {
    setPointed(other);
    drawn.current?.viewer.lookAt(other, false);
  };
  return (
    <div className="field">
      <div ref={host} className="field-picture" />
      <div className="field-moves" role="group" aria-label="Move the image">
        {MOVES.map(([move, sign, words]) => (
          <Button key={move} title={words} onClick={() => drawn.current?.viewer.move(move)}>
            <span aria-hidden="true">{sign}</span>
            <span className="visually-hidden">{words}</span>
          </Button>
        ))}
        <Button
          onClick={() => {
            drawn.current?.viewer.lookAt(row, false);
          }}
        >
          This cell
        </Button>
      </div>
      {trouble !== null && <p className="is-error">{trouble}</p>}
      <Walk study={study} field={field} row={row} pointed={pointed} onLook={look} />
      <p id={help} className="field-help">
        In the image: arrows move, + and − zoom, 0 shows all of it; with the mouse, drag, and Ctrl with the
        wheel. This cell has a double line; a click on another outline opens that cell.
      </p>
    </div>
  );
}

interface WalkProps {
  study: StudyInfo;
  field: Field;
  row: number;
  pointed: number | null;
  onLook: (row: number) => void;
}

/** Goes from outline to outline without a mouse, and names the one that is pointed at. */
function Walk({ study, field, row, pointed, onLook }: WalkProps) {
  const open = useReview((state) => state.open);
  const cells = useReview((state) => state.cells);
  const present = pointed ?? row;
  const place = field.cells.findIndex((cell) => cell.row === present);
  const step = (by: number) => {
    const { length } = field.cells;
    const next = field.cells[(place + by + length) % length];
    if (next) onLook(next.row);
  };
  const label = cells.get(present)?.label ?? field.cells[place]?.label ?? -1;
  return (
    <div className="field-walk" role="group" aria-label="Outlines of this image">
      <Button
        onClick={() => {
          step(-1);
        }}
      >
        ‹ Outline before
      </Button>
      <Button
        onClick={() => {
          step(1);
        }}
      >
        Next outline ›
      </Button>
      <span role="status">
        Outline {place + 1} of {field.cells.length}: {className(study, label)}
        {present === row && ", this cell"}
      </span>
      {present !== row && (
        <Button
          onClick={() => {
            open(present);
          }}
        >
          Open it
        </Button>
      )}
    </div>
  );
}
