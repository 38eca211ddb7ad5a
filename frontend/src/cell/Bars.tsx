import type { Probabilities, StudyInfo } from "../api/types";
import { className, percent } from "./words";

/** What each model says of one cell: one bar per class, the highest one in bold. */
export function Bars({ study, probabilities }: { study: StudyInfo; probabilities: Probabilities[] }) {
  if (probabilities.length === 0) return <p>No model has said anything about this cell.</p>;
  return (
    <div className="bars">
      {probabilities.map((said) => (
        <ModelBars key={said.model} study={study} said={said} />
      ))}
    </div>
  );
}

function ModelBars({ study, said }: { study: StudyInfo; said: Probabilities }) {
  const highest = said.prob.indexOf(Math.max(...said.prob));
  return (
    <section className="bars-model" aria-label={`${said.model} says ${className(study, highest)}`}>
      <h4>
        {said.model}
        <small>{networkWords(said)}</small>
      </h4>
      <ul>
        {said.prob.map((share, code) => (
          <li key={className(study, code)} className={code === highest ? "bars-row is-highest" : "bars-row"}>
            <span className="bars-name">{className(study, code)}</span>
            <svg className="bars-track" aria-hidden="true">
              <rect
                width={`${100 * share}%`}
                height="100%"
                fill={study.class_colours[code] ?? "currentColor"}
              />
            </svg>
            <span className="bars-share">{percent(share)}</span>
          </li>
        ))}
      </ul>
    </section>
  );
}

function networkWords(said: Probabilities): string {
  const networks = said.n_networks === 1 ? "1 network" : `mean of ${said.n_networks} networks`;
  return said.held_out ? `${networks} that never trained on it` : `${networks}, trained on this very cell`;
}
