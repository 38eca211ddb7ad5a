import type { Cell } from "../api/types";

export const percent = (share: number) => `${Math.round(share * 100)} %`;

/** What a screen reader says of a cell: "cell 8a3f, pyknotic, reviewed, 93 % lite0". */
export function cellWords(cell: Cell, classNames: string[], model: string | null): string {
  const words = [`cell ${cell.cell_id}`, classNames[cell.label] ?? "no label"];
  if (cell.reviewed) words.push("reviewed");
  if (model !== null && cell.predicted !== null && cell.confidence !== null) {
    const says = cell.predicted === cell.label ? "" : ` says ${classNames[cell.predicted] ?? "nothing"}`;
    words.push(
      says ? `${model}${says}, ${percent(cell.confidence)}` : `${percent(cell.confidence)} ${model}`,
    );
    if (cell.abstained) words.push("abstained");
  }
  return words.join(", ");
}
