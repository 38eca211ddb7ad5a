import { cleanup } from "@testing-library/react";
import { afterEach, vi } from "vitest";

/* What jsdom lacks and browsers have. */

if (!("ResizeObserver" in globalThis)) {
  const nothing = () => undefined; // sizes never change here
  Object.assign(globalThis, {
    ResizeObserver: class {
      observe = nothing;
      unobserve = nothing;
      disconnect = nothing;
    },
  });
}

if (!("scrollTo" in Element.prototype)) {
  Object.assign(Element.prototype, {
    scrollTo(this: Element, { top = 0 }: ScrollToOptions) {
      this.scrollTop = top;
      this.dispatchEvent(new Event("scroll"));
    },
  });
}

if (!("showModal" in HTMLDialogElement.prototype)) {
  const set = (open: boolean) =>
    function (this: HTMLDialogElement) {
      this.open = open;
    };
  Object.assign(HTMLDialogElement.prototype, { showModal: set(true), close: set(false) });
}

afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
  localStorage.clear();
  sessionStorage.clear();
  window.history.replaceState(null, "", "/");
});
