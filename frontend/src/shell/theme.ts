import { keepSettings, readSettings, type Settings } from "../state/settings";

/** Show the page light, dark, or as the system is. */
export function applyTheme(theme: Settings["theme"] = readSettings().theme): void {
  keepSettings({ theme });
  if (theme === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme;
}
