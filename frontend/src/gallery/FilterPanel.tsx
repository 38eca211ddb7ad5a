import type { Column } from "../api/types";
import { useReview } from "../state/store";
import { Button } from "../ui/Button";
import { CategoryFilterFields } from "./CategoryFilterFields";
import { filterOf, filterWords, tellsOfModels, withFilter, withoutFilter } from "./filters";
import { NumberFilterFields } from "./NumberFilterFields";
import { presetsOf, sameQuestion } from "./presets";

/** Which cells are shown: questions most asked, then one filter per column. */
export function FilterPanel({ onClose }: { onClose: () => void }) {
  const columns = useReview((s) => s.study?.columns ?? NO_COLUMNS);
  const blind = useReview((s) => s.blind);
  const shown = columns.filter(({ key }) => !blind || !tellsOfModels(key));
  return (
    <aside className="filters" aria-label="Filters">
      <Presets columns={columns} blind={blind} />
      <Active columns={columns} />
      <h3>Filters</h3>
      {shown
        .filter((column) => !isOfOneModel(column))
        .map((column) => (
          <ColumnFilter key={column.key} column={column} />
        ))}
      {shown.some(isOfOneModel) && (
        <details className="column-filter">
          <summary>
            <span className="column-filter-title">Each model</span>
          </summary>
          {shown.filter(isOfOneModel).map((column) => (
            <ColumnFilter key={column.key} column={column} />
          ))}
        </details>
      )}
      <Button className="filters-close" look="main" onClick={onClose}>
        Show cells
      </Button>
    </aside>
  );
}

function Presets({ columns, blind }: { columns: Column[]; blind: boolean }) {
  const query = useReview((s) => s.query);
  const { ask } = useReview.getState();
  return (
    <>
      <h3>Show</h3>
      <div className="presets" role="group" aria-label="Questions most asked">
        {presetsOf(columns, blind).map((preset) => (
          <Button
            key={preset.title}
            look="quiet"
            className="preset"
            title={preset.words}
            pressed={sameQuestion(query, preset.query)}
            onClick={() => void ask(preset.query)}
          >
            {preset.title}
          </Button>
        ))}
      </div>
    </>
  );
}

/** The filters that are on, each with a way to take it out. */
function Active({ columns }: { columns: Column[] }) {
  const query = useReview((s) => s.query);
  const { ask } = useReview.getState();
  if (query.filters.length === 0 && query.within === null) return null;
  return (
    <>
      <h3>Only cells with</h3>
      <ul className="active-filters">
        {query.within !== null && (
          <Chip
            words={`Selection on the map: ${query.within.length}`}
            onRemove={() => void ask({ within: null })}
          />
        )}
        {query.filters.map((filter) => (
          <Chip
            key={filter.column}
            words={filterWords(filter, columns)}
            onRemove={() => void ask({ filters: withoutFilter(query, filter.column) })}
          />
        ))}
      </ul>
    </>
  );
}

function Chip({ words, onRemove }: { words: string; onRemove: () => void }) {
  return (
    <li>
      <button
        type="button"
        className="button chip"
        aria-label={`Remove the filter ${words}`}
        onClick={onRemove}
      >
        <span className="chip-words">{words}</span>
        <span aria-hidden="true">×</span>
      </button>
    </li>
  );
}

function ColumnFilter({ column }: { column: Column }) {
  const query = useReview((s) => s.query);
  const { ask } = useReview.getState();
  const filter = filterOf(query, column.key);
  return (
    <details className="column-filter">
      <summary>
        <span className="column-filter-title">{column.title}</span>
        {filter && <span className="column-filter-on">on</span>}
      </summary>
      {column.kind === "category" ? (
        <CategoryFilterFields
          column={column}
          chosen={filter && "values" in filter ? filter.values : NO_VALUES}
          onChoose={(values) => void ask({ filters: withFilter(query, { column: column.key, values }) })}
        />
      ) : (
        <NumberFilterFields
          column={column}
          filter={filter && "min" in filter ? filter : null}
          onChange={(min, max) => void ask({ filters: withFilter(query, { column: column.key, min, max }) })}
        />
      )}
    </details>
  );
}

/** "predicted:lite0" and the like, besides "predicted" of the model of the table. */
const isOfOneModel = ({ key }: Column) => key.includes(":");

const NO_COLUMNS: Column[] = [];
const NO_VALUES: string[] = [];
