import type { ButtonHTMLAttributes, ReactNode } from "react";

interface Props extends Omit<ButtonHTMLAttributes<HTMLButtonElement>, "type"> {
  children: ReactNode;
  /** For switches: whether it is on. */
  pressed?: boolean;
  /** The key that does the same, shown beside the words. */
  shortcut?: string;
  look?: "plain" | "quiet" | "main" | "danger";
}

export function Button({ children, pressed, shortcut, look = "plain", className = "", ...rest }: Props) {
  return (
    <button
      type="button"
      className={`button button-${look} ${className}`}
      aria-pressed={pressed}
      aria-keyshortcuts={shortcut}
      {...rest}
    >
      {children}
      {shortcut !== undefined && (
        <kbd className="kbd" aria-hidden="true">
          {shortcut}
        </kbd>
      )}
    </button>
  );
}
