import { describe, expect, it } from "vitest";
import { placeAfter } from "./moves";

// 4 columns, 3 rows on the screen, the last row of all has two cells:
const shape = { n: 22, columns: 4, rowsShown: 3 };

describe("keys move", () => {
  it.each([
    ["ArrowRight", 0, 1],
    ["ArrowRight", 21, 21],
    ["ArrowLeft", 0, 0],
    ["ArrowLeft", 4, 3],
    ["ArrowDown", 1, 5],
    ["ArrowDown", 19, 21],
    ["ArrowDown", 20, 20],
    ["ArrowUp", 5, 1],
    ["ArrowUp", 2, 2],
    ["PageDown", 1, 9],
    ["PageDown", 18, 21],
    ["PageUp", 9, 1],
    ["PageUp", 6, 2],
    ["Home", 6, 4],
    ["End", 4, 7],
    ["End", 20, 21],
  ])("%s from %i to %i", (key, from, to) => {
    expect(placeAfter(key, from, shape)).toBe(to);
  });

  it("to the ends of all with Ctrl", () => {
    expect(placeAfter("Home", 9, shape, true)).toBe(0);
    expect(placeAfter("End", 9, shape, true)).toBe(21);
  });

  it("only if they are keys that move", () => {
    expect(placeAfter("x", 9, shape)).toBeNull();
  });
});
