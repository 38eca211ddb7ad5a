import { useRef, useState } from "react";
import { api } from "../api/client";
import { decodeCodes } from "../api/decode";
import type { Column } from "../api/types";
import { useReview } from "../state/store";
import { ClassBadge } from "../ui/ClassBadge";
import { countCodes, valueWords } from "./filters";
import { useOpened } from "./useOpened";

const SHOWN_AT_ONCE = 40;
const CLASS_COLUMNS = ["label", "imported_label", "predicted"];

interface Props {
  column: Column;
  chosen: string[];
  onChoose: (values: string[]) => void;
}

/** Values of a category to tick, with how many cells of the study have each. */
export function CategoryFilterFields({ column, chosen, onChoose }: Props) {
  const [wanted, setWanted] = useState("");
  const list = useRef<HTMLDivElement>(null);
  const counts = useCounts(column, list);
  const nWithout = counts?.[column.values.length] ?? 0;
  const values = nWithout > 0 || chosen.includes("") ? [...column.values, ""] : column.values;
  const fitting = values.filter((value) => valueWords(value).toLowerCase().includes(wanted.toLowerCase()));
  const shown = fitting.slice(0, SHOWN_AT_ONCE);
  const isClass = CLASS_COLUMNS.includes(column.key.split(":", 1)[0] ?? "");
  return (
    <div ref={list} className="ticks" role="group" aria-label={column.title}>
      {values.length > SHOWN_AT_ONCE / 2 && (
        <input
          type="search"
          value={wanted}
          placeholder="Find"
          aria-label={`Find a value of ${column.title}`}
          onChange={(event) => {
            setWanted(event.target.value);
          }}
        />
      )}
      {shown.map((value) => {
        const code = value === "" ? column.values.length : column.values.indexOf(value);
        return (
          <label key={value} className="tick">
            <input
              type="checkbox"
              checked={chosen.includes(value)}
              onChange={(event) => {
                onChoose(
                  event.target.checked ? [...chosen, value] : chosen.filter((other) => other !== value),
                );
              }}
            />
            {isClass && <ClassBadge label={value === "" ? -1 : code} />}
            <span className="tick-name">{valueWords(value)}</span>
            <span className="muted">{counts?.[code]?.toLocaleString("en")}</span>
          </label>
        );
      })}
      {fitting.length > shown.length && (
        <p className="muted">{fitting.length - shown.length} more: type to find.</p>
      )}
    </div>
  );
}

/** Cells of each value, counted when the list is opened and again when labels changed. */
function useCounts(column: Column, list: React.RefObject<HTMLElement | null>): number[] | null {
  const [counts, setCounts] = useState<number[] | null>(null);
  const revision = useReview((s) => s.revision);
  useOpened(list, revision, () => {
    api.column(column.key).then(
      ({ values_b64 }) => {
        setCounts(countCodes(decodeCodes(values_b64), column.values.length));
      },
      () => {
        setCounts(null); // the list works without counts
      },
    );
  });
  return counts;
}
