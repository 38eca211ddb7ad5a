import type { Agreement, Kappa } from "../api/types";

export const KAPPA_WORDS =
  "Kappa is the part of the agreement that chance does not explain: 1 is full agreement, 0 no more than by chance.";
export const CEILING_WORDS =
  "No model can be shown to be better than people agree with each other, or one of them with themselves.";

const UNKNOWN = "cannot be said";

export function kappaWords({ estimate, ci95 }: Kappa): string {
  if (estimate === null) return UNKNOWN;
  const interval = ci95 === null ? "interval unknown" : `${fixed(ci95[0])} to ${fixed(ci95[1])}`;
  return `${fixed(estimate)} (${interval})`;
}

export function shareWords(share: number | null): string {
  return share === null ? UNKNOWN : `${Math.round(100 * share)} %`;
}

/** What two readings of the same cells have in common, in a sentence. */
export function sameWords(who: string, n_cells: number, observed: number | null): string {
  if (n_cells === 0) return `${who}: no cell has been read by both yet.`;
  const cells = n_cells === 1 ? "the 1 cell" : `${n_cells.toLocaleString("en")} cells`;
  if (observed === null) return `${who}: ${cells} in common.`;
  return `${who}: the same class for ${shareWords(observed)} of ${cells} in common.`;
}

export function isEmpty(agreement: Agreement): boolean {
  return agreement.pairs.length === 0 && agreement.intra.length === 0 && agreement.fleiss === null;
}

/** Where an axis for these kappas begins: at 0 unless one of them reaches below. */
export function axisStart(kappas: Kappa[]): number {
  const lowest = Math.min(0, ...kappas.flatMap(({ estimate, ci95 }) => [estimate ?? 0, ci95?.[0] ?? 0]));
  return lowest < 0 ? -1 : 0;
}

function fixed(number: number): string {
  return number.toFixed(2).replace("-", "−");
}
