/** Which points lie in a part of the map. `xy` holds x and y of each row in turn; NaN lies nowhere. */

export type Point = readonly [x: number, y: number];
export type Area =
  | { kind: "rectangle"; x: readonly [number, number]; y: readonly [number, number] }
  | { kind: "polygon"; points: readonly Point[] };

export function rowsInside(xy: Float32Array, area: Area): Uint32Array {
  const box = area.kind === "rectangle" ? area : boxAround(area.points);
  const [left, right] = sorted(box.x);
  const [low, high] = sorted(box.y);
  const inside = new Uint32Array(xy.length / 2);
  let n = 0;
  for (let row = 0; row < inside.length; row += 1) {
    const x = xy[2 * row] ?? NaN;
    const y = xy[2 * row + 1] ?? NaN;
    const inBox = x >= left && x <= right && y >= low && y <= high;
    if (inBox && (area.kind === "rectangle" || isInPolygon(x, y, area.points))) inside[n++] = row;
  }
  return inside.slice(0, n);
}

function sorted([a, b]: readonly [number, number]): [number, number] {
  return a <= b ? [a, b] : [b, a];
}

function boxAround(points: readonly Point[]): { x: [number, number]; y: [number, number] } {
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  return { x: [Math.min(...xs), Math.max(...xs)], y: [Math.min(...ys), Math.max(...ys)] };
}

/** Even-odd rule: a ray to the right crosses the border an odd number of times. */
function isInPolygon(x: number, y: number, points: readonly Point[]): boolean {
  let inside = false;
  let before = points.at(-1);
  for (const point of points) {
    if (before && point[1] > y !== before[1] > y) {
      const share = (y - point[1]) / (before[1] - point[1]);
      if (x < point[0] + share * (before[0] - point[0])) inside = !inside;
    }
    before = point;
  }
  return inside;
}

/** Some of many, spread evenly over them, so that a strip of pictures shows all parts of a selection. */
export function spread(rows: Uint32Array, n: number): number[] {
  if (rows.length <= n) return [...rows];
  return Array.from({ length: n }, (_, k) => rows[Math.floor((k * rows.length) / n)] ?? 0);
}
