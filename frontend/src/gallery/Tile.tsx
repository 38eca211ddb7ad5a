import { memo } from "react";
import { useReview } from "../state/store";
import { ClassBadge } from "../ui/ClassBadge";
import { Crop } from "../ui/Crop";
import { cellWords, percent } from "./words";

interface Props {
  row: number;
  place: number;
  column: number;
  /** While the page flies past, pictures are not asked for. */
  flying: boolean;
}

/** One cell of the gallery: its picture, its label and what the model says. */
export const Tile = memo(function Tile({ row, place, column, flying }: Props) {
  const cell = useReview((s) => s.cells.get(row));
  const isHere = useReview((s) => s.place === place);
  const names = useReview((s) => s.study?.class_names);
  const model = useReview((s) => (s.blind ? null : (s.study?.table_model ?? null)));
  const words = cell && names ? cellWords(cell, names, model) : `cell ${place + 1}`;
  const differs = cell?.predicted !== cell?.label;
  return (
    <div
      role="gridcell"
      className={isHere ? "tile tile-here" : "tile"}
      data-place={place}
      aria-colindex={column + 1}
      aria-selected={isHere}
      tabIndex={isHere ? 0 : -1}
    >
      {flying ? <span className="crop" /> : <Crop row={row} alt={words} />}
      {cell && (
        <span className="tile-words" aria-hidden="true">
          <ClassBadge label={cell.label} />
          {cell.reviewed && <span className="tile-mark">✓</span>}
          {model !== null && cell.predicted !== null && cell.confidence !== null && (
            <span className={differs ? "tile-model tile-differs" : "tile-model"}>
              {differs && (
                <>
                  ≠<ClassBadge label={cell.predicted} />
                </>
              )}
              {percent(cell.confidence)}
            </span>
          )}
        </span>
      )}
    </div>
  );
});
