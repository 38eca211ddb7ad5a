import { useEffect, useState } from "react";
import { api } from "../api/client";
import { wordsOf } from "../api/useAnswer";

export interface HeatQuestion {
  row: number;
  model: string;
  /** Code of the class that the map is about. */
  about: number;
}

export interface Heat {
  /** Address of the picture while it is shown; null before and after. */
  address: string | null;
  error: string | null;
  waiting: boolean;
}

const NOTHING: Heat = { address: null, error: null, waiting: false };

/** Ask for a heat map; its picture is given back to the browser as soon as another one is asked for. */
export function useHeat(question: HeatQuestion | null): Heat {
  const { row, model, about } = question ?? { row: -1, model: "", about: -1 };
  const key = question === null ? null : JSON.stringify([row, model, about]);
  const [got, setGot] = useState<{ key: string; heat: Heat } | null>(null);
  useEffect(() => {
    if (key === null) return;
    let wanted = true;
    let address: string | null = null;
    api.explain(row, model, about).then(
      (blob) => {
        if (!wanted) return;
        address = URL.createObjectURL(blob);
        setGot({ key, heat: { address, error: null, waiting: false } });
      },
      (reason: unknown) => {
        if (wanted) setGot({ key, heat: { address: null, error: wordsOf(reason), waiting: false } });
      },
    );
    return () => {
      wanted = false;
      if (address !== null) URL.revokeObjectURL(address);
      setGot(null);
    };
  }, [key, row, model, about]);
  if (key === null) return NOTHING;
  return got?.key === key ? got.heat : { address: null, error: null, waiting: true };
}
