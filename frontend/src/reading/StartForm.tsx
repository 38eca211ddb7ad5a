import { useId, useState } from "react";
import { api } from "../api/client";
import type { Round, StudyInfo } from "../api/types";
import { wordsOf } from "../api/useAnswer";
import { trouble, type Wish } from "./flow";

const USUAL: Wish = { n_cells: 60, n_repeats: 12, seed: 0 };

interface Props {
  study: StudyInfo;
  onStart: (round: Round) => void;
}

/** Draws the cells of a new round. */
export function StartForm({ study, onStart }: Props) {
  const [wish, setWish] = useState<Wish>(() => {
    const n_cells = Math.min(USUAL.n_cells, study.n_cells);
    return { n_cells, n_repeats: Math.min(USUAL.n_repeats, n_cells), seed: USUAL.seed };
  });
  const [refused, setRefused] = useState<string | null>(null);
  const [isStarting, setStarting] = useState(false);
  const wrong = trouble(wish, study.n_cells);
  const start = async () => {
    setStarting(true);
    try {
      onStart(await api.startRound(wish));
    } catch (reason) {
      setRefused(wordsOf(reason));
    } finally {
      setStarting(false);
    }
  };
  const field = (key: keyof Wish, label: string, hint: string) => (
    <NumberField
      label={label}
      hint={hint}
      value={wish[key]}
      onChange={(value) => {
        setWish({ ...wish, [key]: value });
      }}
    />
  );
  return (
    <form
      className="start"
      onSubmit={(event) => {
        event.preventDefault();
        if (wrong === null && !isStarting) void start();
      }}
    >
      <h3>A new round</h3>
      {field("n_cells", "Cells", "drawn from every class alike")}
      {field("n_repeats", "Of these, shown twice", "far apart, to see how far you agree with yourself")}
      {field("seed", "Seed", "two people with the same seed and numbers read the same cells")}
      {(wrong ?? refused) !== null && (
        <p className="is-error" role="alert">
          {wrong ?? refused}
        </p>
      )}
      <button type="submit" className="button button-main" disabled={wrong !== null || isStarting}>
        Start reading
      </button>
    </form>
  );
}

interface FieldProps {
  label: string;
  hint: string;
  value: number;
  onChange: (value: number) => void;
}

function NumberField({ label, hint, value, onChange }: FieldProps) {
  const id = useId();
  return (
    <div className="start-number">
      <label htmlFor={id}>{label}</label>
      <input
        id={id}
        type="number"
        min={0}
        required
        aria-describedby={`${id}-hint`}
        value={Number.isNaN(value) ? "" : value}
        onChange={(event) => {
          onChange(event.target.valueAsNumber);
        }}
      />
      <small id={`${id}-hint`}>{hint}</small>
    </div>
  );
}
