import type { Cell, Correction } from "../api/types";

/** What a cell shows of its label. */
export interface Standing {
  label: number;
  reviewed: boolean;
}

/** A click that the service has not confirmed yet. */
export interface Click {
  /** Clicks are sent in the order of their stamps: milliseconds, moved on where two would be equal. */
  stamp: number;
  correction: Correction;
  was: Standing;
  becomes: Standing;
}

export type ClickDraft = Omit<Click, "stamp">;

export const clickKeyPrefix = (dataHash: string) => `perikarya:${dataHash}:click:`;

/**
 * Clicks on their way to the service, in order.
 *
 * Each has its own key in localStorage, so that two tabs of a browser never overwrite each other's, and either
 * tab may send all of them: the service counts an id once.
 */
export class ClickQueue {
  #clicks = new Map<string, Click>();
  /** Clicks the browser would not keep; they live as long as the page. */
  #homeless = new Set<string>();
  readonly #prefix: string;

  constructor(dataHash: string) {
    this.#prefix = clickKeyPrefix(dataHash);
    this.read();
  }

  get all(): Click[] {
    return [...this.#clicks.values()].sort((a, b) => a.stamp - b.stamp);
  }

  get size(): number {
    return this.#clicks.size;
  }

  /** Take in what other tabs added and what they saw confirmed. */
  read(): void {
    const kept = [...this.#clicks].filter(([id]) => this.#homeless.has(id));
    this.#clicks = new Map(kept);
    for (let i = 0; i < localStorage.length; i++) {
      const key = localStorage.key(i);
      if (!key?.startsWith(this.#prefix)) continue;
      const click = JSON.parse(localStorage.getItem(key) ?? "null") as Click | null;
      if (click) this.#clicks.set(click.correction.id, click);
    }
  }

  /** Whether the browser keeps them all, so that they outlive the page. */
  add(drafts: ClickDraft[]): boolean {
    let stamp = Math.max(Date.now() - 1, ...this.#stamps());
    for (const draft of drafts) {
      const click = { ...draft, stamp: ++stamp };
      this.#clicks.set(click.correction.id, click);
      try {
        localStorage.setItem(this.#prefix + click.correction.id, JSON.stringify(click));
      } catch {
        this.#homeless.add(click.correction.id); // no room, or storage switched off
      }
    }
    return this.#homeless.size === 0;
  }

  remove(ids: Iterable<string>): void {
    for (const id of ids) {
      this.#clicks.delete(id);
      this.#homeless.delete(id);
      localStorage.removeItem(this.#prefix + id);
    }
  }

  #stamps(): number[] {
    let last = 0;
    for (const click of this.#clicks.values()) last = Math.max(last, click.stamp);
    return [last];
  }
}

/** A cell as the page shows it: what the service said, then the clicks to be sent. */
export function withClicks(cell: Cell, clicks: Iterable<Click>): Cell {
  let shown = cell;
  for (const { correction, becomes } of clicks) {
    if (correction.row === cell.row && correction.kind !== "skip") shown = { ...shown, ...becomes };
  }
  return shown;
}

export interface Tally {
  /** Cells of each class, then those without a label. */
  counts: number[];
  nReviewed: number;
}

/** The service's counts with clicks to be sent on top of them. */
export function tallyWithClicks(base: Tally, clicks: Iterable<Click>): Tally {
  const counts = [...base.counts];
  const none = counts.length - 1;
  let nReviewed = base.nReviewed;
  const add = (label: number, by: number) => {
    const place = label < 0 ? none : label;
    counts[place] = (counts[place] ?? 0) + by;
  };
  for (const { was, becomes } of clicks) {
    add(was.label, -1);
    add(becomes.label, 1);
    nReviewed += Number(becomes.reviewed) - Number(was.reviewed);
  }
  return { counts, nReviewed };
}
