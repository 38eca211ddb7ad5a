import { describe, expect, it } from "vitest";
import type { Column } from "../api/types";
import { EMPTY_QUERY } from "../state/route";
import { countCodes, filterWords, tellsOfModels, withFilter, withoutFilter } from "./filters";
import { presetsOf, sameQuestion } from "./presets";

const column = (key: string): Column => ({ key, title: key, kind: "category", values: [], range: null });
const label = (...values: string[]) => ({ column: "label", values });

describe("filters", () => {
  it("of one column replace the one before, and go when they ask for nothing", () => {
    const query = { ...EMPTY_QUERY, filters: [label("a"), { column: "area", min: 1, max: null }] };
    expect(withFilter(query, label("b", "c"))).toEqual([query.filters[1], label("b", "c")]);
    expect(withFilter(query, label())).toEqual([query.filters[1]]);
    expect(withFilter(query, { column: "area", min: null, max: null })).toEqual([label("a")]);
    expect(withoutFilter(query, "area")).toEqual([label("a")]);
  });

  it.each([
    [label("a"), "label: a"],
    [label(""), "label: none"],
    [label("a", "b"), "label: a, b"],
    [label("a", "b", "c"), "label: 3 values"],
    [{ column: "label", min: 0.123456, max: null }, "label from 0.1235"],
    [{ column: "label", min: null, max: 0 }, "label up to 0"],
    [{ column: "label", min: 1, max: 2000 }, "label: 1 to 2000"],
  ])("are said in words: %j", (filter, words) => {
    expect(filterWords(filter, [column("label")])).toBe(words);
  });

  it("count cells of each value, and those without", () => {
    expect(countCodes(Int32Array.of(0, 2, 2, -1), 3)).toEqual([1, 0, 2, 1]);
  });
});

describe("presets", () => {
  const all = ["label", "reviewed", "queue", "disagrees", "confidence", "cluster"].map(column);
  const titles = (columns: Column[], blind: boolean) =>
    presetsOf(columns, blind).map((preset) => preset.title);

  it("are those that the study has columns for", () => {
    expect(titles([column("label")], false)).toEqual(["All cells", "Unlabelled"]);
    expect(titles(all, false)).toHaveLength(6);
  });

  it("ask no model while it is hidden", () => {
    expect(titles(all, true)).toEqual(["All cells", "Near-duplicates", "Unlabelled"]);
    expect(tellsOfModels("predicted:lite0")).toBe(true);
    expect(tellsOfModels("label")).toBe(false);
  });

  it("put the review queue first cells first, without those that are done", () => {
    const queue = presetsOf(all, false).find(({ title }) => title === "Review queue")?.query;
    expect(queue?.sort).toEqual([{ column: "queue", descending: false }]);
    expect(queue?.filters).toEqual([{ column: "reviewed", values: ["no"] }]);
  });

  it("are told apart by what they ask", () => {
    for (const one of presetsOf(all, false)) {
      const same = presetsOf(all, false).filter((other) => sameQuestion(one.query, other.query));
      expect(same).toEqual([one]);
    }
  });
});
