import { useReview } from "../state/store";
import { Button } from "../ui/Button";
import { tellsOfModels } from "./filters";

/** By which column the list is ordered, and which end comes first. */
export function SortControl() {
  const columns = useReview((s) => s.study?.columns);
  const sort = useReview((s) => s.query.sort[0]);
  const blind = useReview((s) => s.blind);
  const { ask } = useReview.getState();
  const offered = columns?.filter(({ key }) => !blind || !tellsOfModels(key) || key === sort?.column);
  return (
    <div className="sort">
      <label className="sort-by">
        <span>Sort</span>
        <select
          value={sort?.column ?? ""}
          onChange={(event) => {
            const column = event.target.value;
            void ask({ sort: column === "" ? [] : [{ column, descending: false }] });
          }}
        >
          <option value="">as in the study</option>
          {offered?.map(({ key, title }) => (
            <option key={key} value={key}>
              {title}
            </option>
          ))}
        </select>
      </label>
      <Button
        disabled={!sort}
        aria-label={
          sort?.descending
            ? "Largest first; change to smallest first"
            : "Smallest first; change to largest first"
        }
        onClick={() => {
          if (sort) void ask({ sort: [{ ...sort, descending: !sort.descending }] });
        }}
      >
        <span aria-hidden="true">{sort?.descending ? "↓" : "↑"}</span>
      </Button>
    </div>
  );
}
