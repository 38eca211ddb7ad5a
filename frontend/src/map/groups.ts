import type { Column, StudyInfo } from "../api/types";
import { NONE_COLOUR, scaleColour, VALUE_COLOURS } from "./colours";

/** Cells with the same value of a column, or with a number in the same range. */
export interface Group {
  name: string;
  colour: string;
  n: number;
}

/** Groups of a column, and the group of each row. */
export interface Grouping {
  groups: Group[];
  of: Uint16Array;
}

const MOST_GROUPS = 200; // rarer values of a column share one group
const N_BINS = 8;

/** Group rows by the codes of a category; -1 is a group of its own where it occurs. */
export function groupByValue(column: Column, codes: Int32Array, study: StudyInfo): Grouping {
  const counts = new Uint32Array(column.values.length + 1); // the last one counts the code -1
  const placeOf = (code: number) => (code < 0 ? column.values.length : code);
  for (const code of codes) addOne(counts, placeOf(code));
  const present = [...counts.keys()].filter((place) => (counts[place] ?? 0) > 0);
  const ranked = present.toSorted((a, b) => (counts[b] ?? 0) - (counts[a] ?? 0));
  const kept = new Set(ranked.slice(0, present.length > MOST_GROUPS ? MOST_GROUPS - 1 : MOST_GROUPS));
  const order = present.length > VALUE_COLOURS.length ? ranked : present; // those with a colour first
  const shown = order.filter((place) => kept.has(place));
  const colourOf = coloursOf(column, ranked, study);
  const groups = shown.map((place): Group => ({
    name: column.values[place] || `no ${column.title.toLowerCase()}`,
    colour: colourOf(place),
    n: counts[place] ?? 0,
  }));
  const groupOf = new Uint16Array(counts.length).fill(shown.length);
  shown.forEach((place, group) => (groupOf[place] = group));
  if (shown.length < present.length) groups.push(restOf(present.length - shown.length, counts, kept));
  return { groups, of: Uint16Array.from(codes, (code) => groupOf[placeOf(code)] ?? 0) };
}

function addOne(counts: Uint32Array, place: number): void {
  counts[place] = (counts[place] ?? 0) + 1;
}

function restOf(n: number, counts: Uint32Array, kept: Set<number>): Group {
  let cells = 0;
  counts.forEach((count, place) => (cells += kept.has(place) ? 0 : count));
  return { name: `${n.toLocaleString("en")} rarer values`, colour: NONE_COLOUR, n: cells };
}

/** Classes have their own colours; of other columns the most frequent values get one each. */
function coloursOf(column: Column, ranked: number[], study: StudyInfo): (place: number) => string {
  const areClasses = column.values.every((value) => value === "" || study.class_names.includes(value));
  if (areClasses) {
    return (place) => {
      const code = study.class_names.indexOf(column.values[place] ?? "");
      return study.class_colours[code] ?? NONE_COLOUR;
    };
  }
  const named = ranked.filter((place) => place < column.values.length).slice(0, VALUE_COLOURS.length);
  named.sort((a, b) => a - b);
  return (place) => VALUE_COLOURS[named.indexOf(place)] ?? NONE_COLOUR;
}

/** Group rows by a number: ranges with about as many cells each; NaN is "unknown". */
export function groupByNumber(numbers: Float32Array): Grouping {
  const edges = quantileEdges(numbers);
  const n = new Uint32Array(edges.length + 1);
  const unknown = Math.max(0, edges.length - 1);
  const of = Uint16Array.from(numbers, (number) => {
    const bin = Number.isNaN(number) ? unknown : binOf(number, edges);
    addOne(n, bin);
    return bin;
  });
  const groups = edges.slice(0, -1).map((low, bin): Group => ({
    name: `${numberWords(low)} to ${numberWords(edges[bin + 1] ?? low)}`,
    colour: scaleColour(edges.length > 2 ? bin / (edges.length - 2) : 0),
    n: n[bin] ?? 0,
  }));
  const nUnknown = n[unknown] ?? 0;
  if (nUnknown > 0) groups.push({ name: "unknown", colour: NONE_COLOUR, n: nUnknown });
  return { groups, of };
}

/** Limits of bins, smallest first, each once; [] without any number, a single one twice. */
export function quantileEdges(numbers: Float32Array, nBins = N_BINS): number[] {
  const known = numbers.filter((number) => !Number.isNaN(number)).sort();
  const last = known.at(-1);
  if (last === undefined) return [];
  const edges = Array.from(
    { length: nBins },
    (_, k) => known[Math.floor((k * known.length) / nBins)] ?? last,
  );
  const distinct = [...new Set([...edges, last])];
  return distinct.length === 1 ? [last, last] : distinct;
}

/** Bin of a number; each bin holds its lower limit, the last one its upper limit too. */
export function binOf(number: number, edges: number[]): number {
  let bin = 0;
  while (bin < edges.length - 2 && number >= (edges[bin + 1] ?? Infinity)) bin += 1;
  return bin;
}

export function numberWords(number: number): string {
  return Number(number.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 });
}
