import { useEffect, useEffectEvent, useState } from "react";

export interface Answer<T> {
  /** What the service said to this question; null until it has. */
  value: T | null;
  /** Why it did not answer, in its own words. */
  error: string | null;
  waiting: boolean;
}

interface Got<T> {
  key: string;
  value: T | null;
  error: string | null;
}

export function wordsOf(reason: unknown): string {
  return reason instanceof Error ? reason.message : String(reason);
}

/**
 * Ask the service when `key` changes, and again when `version` does: a new key forgets the old answer, a new version
 * keeps it on the page until the new one is there. An answer that comes after the next question is dropped.
 */
export function useAnswer<T>(key: string, ask: () => Promise<T>, version = 0): Answer<T> {
  const [got, setGot] = useState<Got<T> | null>(null);
  const askNow = useEffectEvent(ask);
  useEffect(() => {
    let wanted = true;
    askNow().then(
      (value) => {
        if (wanted) setGot({ key, value, error: null });
      },
      (reason: unknown) => {
        const keepOld = (old: Got<T> | null) => (old?.key === key ? old.value : null);
        if (wanted) setGot((old) => ({ key, value: keepOld(old), error: wordsOf(reason) }));
      },
    );
    return () => {
      wanted = false;
    };
  }, [key, version]);
  const present = got?.key === key ? got : null;
  return { value: present?.value ?? null, error: present?.error ?? null, waiting: present === null };
}
