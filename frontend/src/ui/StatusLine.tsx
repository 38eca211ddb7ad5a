import { useReview } from "../state/store";

/** The last words of the page, read aloud; always there, so that nothing moves when it speaks. */
export function StatusLine() {
  const said = useReview((s) => s.said);
  return (
    <p className="status-line" role="status" aria-live="polite">
      {said}
    </p>
  );
}
