import { type RefObject, useEffect, useState } from "react";

const SCREENS_PER_STEP = 0.4;
const SETTLED_AFTER_MS = 120;

/** Whether the gallery is scrolled so fast that nobody can look: by a good part of a screen from one frame to the next. */
export function useFlying(scroller: RefObject<HTMLElement | null>): boolean {
  const [flying, setFlying] = useState(false);
  useEffect(() => {
    const element = scroller.current;
    if (!element) return;
    let top = element.scrollTop;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const onScroll = () => {
      const step = Math.abs(element.scrollTop - top);
      top = element.scrollTop;
      if (step > SCREENS_PER_STEP * element.clientHeight) setFlying(true);
      clearTimeout(timer);
      timer = setTimeout(() => {
        setFlying(false);
      }, SETTLED_AFTER_MS);
    };
    element.addEventListener("scroll", onScroll, { passive: true });
    return () => {
      clearTimeout(timer);
      element.removeEventListener("scroll", onScroll);
    };
  }, [scroller]);
  return flying;
}
