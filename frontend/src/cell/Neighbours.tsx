import type { Neighbour, StudyInfo } from "../api/types";
import { useReview } from "../state/store";
import { ClassBadge } from "../ui/ClassBadge";
import { Crop } from "../ui/Crop";
import { cellWords, className } from "./words";

/** The cells that a network finds most alike; a click opens one. */
export function Neighbours({ neighbours, study }: { neighbours: Neighbour[]; study: StudyInfo }) {
  const open = useReview((state) => state.open);
  const cells = useReview((state) => state.cells);
  if (neighbours.length === 0) {
    const why = study.has_features
      ? "They are still being prepared."
      : "No features of these cells are there.";
    return <p>No neighbours to show. {why}</p>;
  }
  return (
    <ul className="neighbours">
      {neighbours.map(({ cell: found, distance }) => {
        const cell = cells.get(found.row) ?? found;
        return (
          <li key={cell.row}>
            <button
              type="button"
              onClick={() => {
                open(cell.row);
              }}
              title={`${cellWords(cell, study)}, distance ${distance.toFixed(3)}`}
            >
              <Crop row={cell.row} alt="" />
              <span className="neighbours-class">
                <ClassBadge label={cell.label} />
                {className(study, cell.label)}
              </span>
              <span className="neighbours-distance">{distance.toFixed(2)}</span>
            </button>
          </li>
        );
      })}
    </ul>
  );
}
