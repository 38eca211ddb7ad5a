import { useEffect, useMemo, useState } from "react";
import { api } from "../api/client";
import { decodeCodes, decodeNumbers } from "../api/decode";
import type { Column, MapState, StudyInfo } from "../api/types";
import { type Answer, useAnswer } from "../api/useAnswer";
import { type Grouping, groupByNumber, groupByValue } from "./groups";

const POLL_MS = 1000;

async function askedFor(method: string): Promise<MapState> {
  const state = await api.map(method);
  return state.status === "absent" ? api.startMap(method) : state;
}

/** The map of a method; asking for it is what starts it, and its progress is followed until it is there. */
export function useMap(method: string): { state: Answer<MapState>; again: () => void } {
  const [round, setRound] = useState(0);
  const state = useAnswer(`map ${method}`, () => askedFor(method), round);
  const isWorking = state.value?.status === "working";
  useEffect(() => {
    if (!isWorking) return;
    const timer = setTimeout(() => {
      setRound((k) => k + 1);
    }, POLL_MS);
    return () => {
      clearTimeout(timer);
    };
  }, [isWorking, state.value]);
  const again = () => {
    const ended = () => {
      setRound((k) => k + 1);
    };
    api.startMap(method).then(ended, ended);
  };
  return { state, again };
}

/** Values of a column, grouped; asked for again when labels change. */
export function useGrouping(study: StudyInfo, column: Column, revision: number) {
  const answer = useAnswer(`column ${column.key}`, () => api.column(column.key), revision);
  const grouping = useMemo((): Grouping | null => {
    if (answer.value === null) return null;
    const { values_b64: text } = answer.value;
    return column.kind === "category"
      ? groupByValue(column, decodeCodes(text), study)
      : groupByNumber(decodeNumbers(text));
  }, [answer.value, column, study]);
  return { grouping, error: answer.error };
}
