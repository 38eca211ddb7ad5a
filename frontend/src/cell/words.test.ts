import { expect, test } from "vitest";
import type { Entry } from "../api/types";
import { Service } from "../testing/service";
import { areaWords, className, entryWords, percent } from "./words";

const STUDY = new Service([]).study;
const entry = (changes: Partial<Entry>): Entry => ({
  schema_version: 1,
  seq: 1,
  id: "a",
  at: "2026-11-23T12:00:00Z",
  by: "Ann",
  kind: "label",
  cell_id: "c1",
  row: 1,
  old: "normal",
  new: "pyknotic",
  seen: { model: "lite0", prob: [0.1, 0.2, 0.7] },
  undoes: null,
  ...changes,
});

test("a probability is never rounded to certainty", () => {
  expect([0, 0.0004, 0.5, 0.9996, 1].map(percent)).toEqual([
    "0.0 %",
    "< 0.1 %",
    "50.0 %",
    "> 99.9 %",
    "100.0 %",
  ]);
});

test("an area is in µm² where the scale is known, in pixels everywhere", () => {
  expect(areaWords({ area_px: 1148, area_um2: 71.753 })).toBe("71.8 µm² (1,148 px)");
  expect(areaWords({ area_px: 1148, area_um2: null })).toBe("1,148 px");
});

test("the log says what was done, and what the person saw the model say", () => {
  expect(entryWords(entry({}), STUDY, true)).toBe("normal → pyknotic, with lite0 saying pyknotic 70.0 %");
  expect(entryWords(entry({ new: "normal", seen: null }), STUDY, true)).toBe("confirmed normal");
  expect(entryWords(entry({ kind: "undo", new: "normal", seen: null }), STUDY, true)).toBe(
    "took back: normal again",
  );
  expect(entryWords(entry({ kind: "skip" }), STUDY, false)).toBe("skipped");
  expect(entryWords(entry({ old: null, new: null, seen: null }), STUDY, true)).toBe("confirmed no label");
});

test("a blind reader does not learn from the log what a model said", () => {
  expect(entryWords(entry({}), STUDY, false)).toBe("normal → pyknotic");
});

test("a code that is no class is no label", () => {
  expect([-1, 99, null].map((code) => className(STUDY, code))).toEqual(["no label", "no label", "no label"]);
});
