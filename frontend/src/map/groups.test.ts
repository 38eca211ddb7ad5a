import { expect, test } from "vitest";
import type { Column } from "../api/types";
import { Service } from "../testing/service";
import { NONE_COLOUR, scaleColour, VALUE_COLOURS } from "./colours";
import { binOf, groupByNumber, groupByValue, quantileEdges } from "./groups";
import { countByGroup, layersOf, rowsOfGroup, visibleRows } from "./layers";

const STUDY = new Service([]).study;
const column = (values: string[], title = "Region"): Column => ({
  key: title.toLowerCase(),
  title,
  kind: "category",
  values,
  range: null,
});
const [first = "", second = ""] = STUDY.class_names;
const names = (grouping: { groups: { name: string }[] }) => grouping.groups.map((group) => group.name);

test("classes have the colours of the study, in any column that holds classes", () => {
  const { groups } = groupByValue(column([second, first], "Predicted"), Int32Array.of(0, 1, 1, -1), STUDY);
  expect(groups).toEqual([
    { name: second, colour: STUDY.class_colours[1], n: 1 },
    { name: first, colour: STUDY.class_colours[0], n: 2 },
    { name: "no predicted", colour: NONE_COLOUR, n: 1 },
  ]);
});

test("values that no cell has make no group, and cells without a value make one", () => {
  const grouping = groupByValue(column(["CA1", "CA3", "DG"]), Int32Array.of(2, -1, 2, 0), STUDY);
  expect(names(grouping)).toEqual(["CA1", "DG", "no region"]);
  expect([...grouping.of]).toEqual([1, 2, 1, 0]);
});

test("of many values the most frequent have colours and come first", () => {
  const many = Array.from({ length: 30 }, (_, k) => `s${k}`);
  const codes = Int32Array.from([...many.keys(), ...[29, 29, 17]]);
  const { groups } = groupByValue(column(many), codes, STUDY);
  expect(groups.slice(0, 2).map((group) => group.name)).toEqual(["s29", "s17"]);
  expect(groups.filter((group) => group.colour !== NONE_COLOUR)).toHaveLength(VALUE_COLOURS.length);
});

test("hundreds of values are kept apart, thousands share a last group that counts every cell", () => {
  const many = Array.from({ length: 1000 }, (_, k) => `image ${k}`);
  const grouping = groupByValue(column(many), Int32Array.from(many.keys()), STUDY);
  expect(grouping.groups).toHaveLength(200);
  expect(grouping.groups.at(-1)).toEqual({ name: "801 rarer values", colour: NONE_COLOUR, n: 801 });
  expect(rowsOfGroup(grouping, 199)).toHaveLength(801);
});

test("numbers are shared out in ranges with as many cells each, from dark to light", () => {
  const { groups, of } = groupByNumber(Float32Array.from({ length: 80 }, (_, k) => k));
  expect(groups.map((group) => group.n)).toEqual([10, 10, 10, 10, 10, 10, 10, 10]);
  expect(groups[0]).toEqual({ name: "0 to 10", colour: scaleColour(0), n: 10 });
  expect(groups[7]?.colour).toBe(scaleColour(1));
  expect(of[79]).toBe(7);
});

test("unknown numbers are a group of their own and move no limit", () => {
  const { groups, of } = groupByNumber(Float32Array.of(NaN, 1, 1, 1, NaN));
  expect(groups.map(({ name, n }) => [name, n])).toEqual([
    ["1 to 1", 3],
    ["unknown", 2],
  ]);
  expect([...of]).toEqual([1, 0, 0, 0, 1]);
  expect(names(groupByNumber(Float32Array.of(NaN)))).toEqual(["unknown"]);
});

test("a value that most cells have does not make empty ranges", () => {
  const numbers = Float32Array.from([...Array.from({ length: 70 }, () => 1), 2, 3, 4]);
  expect(quantileEdges(numbers)).toEqual([1, 4]);
  expect(groupByNumber(numbers).groups.every((group) => group.n > 0)).toBe(true);
});

test("a limit belongs to the range above it, the largest number to the last range", () => {
  expect([0, 9.9, 10, 20].map((number) => binOf(number, [0, 10, 20]))).toEqual([0, 0, 1, 1]);
});

test("points are drawn by colour, the selected ones last, hidden groups not at all", () => {
  const xy = Float32Array.of(0, 1, 2, 3, 4, 5, 6, 7);
  const grouping = groupByValue(column(["CA1", "CA3", "DG"]), Int32Array.of(0, 1, 2, 0), STUDY);
  const layers = layersOf(xy, grouping, new Set([2]), Uint32Array.of(3));
  expect(layers.map(({ faint, rows, xy: own }) => [faint, [...rows], [...own]])).toEqual([
    [true, [0], [0, 1]],
    [true, [1], [2, 3]],
    [false, [3], [6, 7]],
  ]);
  expect(layersOf(xy, grouping, new Set(), null).some((layer) => layer.faint)).toBe(false);
  expect([...visibleRows(Uint32Array.of(0, 2), grouping, new Set([2]))]).toEqual([0]);
  expect([...countByGroup(Uint32Array.of(0, 3, 1), grouping)]).toEqual([2, 1, 0]);
});
