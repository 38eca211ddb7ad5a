import type { Column, Filter, Query } from "../api/types";

export type CategoryFilter = Extract<Filter, { values: string[] }>;
export type NumberFilter = Exclude<Filter, CategoryFilter>;

export function filterOf(query: Query, column: string): Filter | undefined {
  return query.filters.find((filter) => filter.column === column);
}

const asksNothing = (filter: Filter) =>
  "values" in filter ? filter.values.length === 0 : filter.min === null && filter.max === null;

/** The filters with one of them set anew; one that asks for nothing is taken out. */
export function withFilter(query: Query, filter: Filter): Filter[] {
  const others = query.filters.filter(({ column }) => column !== filter.column);
  return asksNothing(filter) ? others : [...others, filter];
}

export const withoutFilter = (query: Query, column: string): Filter[] =>
  query.filters.filter((filter) => filter.column !== column);

/** "" stands for cells without a value. */
export const valueWords = (value: string) => (value === "" ? "none" : value);

export function filterWords(filter: Filter, columns: Column[]): string {
  const title = columns.find(({ key }) => key === filter.column)?.title ?? filter.column;
  if ("values" in filter) {
    const [first = "", second] = filter.values;
    if (second === undefined) return `${title}: ${valueWords(first)}`;
    return filter.values.length === 2
      ? `${title}: ${valueWords(first)}, ${valueWords(second)}`
      : `${title}: ${filter.values.length} values`;
  }
  const { min, max } = filter;
  if (min !== null && max !== null) return `${title}: ${numberWords(min)} to ${numberWords(max)}`;
  return min !== null ? `${title} from ${numberWords(min)}` : `${title} up to ${numberWords(max ?? 0)}`;
}

/** Four digits say enough of a bound. */
export const numberWords = (value: number) => String(Number(value.toPrecision(4)));

/** How many cells have each value of a category; the last one counts those without. */
export function countCodes(codes: Int32Array, nValues: number): number[] {
  const counts = new Array<number>(nValues + 1).fill(0);
  for (const code of codes) {
    const place = code < 0 ? nValues : code;
    counts[place] = (counts[place] ?? 0) + 1;
  }
  return counts;
}

const MODEL_COLUMNS = [
  "predicted",
  "confidence",
  "entropy",
  "disagrees",
  "abstained",
  "label_doubt",
  "flagged",
  "queue",
];

/** Whether a column tells what a model says, which a blind reader must not see. */
export const tellsOfModels = (key: string) => MODEL_COLUMNS.includes(key.split(":", 1)[0] ?? key);
