import { type RefObject, useEffect, useRef } from "react";
import { useReview } from "../state/store";
import { placeAfter, type Shape } from "./moves";

/** Whether a key pressed there belongs to something else than the gallery. */
function isTaken(target: EventTarget | null): boolean {
  if (document.querySelector("dialog[open]")) return true;
  return target instanceof HTMLElement && target.matches("input, textarea, select");
}

/** Keys that move in the gallery and open a cell; the focus goes along with the place. */
export function useGridKeys(scroller: RefObject<HTMLElement | null>, shape: Shape): void {
  const place = useReview((s) => s.place);
  const shapeNow = useRef(shape);
  const isWanted = useRef(false);
  useEffect(() => {
    shapeNow.current = shape;
  });

  useEffect(() => {
    const element = scroller.current;
    const hasFocus = element?.contains(document.activeElement) ?? false;
    if (!isWanted.current && !hasFocus) return;
    isWanted.current = false;
    element?.querySelector<HTMLElement>(`[data-place="${place}"]`)?.focus({ preventScroll: true });
  }, [scroller, place]);

  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.defaultPrevented || event.altKey || event.metaKey || isTaken(event.target)) return;
      const { place: from, rows, goTo, open } = useReview.getState();
      const inGrid = event.target === document.body || scroller.current?.contains(event.target as Node);
      if (event.key === "Enter" && inGrid) {
        const row = rows[from];
        if (row === undefined) return;
        event.preventDefault();
        open(row);
        return;
      }
      const to = placeAfter(event.key, from, shapeNow.current, event.ctrlKey);
      if (to === null || rows.length === 0) return;
      event.preventDefault();
      isWanted.current = to !== from;
      goTo(to);
    };
    window.addEventListener("keydown", onKey);
    return () => {
      window.removeEventListener("keydown", onKey);
    };
  }, [scroller]);
}
