/** The shape of the gallery as it is on the screen. */
export interface Shape {
  n: number;
  columns: number;
  /** Whole rows that fit on the screen. */
  rowsShown: number;
}

/** Where a key leads from a place; null for a key that does not move. */
export function placeAfter(key: string, place: number, shape: Shape, withCtrl = false): number | null {
  const { n, columns, rowsShown } = shape;
  const rowStart = place - (place % columns);
  const page = columns * Math.max(1, rowsShown - 1);
  const within = (wanted: number) => Math.max(0, Math.min(wanted, n - 1));
  switch (key) {
    case "ArrowLeft":
      return within(place - 1);
    case "ArrowRight":
      return within(place + 1);
    case "ArrowUp":
      return place < columns ? place : place - columns;
    case "ArrowDown":
      return rowStart + columns >= n ? place : within(place + columns);
    case "PageUp":
      return place < page ? place % columns : place - page;
    case "PageDown":
      return within(place + page);
    case "Home":
      return withCtrl ? 0 : rowStart;
    case "End":
      return withCtrl ? within(n - 1) : within(rowStart + columns - 1);
    default:
      return null;
  }
}
