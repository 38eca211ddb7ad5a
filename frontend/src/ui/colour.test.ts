import { describe, expect, it } from "vitest";
import { luminance, wantsWhite } from "./colour";

const contrast = (a: number, b: number) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);

describe("words on a colour", () => {
  it.each([
    "#0072b2",
    "#e69f00",
    "#a50026",
    "#56b4e9",
    "#0b1c4a",
    "#777777",
    "#757575",
    "#ff0000",
    "#00ff00",
  ])("can be read on %s", (colour) => {
    expect(contrast(luminance(colour), wantsWhite(colour) ? 1 : 0)).toBeGreaterThanOrEqual(4.5);
  });

  it("know the luminance of the ends", () => {
    expect(luminance("#000000")).toBe(0);
    expect(luminance("#ffffff")).toBeCloseTo(1);
  });
});
