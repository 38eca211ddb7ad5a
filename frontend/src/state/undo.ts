import type { Entry } from "../api/types";

/** One click of this reader, as far as taking it back needs it. */
export interface Deed {
  id: string;
  row: number;
  kind: "label" | "skip";
  old: string | null;
  new: string | null;
  /** Whether the cell counted as reviewed before; unknown of clicks from before a reload. */
  wasReviewed: boolean;
}

/** A reader's own clicks, last one last; cells labelled by one click are taken back by one. */
export class UndoStack {
  #deeds: Deed[][] = [];

  push(deeds: Deed[]): void {
    this.#deeds.push(deeds);
  }

  pop(): Deed[] | undefined {
    return this.#deeds.pop();
  }

  /** Begin with what the log says that this reader did and did not take back. */
  static fromLog(entries: Entry[], reader: string): UndoStack {
    const undone = new Set(entries.flatMap((entry) => entry.undoes ?? []));
    const stack = new UndoStack();
    const reviewed = new Set<number>();
    for (const entry of entries) {
      if (entry.kind === "undo" || undone.has(entry.id)) continue;
      if (entry.by === reader) {
        const { id, row, kind, old } = entry;
        stack.push([{ id, row, kind, old, new: entry.new, wasReviewed: reviewed.has(row) }]);
      }
      if (entry.kind === "label") reviewed.add(entry.row);
    }
    return stack;
  }
}
