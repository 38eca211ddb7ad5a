import { useRef, useState } from "react";
import { api } from "../api/client";
import type { Round } from "../api/types";
import { wordsOf } from "../api/useAnswer";
import { nextPlace } from "./flow";

interface Unsaved {
  id: string;
  place: number;
  code: number;
}

export interface Reading {
  round: Round;
  /** The place that is asked now. */
  place: number;
  /** Why the last answer is not saved, or null; the page stays at its cell until it is. */
  trouble: string | null;
  isSaving: boolean;
  answer: (code: number) => void;
  back: () => void;
}

/**
 * Read a round: one answer at a time, each saved before the next cell is shown, so that nothing is lost that the page
 * has gone past. An answer given again after a failure keeps its id and counts once.
 */
export function useRound(start: Round): Reading {
  const [round, setRound] = useState(start);
  const [place, setPlace] = useState(() => nextPlace(start.read));
  const [trouble, setTrouble] = useState<string | null>(null);
  const [isSaving, setSaving] = useState(false);
  const unsaved = useRef<Unsaved | null>(null);

  const save = async (reading: Unsaved): Promise<void> => {
    unsaved.current = reading;
    setSaving(true);
    try {
      const saved = await api.read(round.round, reading);
      unsaved.current = null;
      setRound(saved);
      setTrouble(null);
      setPlace(nextPlace(saved.read));
    } catch (reason) {
      setTrouble(`Not saved: ${wordsOf(reason)} Press the key again.`);
    } finally {
      setSaving(false);
    }
  };
  const answer = (code: number) => {
    if (isSaving || place >= round.rows.length) return;
    const last = unsaved.current;
    const isAgain = last?.place === place && last.code === code;
    void save(isAgain ? last : { id: crypto.randomUUID(), place, code });
  };
  const back = () => {
    if (isSaving || place === 0) return;
    setPlace(place - 1);
  };
  return { round, place, trouble, isSaving, answer, back };
}
