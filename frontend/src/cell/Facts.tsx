import type { CellDetail, Entry, StudyInfo } from "../api/types";
import { entryWords, factsOf } from "./words";

export function Facts({ detail, study }: { detail: CellDetail; study: StudyInfo }) {
  return (
    <dl className="facts">
      {factsOf(detail, study).map(([term, words]) => (
        <div key={term}>
          <dt>{term}</dt>
          <dd>{words}</dd>
        </div>
      ))}
    </dl>
  );
}

interface HistoryProps {
  history: Entry[];
  study: StudyInfo;
  showsModels: boolean;
}

/** What people did with this cell, the latest first. */
export function History({ history, study, showsModels }: HistoryProps) {
  if (history.length === 0) return <p>Nobody has changed or confirmed this label yet.</p>;
  return (
    <ol className="history">
      {history.toReversed().map((entry) => (
        <li key={entry.id}>
          <time dateTime={entry.at}>{new Date(entry.at).toLocaleString()}</time> <strong>{entry.by}</strong>{" "}
          {entryWords(entry, study, showsModels)}
        </li>
      ))}
    </ol>
  );
}
