import { useState } from "react";
import type { Column } from "../api/types";
import { type NumberFilter, numberWords } from "./filters";

interface Props {
  column: Column;
  filter: NumberFilter | null;
  onChange: (min: number | null, max: number | null) => void;
}

/** Smallest and largest value of a number, both included. */
export function NumberFilterFields({ column, filter, onChange }: Props) {
  const [lowest, highest] = column.range ?? [0, 0];
  const min = filter?.min ?? null;
  const max = filter?.max ?? null;
  if (column.range === null) return <p className="muted ticks">No cell has a value.</p>;
  return (
    <div className="bounds" role="group" aria-label={column.title}>
      <Bound
        key={`min ${min}`}
        title="from"
        value={min}
        hint={numberWords(lowest)}
        onChange={(value) => {
          onChange(value, max);
        }}
      />
      <Bound
        key={`max ${max}`}
        title="to"
        value={max}
        hint={numberWords(highest)}
        onChange={(value) => {
          onChange(min, value);
        }}
      />
    </div>
  );
}

interface BoundProps {
  title: string;
  value: number | null;
  hint: string;
  onChange: (value: number | null) => void;
}

function Bound({ title, value, hint, onChange }: BoundProps) {
  const [typed, setTyped] = useState(value === null ? "" : String(value));
  const commit = () => {
    const wanted = typed === "" ? null : Number(typed);
    if (wanted !== value) onChange(wanted);
  };
  return (
    <label className="bound">
      <span className="muted">{title}</span>
      <input
        type="number"
        step="any"
        value={typed}
        placeholder={hint}
        onChange={(event) => {
          setTyped(event.target.value);
        }}
        onBlur={commit}
        onKeyDown={(event) => {
          if (event.key === "Enter") commit();
        }}
      />
    </label>
  );
}
