import { useCallback } from "react";

/** A ref that sets a CSS custom property: the security policy allows no style attributes. */
export function useCssProperty(name: `--${string}`, value: string) {
  return useCallback(
    (element: HTMLElement | null) => {
      element?.style.setProperty(name, value);
    },
    [name, value],
  );
}
