import { useReview } from "../state/store";
import { wantsWhite } from "./colour";
import { useCssProperty } from "./useCssProperty";

/** Number and colour of a class: the number is its key, and tells classes apart without colours. */
export function ClassBadge({ label }: { label: number }) {
  const colour = useReview((s) => s.study?.class_colours[label] ?? null);
  const ref = useCssProperty("--class-colour", colour ?? "transparent");
  const look = colour === null ? "badge-none" : wantsWhite(colour) ? "badge-on-dark" : "";
  return (
    <span ref={ref} className={`badge ${look}`} aria-hidden="true">
      {label < 0 ? "–" : label + 1}
    </span>
  );
}
