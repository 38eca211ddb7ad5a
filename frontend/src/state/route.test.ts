import { describe, expect, it } from "vitest";
import { EMPTY_QUERY, formatRoute, parseRoute, type Route } from "./route";

describe("the address", () => {
  it("says all that the gallery was asked, with odd names in it", () => {
    const route: Route = {
      view: "gallery",
      row: null,
      query: {
        filters: [
          { column: "label", values: ["normal", "", "a&b=c?#/ü"] },
          { column: "predicted:lite0 x", values: ["no.dots.lost"] },
          { column: "confidence", min: 0.25, max: null },
          { column: "area_px", min: -1, max: 1e6 },
        ],
        sort: [
          { column: "queue", descending: false },
          { column: "confidence", descending: true },
        ],
        text: "100 % & more",
        within: null,
      },
    };
    expect(parseRoute(formatRoute(route))).toEqual(route);
  });

  it.each([
    ["", "gallery", null],
    ["#/", "gallery", null],
    ["#/map", "map", null],
    ["#/cell/12", "cell", 12],
    ["#/cell/x", "gallery", null],
    ["#/cell/-1", "gallery", null],
    ["#/nonsense/../..", "gallery", null],
  ])("%s is view %s, cell %s", (hash, view, row) => {
    expect(parseRoute(hash)).toEqual({ view, row, query: EMPTY_QUERY });
  });

  it("drops bounds that are no numbers", () => {
    expect(parseRoute("#/gallery?min.area=abc&max.area=").query.filters).toEqual([]);
  });
});
