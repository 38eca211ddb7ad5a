import { expect, test } from "vitest";
import { rowsInside, spread } from "./selection";

//       row:              0     1     2      3       4 (not on the map)
const XY = Float32Array.of(0, 0, 2, 2, 5, 1, -3, 4, NaN, NaN);

test("a rectangle selects what lies in it, its border included, from whichever corner it was drawn", () => {
  expect([...rowsInside(XY, { kind: "rectangle", x: [0, 2], y: [0, 2] })]).toEqual([0, 1]);
  expect([...rowsInside(XY, { kind: "rectangle", x: [6, -4], y: [5, 0.5] })]).toEqual([1, 2, 3]);
});

test("a lasso leaves out what lies in its bay, though inside the box around it", () => {
  const letterU = [
    [-1, -1],
    [6, -1],
    [6, 3],
    [4, 3],
    [4, 0.5],
    [1, 0.5],
    [1, 3],
    [-1, 3],
  ] as const;
  expect([...rowsInside(XY, { kind: "polygon", points: letterU })]).toEqual([0, 2]);
});

test("a slanted stroke is followed, not its corners", () => {
  const above = [
    [-4, -4],
    [6, 6],
    [-4, 6],
  ] as const; // what lies above the diagonal
  const points = Float32Array.of(0, 1, 1, 0, 4, 4.5, 4.5, 4, -3, -3.5);
  expect([...rowsInside(points, { kind: "polygon", points: above })]).toEqual([0, 2]);
});

test("a lasso that crosses itself selects what an odd number of its turns surrounds", () => {
  const twice = [
    [-1, -1],
    [6, -1],
    [6, 6],
    [-1, 6],
  ] as const;
  expect([...rowsInside(XY, { kind: "polygon", points: twice })]).toEqual([0, 1, 2]);
  expect([...rowsInside(XY, { kind: "polygon", points: [...twice, ...twice] })]).toEqual([]);
});

test("a click without a stroke selects nothing", () => {
  expect(rowsInside(XY, { kind: "polygon", points: [[2, 2]] })).toHaveLength(0);
  expect(rowsInside(XY, { kind: "polygon", points: [] })).toHaveLength(0);
});

test("pictures of a selection come from all over it", () => {
  expect(spread(Uint32Array.of(4, 8), 3)).toEqual([4, 8]);
  expect(
    spread(
      Uint32Array.from({ length: 100 }, (_, k) => k),
      4,
    ),
  ).toEqual([0, 25, 50, 75]);
});
