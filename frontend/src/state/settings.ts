/** What a person set on this page, kept by the browser. */
export interface Settings {
  outlined: boolean;
  blind: boolean;
  theme: "system" | "light" | "dark";
  /** Side of a crop in the gallery, in CSS pixels. */
  cropSize: number;
}

const KEY = "perikarya:settings";
const DEFAULTS: Settings = { outlined: false, blind: false, theme: "system", cropSize: 96 };

export function readSettings(): Settings {
  try {
    return { ...DEFAULTS, ...(JSON.parse(localStorage.getItem(KEY) ?? "{}") as Partial<Settings>) };
  } catch {
    return DEFAULTS;
  }
}

export function keepSettings(changes: Partial<Settings>): void {
  try {
    localStorage.setItem(KEY, JSON.stringify({ ...readSettings(), ...changes }));
  } catch {
    // a browser that keeps nothing forgets settings with the page
  }
}
