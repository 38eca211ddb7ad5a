import { useState } from "react";
import type { StudyInfo } from "../api/types";
import { Button } from "../ui/Button";
import type { Heat } from "./useHeat";

interface Props {
  study: StudyInfo;
  about: number;
  heat: Heat;
  opacity: number;
  onOpacity: (opacity: number) => void;
  /** A model and the code of a class, or null to take the map away. */
  onAsk: (model: string | null, about: number) => void;
}

/** Chooses whose heat map of which class lies over the crop. */
export function HeatPicker({ study, about, heat, opacity, onOpacity, onAsk }: Props) {
  const models = study.models.filter((model) => model.can_explain);
  const [model, setModel] = useState(models[0]?.name ?? "");
  const [code, setCode] = useState(about);
  if (models.length === 0) return null;
  const shown = heat.address !== null || heat.error !== null || heat.waiting;
  return (
    <fieldset className="heat">
      <legend>Where a model looks</legend>
      <label>
        Model{" "}
        <select
          value={model}
          onChange={(event) => {
            setModel(event.target.value);
            if (shown) onAsk(event.target.value, code);
          }}
        >
          {models.map(({ name }) => (
            <option key={name}>{name}</option>
          ))}
        </select>
      </label>
      <label>
        What speaks for{" "}
        <select
          value={code}
          onChange={(event) => {
            setCode(Number(event.target.value));
            if (shown) onAsk(model, Number(event.target.value));
          }}
        >
          {study.class_names.map((name, k) => (
            <option key={name} value={k}>
              {name}
            </option>
          ))}
        </select>
      </label>
      <Button
        pressed={shown}
        onClick={() => {
          onAsk(shown ? null : model, code);
        }}
      >
        Heat map
      </Button>
      {heat.address !== null && (
        <label className="heat-opacity">
          Opacity{" "}
          <input
            type="range"
            min={0}
            max={1}
            step={0.05}
            value={opacity}
            onChange={(event) => {
              onOpacity(Number(event.target.value));
            }}
            onKeyDown={(event) => {
              event.stopPropagation(); // arrows move the slider, not to the next cell
            }}
          />
        </label>
      )}
      <p className="heat-words" role="status">
        {heat.waiting && "The network is looking at the cell …"}
        {heat.error !== null && <span className="is-error">{heat.error}</span>}
        {heat.address !== null && "Bright: what spoke most for the class; dark: what did not."}
      </p>
    </fieldset>
  );
}
