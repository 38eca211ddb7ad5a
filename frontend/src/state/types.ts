import type { Cell, Entry, Query, StudyInfo } from "../api/types";

export type View = "gallery" | "cell" | "map" | "reading";

/** A click of this page that met one of somebody else: the last one stands, and both people should know. */
export interface Conflict {
  id: string;
  row: number;
  words: string;
}

export interface ReviewState {
  study: StudyInfo | null;
  /** Why the page cannot work, or null. */
  trouble: string | null;
  view: View;
  /** The question that the gallery answers, and the answer: rows in order. */
  query: Query;
  rows: Uint32Array;
  /** Of all cells of the study: cells of each class by present label, then those without one; clicks to be sent included. */
  counts: number[];
  nReviewed: number;
  revision: number;
  /** Place in `rows` of the cell that has the keyboard. */
  place: number;
  /** The cell that the view "cell" shows. */
  row: number | null;
  outlined: boolean;
  /** Hides all that a model says, everywhere. */
  blind: boolean;
  /** Cells whose details have been fetched, by row; labels in it are up to date. */
  cells: ReadonlyMap<number, Cell>;
  /** Clicks that the service has not confirmed yet; kept in localStorage too. */
  nPending: number;
  /** Why clicks cannot be sent at the moment, or null. */
  lost: string | null;
  conflicts: Conflict[];
  /** Whether labels changed since `rows` were asked for, so that they might be others now. */
  stale: boolean;
  asking: boolean;
  /** Last words for the status line, read aloud. */
  said: string;
}

export interface ReviewActions {
  start: () => Promise<void>;
  show: (view: View) => void;
  ask: (query: Partial<Query>) => Promise<void>;
  /** Ask the same question again and stay at the same cell where it is still there. */
  refresh: () => Promise<void>;
  /** Fetch what is not there yet of some rows. */
  need: (rows: number[]) => void;
  goTo: (place: number) => void;
  /** Show one cell by its row, in the view "cell". */
  open: (row: number) => void;
  /** Set the class of some cells (null: none) and step on when it was one of the gallery. */
  relabel: (rows: number[], className: string | null) => void;
  skip: (row: number) => void;
  undo: () => void;
  setOutlined: (on: boolean) => void;
  setBlind: (on: boolean) => void;
  say: (words: string) => void;
  /** Take in what others did. */
  takeIn: (entries: Entry[]) => void;
  /** Send what is to be sent and, where the page can be seen, ask for what others did. */
  sync: () => Promise<void>;
  /** Show what the address says, after Back or a link. */
  follow: () => void;
  dismissConflicts: () => void;
  /** Under which name clicks are written from now on; rejects with what the service says against it. */
  rename: (reader: string) => Promise<void>;
  /** Ask for the columns again: some take the service a while. */
  renewStudy: () => Promise<void>;
}

export type Review = ReviewState & ReviewActions;
