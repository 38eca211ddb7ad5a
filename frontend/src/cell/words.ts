import type { Cell, CellDetail, Entry, StudyInfo } from "../api/types";

export const NO_LABEL = "no label";

export function className(study: StudyInfo, code: number | null): string {
  return code === null ? NO_LABEL : (study.class_names[code] ?? NO_LABEL);
}

export function percent(share: number): string {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  if (share < 1 && share > 0.999) return "> 99.9 %";
  return `${(100 * share).toFixed(1)} %`;
}

/** Area with three figures that count; in µm² where the scale is known. */
export function areaWords(detail: Pick<CellDetail, "area_px" | "area_um2">): string {
  const pixels = `${Math.round(detail.area_px).toLocaleString("en")} px`;
  return detail.area_um2 === null ? pixels : `${Number(detail.area_um2.toPrecision(3))} µm² (${pixels})`;
}

/** What is known of a cell beside its label and what models say: term and words. */
export function factsOf(detail: CellDetail, study: StudyInfo): [term: string, words: string][] {
  const { cell } = detail;
  const facts: [string, string | null][] = [
    ["Imported as", className(study, cell.imported_label)],
    ["Subject", cell.subject],
    ["Group", cell.group],
    ["Region", cell.region],
    ["Image", cell.image_id],
    ["Place in the image", `x ${Math.round(detail.x_px)}, y ${Math.round(detail.y_px)} px`],
    ["Area", areaWords(detail)],
    ["Set", cell.set],
    ["Near-duplicates", cell.cluster === null ? "none found" : `cluster ${cell.cluster}`],
  ];
  return facts.filter((fact): fact is [string, string] => fact[1] !== null && fact[1] !== "");
}

/** One entry of the log in words; what the person saw the model say only where models are shown. */
export function entryWords(entry: Entry, study: StudyInfo, showsModels: boolean): string {
  return showsModels ? `${changeWords(entry)}${seenWords(entry, study)}` : changeWords(entry);
}

function changeWords(entry: Entry): string {
  const [old, now] = [entry.old ?? NO_LABEL, entry.new ?? NO_LABEL];
  if (entry.kind === "skip") return "skipped";
  if (entry.kind === "undo") return `took back: ${now} again`;
  return old === now ? `confirmed ${now}` : `${old} → ${now}`;
}

function seenWords(entry: Entry, study: StudyInfo): string {
  if (entry.seen === null) return "";
  const { model, prob } = entry.seen;
  const highest = prob.indexOf(Math.max(...prob));
  const share = prob[highest];
  return share === undefined ? "" : `, with ${model} saying ${className(study, highest)} ${percent(share)}`;
}

/** Name of a cell for a person who cannot see it. */
export function cellWords(cell: Cell, study: StudyInfo): string {
  return `cell ${cell.cell_id}, ${className(study, cell.label)}`;
}
