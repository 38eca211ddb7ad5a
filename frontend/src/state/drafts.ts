import type { Cell, Correction, StudyInfo } from "../api/types";
import type { ClickDraft } from "./clicks";
import type { Deed } from "./undo";

/** What a click is written with besides what was clicked. */
export interface Circumstances {
  study: StudyInfo;
  blind: boolean;
}

export interface Drafts {
  drafts: ClickDraft[];
  /** What undo takes back as one. */
  deeds: Deed[];
}

export const codeOf = (study: StudyInfo, name: string | null) =>
  name === null ? -1 : study.class_names.indexOf(name);
const nameOf = (study: StudyInfo, code: number) => study.class_names[code] ?? null;

/** What the person could see a model say of a cell. */
function seen(cell: Cell, { study, blind }: Circumstances): Correction["seen"] {
  const model = study.table_model;
  return model && cell.prob && !blind ? { model, prob: cell.prob } : null;
}

/** Give cells a class; null: none. */
export function labelDrafts(cells: Cell[], className: string | null, at: Circumstances): Drafts {
  const becomes = { label: codeOf(at.study, className), reviewed: true };
  return together(
    cells.map((cell) => {
      const correction = newClick("label", cell, className, at);
      return { correction, was: { label: cell.label, reviewed: cell.reviewed }, becomes };
    }),
  );
}

/** Leave a cell as it is, on purpose. */
export function skipDrafts(cell: Cell, at: Circumstances): Drafts {
  const was = { label: cell.label, reviewed: cell.reviewed };
  const correction = newClick("skip", cell, nameOf(at.study, cell.label), at);
  return together([{ correction, was, becomes: was }]);
}

/** Take clicks back; `cells` are as they are shown now, as far as they are known. */
export function undoDrafts(
  deeds: Deed[],
  cells: ReadonlyMap<number, Cell>,
  { study }: Circumstances,
): ClickDraft[] {
  return deeds.map((deed) => {
    const shown = cells.get(deed.row) ?? { label: codeOf(study, deed.new), reviewed: true };
    const was = { label: shown.label, reviewed: shown.reviewed };
    const becomes =
      deed.kind === "skip" ? was : { label: codeOf(study, deed.old), reviewed: deed.wasReviewed };
    const correction: Correction = {
      id: crypto.randomUUID(),
      row: deed.row,
      kind: "undo",
      old: nameOf(study, was.label),
      new: nameOf(study, becomes.label),
      seen: null,
      undoes: deed.id,
    };
    return { correction, was, becomes };
  });
}

function newClick(kind: "label" | "skip", cell: Cell, name: string | null, at: Circumstances): Correction {
  return {
    id: crypto.randomUUID(),
    row: cell.row,
    kind,
    old: nameOf(at.study, cell.label),
    new: name,
    seen: seen(cell, at),
    undoes: null,
  };
}

function together(drafts: ClickDraft[]): Drafts {
  const deeds = drafts.map(({ correction, was }): Deed => {
    const { id, row, old } = correction;
    const kind = correction.kind === "skip" ? "skip" : "label";
    return { id, row, kind, old, new: correction.new, wasReviewed: was.reviewed };
  });
  return { drafts, deeds };
}
