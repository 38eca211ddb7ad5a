import { useEffect } from "react";
import { cropAddress } from "../api/client";
import type { Round, StudyInfo } from "../api/types";
import { useReview } from "../state/store";
import { Button } from "../ui/Button";
import { ClassBadge } from "../ui/ClassBadge";
import { Crop } from "../ui/Crop";
import { type Shortcuts, useShortcuts } from "../ui/useShortcuts";
import { progressOf, progressWords, question, SKIPPED } from "./flow";
import { type Reading, useRound } from "./useRound";

interface Props {
  study: StudyInfo;
  start: Round;
  onLeave: () => void;
}

/** One round: a crop at a time and nothing else about the cell. */
export function RoundReader({ study, start, onLeave }: Props) {
  const reading = useRound(start);
  const { round, place, trouble } = reading;
  const isOver = place >= round.rows.length;
  const progress = progressOf(round.read);
  usePreloaded(study, round.rows[place + 1]);
  useRoundKeys(study, reading);
  return (
    <article className="round">
      <header className="round-head">
        <h2>Blind reading</h2>
        <p role="status">{progressWords(progress)}</p>
        <Button onClick={onLeave}>{isOver ? "To the results" : "Pause"}</Button>
        <progress aria-label="Cells read" max={progress.n} value={progress.nRead} />
      </header>
      {isOver ? (
        <div className="round-end" role="status">
          <h3>The round is read</h3>
          <p>
            Thank you, {round.reader}. All {progress.n} answers are saved.
          </p>
        </div>
      ) : (
        <Asked study={study} reading={reading} />
      )}
      {trouble !== null && (
        <p className="is-error" role="alert">
          {trouble}
        </p>
      )}
      <Button shortcut="u" disabled={place === 0} onClick={reading.back}>
        Back to the last one
      </Button>
    </article>
  );
}

function Asked({ study, reading }: { study: StudyInfo; reading: Reading }) {
  const { round, place, answer } = reading;
  const before = round.read[place] ?? null;
  return (
    <>
      <h3 aria-live="assertive" aria-atomic="true">
        {question(place, round.rows.length, study.class_names)}
      </h3>
      <div className="round-crop">
        <Crop key={place} row={round.rows[place] ?? 0} alt="The cell to be read" />
      </div>
      <div className="round-answers" role="group" aria-label="Your answer">
        {study.class_names.map((name, code) => (
          <Button
            key={name}
            pressed={before === code}
            aria-keyshortcuts={code < 9 ? String(code + 1) : undefined}
            onClick={() => {
              answer(code);
            }}
          >
            <ClassBadge label={code} />
            {name}
          </Button>
        ))}
        <Button
          shortcut="s"
          pressed={before === SKIPPED}
          onClick={() => {
            answer(SKIPPED);
          }}
        >
          Skip
        </Button>
      </div>
    </>
  );
}

function useRoundKeys(study: StudyInfo, { place, round, answer, back }: Reading): void {
  const outlined = useReview((state) => state.outlined);
  const { setOutlined } = useReview.getState();
  const shortcuts: Shortcuts = { u: back };
  if (place < round.rows.length) {
    shortcuts["s"] = () => {
      answer(SKIPPED);
    };
    shortcuts["o"] = () => {
      setOutlined(!outlined);
    };
    study.class_names.slice(0, 9).forEach((_, code) => {
      shortcuts[String(code + 1)] = () => {
        answer(code);
      };
    });
  }
  useShortcuts(shortcuts);
}

/** Have the next crop at hand, so that it is there at once. */
function usePreloaded(study: StudyInfo, row: number | undefined): void {
  const outlined = useReview((state) => state.outlined);
  useEffect(() => {
    if (row !== undefined) new Image().src = cropAddress(study.data_hash, row, outlined);
  }, [study, row, outlined]);
}
