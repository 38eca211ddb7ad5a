import type { Neighbour, StudyInfo } from "../api/types";
import { useReview } from "../state/store";
import { ClassBadge } from "../ui/ClassBadge";
import { Crop } from "../ui/Crop";
import { cellWords, className } from "./words";

/** The cells that a network finds most alike; a click opens one. */
export function Neighbours({
  neighbours,
  note,
  study,
}: {
  neighbours: Neighbour[];
  note: string;
  study: StudyInfo;
}) {
  const open = useReview((state) => state.open);
  const cells = useReview((state) => state.cells);
  if (neighbours.length === 0) return <p>No neighbours to show. {note}</p>;
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
                <span>{className(study, cell.label)}</span>
              </span>
              <span className="neighbours-distance">{distance.toFixed(2)}</span>
            </button>
          </li>
        );
      })}
    </ul>
  );
}
