import type { Grouping } from "./groups";

/** Points that are drawn alike: one series of the chart. */
export interface Layer {
  colour: string;
  /** Not selected while others are. */
  faint: boolean;
  /** Row of each point. */
  rows: Uint32Array;
  xy: Float32Array;
}

/** Share the points out by colour and by whether they are selected; hidden groups are left out. */
export function layersOf(
  xy: Float32Array,
  grouping: Grouping,
  hidden: ReadonlySet<number>,
  selected: Uint32Array | null,
): Layer[] {
  const isSelected = new Uint8Array(grouping.of.length);
  for (const row of selected ?? []) isSelected[row] = 1;
  const colours = [...new Set(grouping.groups.map((group) => group.colour))];
  const colourOf = grouping.groups.map((group) => colours.indexOf(group.colour));
  const parts: number[][] = Array.from({ length: 2 * colours.length }, () => []);
  grouping.of.forEach((group, row) => {
    if (hidden.has(group)) return;
    const faint = selected !== null && isSelected[row] === 0;
    parts[(faint ? 0 : colours.length) + (colourOf[group] ?? 0)]?.push(row);
  });
  return parts.flatMap((rows, k) => {
    const colour = colours[k % colours.length] ?? "";
    return rows.length === 0 ? [] : [layer(colour, k < colours.length, Uint32Array.from(rows), xy)];
  });
}

function layer(colour: string, faint: boolean, rows: Uint32Array, xy: Float32Array): Layer {
  const own = new Float32Array(2 * rows.length);
  rows.forEach((row, k) => {
    own[2 * k] = xy[2 * row] ?? NaN;
    own[2 * k + 1] = xy[2 * row + 1] ?? NaN;
  });
  return { colour, faint, rows, xy: own };
}

/** Whether a row is drawn at all. */
export function visibleRows(rows: Uint32Array, grouping: Grouping, hidden: ReadonlySet<number>): Uint32Array {
  return hidden.size === 0 ? rows : rows.filter((row) => !hidden.has(grouping.of[row] ?? -1));
}

export function rowsOfGroup(grouping: Grouping, group: number): Uint32Array {
  const rows: number[] = [];
  grouping.of.forEach((of, row) => {
    if (of === group) rows.push(row);
  });
  return Uint32Array.from(rows);
}

/** How many of some rows each group holds. */
export function countByGroup(rows: Uint32Array, grouping: Grouping): Uint32Array {
  const counts = new Uint32Array(grouping.groups.length);
  for (const row of rows) {
    const group = grouping.of[row];
    if (group !== undefined) counts[group] = (counts[group] ?? 0) + 1;
  }
  return counts;
}
