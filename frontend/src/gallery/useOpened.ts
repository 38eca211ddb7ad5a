import { type RefObject, useEffect, useRef } from "react";

/** Do something when the <details> around an element is opened, and again while it is open when `version` changes. */
export function useOpened(inside: RefObject<HTMLElement | null>, version: number, act: () => void): void {
  const latest = useRef(act);
  useEffect(() => {
    latest.current = act;
  });
  useEffect(() => {
    const details = inside.current?.closest("details");
    if (!details) return;
    const onToggle = () => {
      if (details.open) latest.current();
    };
    onToggle();
    details.addEventListener("toggle", onToggle);
    return () => {
      details.removeEventListener("toggle", onToggle);
    };
  }, [inside, version]);
}
