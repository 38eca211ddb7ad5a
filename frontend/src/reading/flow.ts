import type { Round } from "../api/types";

export const SKIPPED = -1;

/** Where the reader is in a round: the first place that has not been read; the length of the round at its end. */
export function nextPlace(read: Round["read"]): number {
  const place = read.findIndex((code) => code === null);
  return place < 0 ? read.length : place;
}

export interface Progress {
  nRead: number;
  nSkipped: number;
  n: number;
}

export function progressOf(read: Round["read"]): Progress {
  const nSkipped = read.filter((code) => code === SKIPPED).length;
  const nRead = read.filter((code) => code !== null).length;
  return { nRead, nSkipped, n: read.length };
}

export function progressWords({ nRead, nSkipped, n }: Progress): string {
  const skipped = nSkipped === 0 ? "" : `, ${nSkipped} of them skipped`;
  return `${nRead} of ${n} read${skipped}`;
}

/** What is asked at a place. */
export function question(place: number, n: number, classNames: string[]): string {
  const names = classNames.slice(0, -1).join(", ");
  return `Cell ${place + 1} of ${n}: ${names} or ${classNames.at(-1) ?? ""}?`;
}

export interface Wish {
  n_cells: number;
  n_repeats: number;
  seed: number;
}

/** Why a round cannot be started as wished, in words; null where it can. */
export function trouble(wish: Wish, nAll: number): string | null {
  const { n_cells: cells, n_repeats: repeats, seed } = wish;
  if (!Number.isInteger(cells) || cells < 1 || cells > nAll) {
    return `A round reads between 1 and ${nAll.toLocaleString("en")} cells, as many as there are.`;
  }
  if (!Number.isInteger(repeats) || repeats < 0 || repeats > cells) {
    return "Cells that come twice are cells of the round: between 0 and as many as it has.";
  }
  if (!Number.isInteger(seed) || seed < 0) return "The seed is a whole number from 0.";
  return null;
}
