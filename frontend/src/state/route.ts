import type { Filter, Query } from "../api/types";
import type { View } from "./types";

/** What the address says: "#/cell/12?in.label=normal&min.confidence=0.5&sort=-entropy&text=a1". */
export interface Route {
  view: View;
  row: number | null;
  query: Query;
}

export const EMPTY_QUERY: Query = { filters: [], sort: [], text: "", within: null };
const VIEWS: readonly string[] = ["gallery", "cell", "map", "reading"];

/** Selections on the map are too long for an address: they stay with the tab. */
const WITHIN_KEY = "perikarya:within";

export function keepWithin(rows: number[] | null): void {
  try {
    if (rows) sessionStorage.setItem(WITHIN_KEY, JSON.stringify(rows));
  } catch {
    // without room the selection is lost by a reload, and nothing else
  }
}

function keptWithin(): number[] | null {
  return JSON.parse(sessionStorage.getItem(WITHIN_KEY) ?? "null") as number[] | null;
}

export function formatRoute({ view, row, query }: Route): string {
  const words = new URLSearchParams();
  for (const filter of query.filters) {
    if ("values" in filter) {
      for (const value of filter.values) words.append(`in.${filter.column}`, value);
    } else {
      if (filter.min !== null) words.append(`min.${filter.column}`, String(filter.min));
      if (filter.max !== null) words.append(`max.${filter.column}`, String(filter.max));
    }
  }
  for (const { column, descending } of query.sort) words.append("sort", (descending ? "-" : "") + column);
  if (query.text) words.append("text", query.text);
  if (query.within) words.append("within", "1");
  const path = view === "cell" && row !== null ? `#/cell/${row}` : `#/${view}`;
  return words.size > 0 ? `${path}?${words.toString()}` : path;
}

export function parseRoute(hash: string): Route {
  const [path = "", words = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const [name = "", rest = ""] = path.split("/", 2);
  const query = parseQuery(new URLSearchParams(words));
  if (name === "cell") {
    const row = /^\d+$/.test(rest) ? Number(rest) : null;
    return { view: row === null ? "gallery" : "cell", row, query };
  }
  return { view: VIEWS.includes(name) ? (name as View) : "gallery", row: null, query };
}

function parseQuery(words: URLSearchParams): Query {
  const filters = new Map<string, Filter>();
  const query: Query = { ...EMPTY_QUERY, sort: [] };
  for (const [key, value] of words) {
    const [what = "", ...rest] = key.split(".");
    const column = rest.join(".");
    const filter = filters.get(column);
    if (what === "in") {
      const values = filter && "values" in filter ? filter.values : [];
      filters.set(column, { column, values: [...values, value] });
    } else if ((what === "min" || what === "max") && value !== "" && Number.isFinite(Number(value))) {
      const bounds = filter && "min" in filter ? filter : { column, min: null, max: null };
      filters.set(column, { ...bounds, [what]: Number(value) });
    } else if (key === "sort") {
      const descending = value.startsWith("-");
      query.sort.push({ column: descending ? value.slice(1) : value, descending });
    } else if (key === "text") query.text = value;
    else if (key === "within") query.within = keptWithin();
  }
  query.filters = [...filters.values()];
  return query;
}
