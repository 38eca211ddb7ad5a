import { expect, test } from "vitest";
import type { Field } from "../api/types";
import { boxOf, Outlines, rowOf } from "./outlines";

const FIELD: Field = {
  field: 0,
  image_id: "a1",
  width: 640,
  height: 480,
  tile_px: 256,
  n_levels: 3,
  min_level: 0,
  um_per_px: null,
  cells: [
    { row: 4, label: 1, path: "M10 20L30 20L30 45.5L10 45.5Z" },
    { row: 9, label: -1, path: "M100 100L110 100L110 120Z" },
  ],
};
const COLOURS = ["#111111", "#222222"];

const path = (outlines: Outlines, row: number) => outlines.element.querySelector(`[data-row="${row}"]`);

test("each outline has the colour of its class, and follows it", () => {
  const outlines = new Outlines(FIELD, COLOURS);
  expect(path(outlines, 4)?.getAttribute("stroke")).toBe("#222222");
  expect(path(outlines, 9)?.getAttribute("stroke")).toBe("#ffffff");
  outlines.recolour(9, 0, COLOURS);
  expect(path(outlines, 9)?.getAttribute("stroke")).toBe("#111111");
});

test("the present cell has a double line around it and lies on top", () => {
  const outlines = new Outlines(FIELD, COLOURS);
  outlines.mark(4);
  const [outer, inner, own] = [...outlines.element.children].slice(-3);
  expect([outer?.getAttribute("class"), inner?.getAttribute("class")]).toEqual(["mark-outer", "mark-inner"]);
  expect(outer?.getAttribute("d")).toBe(FIELD.cells[0]?.path);
  expect(own).toBe(path(outlines, 4));
  outlines.mark(77);
  expect(outer?.getAttribute("d")).toBe("");
});

test("one outline at a time is pointed at", () => {
  const outlines = new Outlines(FIELD, COLOURS);
  outlines.point(4);
  outlines.point(9);
  expect([...outlines.element.querySelectorAll(".is-pointed")]).toEqual([path(outlines, 9)]);
  outlines.point(null);
  expect(outlines.element.querySelector(".is-pointed")).toBeNull();
});

test("a click finds the cell of an outline, and none beside outlines", () => {
  const outlines = new Outlines(FIELD, COLOURS);
  expect(rowOf(path(outlines, 9))).toBe(9);
  expect(rowOf(outlines.element)).toBeNull();
  expect(rowOf(null)).toBeNull();
});

test("the box around an outline is known from its path", () => {
  expect(boxOf("M10 20L30 20L30 45.5L10 45.5Z")).toEqual({ x: 10, y: 20, width: 20, height: 25.5 });
  expect(boxOf("")).toBeNull();
});
