import { useState } from "react";
import { api } from "../api/client";
import type { Round, StudyInfo } from "../api/types";
import { useAnswer } from "../api/useAnswer";
import { useReview } from "../state/store";
import { Button } from "../ui/Button";
import { AgreementSection } from "./AgreementTables";
import { nextPlace, progressOf, progressWords } from "./flow";
import "./reading.css";
import { RoundReader } from "./RoundReader";
import { StartForm } from "./StartForm";

export default function ReadingView() {
  const study = useReview((state) => state.study);
  const [round, setRound] = useState<Round | null>(null);
  const [visit, setVisit] = useState(0);
  if (study === null) return <p>The study is being opened …</p>;
  if (round !== null) {
    const leave = () => {
      setRound(null);
      setVisit(visit + 1);
    };
    return <RoundReader key={round.round} study={study} start={round} onLeave={leave} />;
  }
  return (
    <div className="reading-view">
      <header>
        <h2>Second reading</h2>
        <p>
          In a round you name the class of cells from their pictures alone: labels and models are hidden, and
          your answers change no label. They tell how far people agree.
        </p>
      </header>
      <div className="reading-parts">
        <StartForm study={study} onStart={setRound} />
        <Rounds study={study} version={visit} onContinue={setRound} />
      </div>
      <AgreementSection version={visit} />
    </div>
  );
}

interface RoundsProps {
  study: StudyInfo;
  version: number;
  onContinue: (round: Round) => void;
}

function Rounds({ study, version, onContinue }: RoundsProps) {
  const answer = useAnswer("rounds", api.rounds, version);
  return (
    <section className="rounds" aria-label="Rounds so far">
      <h3>Rounds so far</h3>
      {answer.error !== null && <p className="is-error">{answer.error}</p>}
      {answer.value?.length === 0 && <p>None yet.</p>}
      <ul>
        {answer.value?.map((round) => (
          <RoundLine key={round.round} study={study} round={round} onContinue={onContinue} />
        ))}
      </ul>
    </section>
  );
}

function RoundLine({ study, round, onContinue }: Omit<RoundsProps, "version"> & { round: Round }) {
  const isMine = round.reader === study.reader;
  const isOver = nextPlace(round.read) >= round.rows.length;
  return (
    <li>
      <span>
        <strong>{round.reader}</strong>,{" "}
        <time dateTime={round.started}>{new Date(round.started).toLocaleString()}</time>:{" "}
        {isMine ? progressWords(progressOf(round.read)) : `${round.rows.length} cells`}
      </span>
      {isMine && !isOver && (
        <Button
          onClick={() => {
            onContinue(round);
          }}
        >
          Continue
        </Button>
      )}
    </li>
  );
}
