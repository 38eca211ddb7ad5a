import { useReview } from "../state/store";
import { ClassBadge } from "./ClassBadge";
import { useCssProperty } from "./useCssProperty";

/** How many cells each class has: `counts` per class, then those without a label. */
export function ClassBars({ counts }: { counts: number[] }) {
  const names = useReview((s) => s.study?.class_names ?? NO_NAMES);
  const most = Math.max(1, ...counts);
  return (
    <ul className="class-bars" aria-label="Cells of each class">
      {counts.map((n, code) => (
        <ClassBar key={names[code] ?? ""} label={code < names.length ? code : -1} n={n} most={most} />
      ))}
    </ul>
  );
}

function ClassBar({ label, n, most }: { label: number; n: number; most: number }) {
  const name = useReview((s) => s.study?.class_names[label] ?? "no label");
  const colour = useReview((s) => s.study?.class_colours[label] ?? "var(--faint)");
  const share = useCssProperty("--share", String(n / most));
  const paint = useCssProperty("--class-colour", colour);
  if (label < 0 && n === 0) return null;
  return (
    <li className="class-bar">
      <ClassBadge label={label} />
      <span className="class-bar-name">{name}</span>
      <span className="class-bar-n">{n.toLocaleString("en")}</span>
      <span className="class-bar-track" aria-hidden="true" ref={paint}>
        <span className="class-bar-fill" ref={share} />
      </span>
    </li>
  );
}

const NO_NAMES: string[] = [];
