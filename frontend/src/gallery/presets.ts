import type { Column, Query } from "../api/types";
import { EMPTY_QUERY, formatRoute } from "../state/route";
import { tellsOfModels } from "./filters";

export interface Preset {
  title: string;
  words: string;
  query: Query;
  /** Columns it needs, without which it is not offered. */
  needs: string[];
}

const unreviewed = { column: "reviewed", values: ["no"] };

const PRESETS: Preset[] = [
  { title: "All cells", words: "In the order of the study", query: EMPTY_QUERY, needs: [] },
  {
    title: "Review queue",
    words: "Not yet reviewed, those whose label is worth most first",
    query: { ...EMPTY_QUERY, filters: [unreviewed], sort: [{ column: "queue", descending: false }] },
    needs: ["queue", "reviewed"],
  },
  {
    title: "Disagreements",
    words: "Label and model differ, the surest model first",
    query: {
      ...EMPTY_QUERY,
      filters: [{ column: "disagrees", values: ["yes"] }],
      sort: [{ column: "confidence", descending: true }],
    },
    needs: ["disagrees", "confidence"],
  },
  {
    title: "Unsure",
    words: "Not yet reviewed, the least sure model first",
    query: { ...EMPTY_QUERY, filters: [unreviewed], sort: [{ column: "confidence", descending: false }] },
    needs: ["confidence", "reviewed"],
  },
  {
    title: "Near-duplicates",
    words: "Cells that look the same, side by side",
    query: {
      ...EMPTY_QUERY,
      filters: [{ column: "cluster", min: 1, max: null }],
      sort: [{ column: "cluster", descending: false }],
    },
    needs: ["cluster"],
  },
  {
    title: "Unlabelled",
    words: "Cells without a label",
    query: { ...EMPTY_QUERY, filters: [{ column: "label", values: [""] }] },
    needs: ["label"],
  },
];

/** The questions most asked, as far as the study has what they need; blind ones ask no model. */
export function presetsOf(columns: Column[], blind: boolean): Preset[] {
  const keys = new Set(columns.map((column) => column.key));
  return PRESETS.filter(({ needs }) => needs.every((key) => keys.has(key) && !(blind && tellsOfModels(key))));
}

export const sameQuestion = (a: Query, b: Query) =>
  formatRoute({ view: "gallery", row: null, query: a }) ===
  formatRoute({ view: "gallery", row: null, query: b });
