import { useReview } from "../state/store";
import { type Shortcuts, useShortcuts } from "./useShortcuts";

/** The keys that work on one cell, in every view that shows one: 1-9, 0, S, U, O, B. */
export function useCellKeys(row: number | undefined): void {
  const { relabel, skip, undo, setOutlined, setBlind } = useReview.getState();
  const names = useReview((s) => s.study?.class_names);
  const outlined = useReview((s) => s.outlined);
  const blind = useReview((s) => s.blind);
  const shortcuts: Shortcuts = {
    u: undo,
    o: () => {
      setOutlined(!outlined);
    },
    b: () => {
      setBlind(!blind);
    },
  };
  if (row !== undefined) {
    shortcuts["0"] = () => {
      relabel([row], null);
    };
    shortcuts["s"] = () => {
      skip(row);
    };
    names?.slice(0, 9).forEach((name, code) => {
      shortcuts[String(code + 1)] = () => {
        relabel([row], name);
      };
    });
  }
  useShortcuts(shortcuts);
}
