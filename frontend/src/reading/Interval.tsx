import type { Kappa } from "../api/types";

interface Props {
  kappa: Kappa;
  /** Where the axis begins; it ends at 1. */
  from: number;
}

/** A dot for the estimate on a line for its interval; the words beside it say the same. */
export function Interval({ kappa: { estimate, ci95 }, from }: Props) {
  if (estimate === null) return null;
  const at = (value: number) => `${(100 * (Math.max(from, value) - from)) / (1 - from)}%`;
  return (
    <svg className="interval" aria-hidden="true">
      <line className="interval-axis" x1="0" x2="100%" y1="50%" y2="50%" />
      {from < 0 && <line className="interval-axis" x1={at(0)} x2={at(0)} y1="0" y2="100%" />}
      {ci95 && <line className="interval-range" x1={at(ci95[0])} x2={at(ci95[1])} y1="50%" y2="50%" />}
      <circle className="interval-dot" cx={at(estimate)} cy="50%" r="4.5" />
    </svg>
  );
}
