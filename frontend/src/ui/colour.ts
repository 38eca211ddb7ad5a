/** Relative luminance of #rrggbb, 0 to 1 (WCAG 2.2). */
export function luminance(colour: string): number {
  const channel = (at: number) => {
    const c = parseInt(colour.slice(at, at + 2), 16) / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  };
  return 0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5);
}

/** Whether white words are easier to read on a colour than black ones: both contrasts are equal at 0.179. */
export const wantsWhite = (colour: string) => luminance(colour) < 0.179;
