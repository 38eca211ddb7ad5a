import { Button } from "../ui/Button";
import type { Group } from "./groups";

interface Props {
  title: string;
  groups: Group[];
  /** Selected cells of each group; null while nothing is selected. */
  selected: Uint32Array | null;
  hidden: ReadonlySet<number>;
  onToggle: (group: number) => void;
  onSelect: (group: number) => void;
}

/** The legend: how many cells have each value, which are drawn, and a way to select them without a mouse. */
export function GroupTable({ title, groups, selected, hidden, onToggle, onSelect }: Props) {
  return (
    <div className="groups-frame">
      <table className="groups">
        <caption className="visually-hidden">Cells on the map by {title.toLowerCase()}</caption>
        <thead>
          <tr>
            <th scope="col">{title}</th>
            <th scope="col" className="is-number">
              Cells
            </th>
            <th scope="col" className="is-number">
              Selected
            </th>
            <td />
          </tr>
        </thead>
        <tbody>
          {groups.map((group, k) => (
            <tr key={group.name} className={hidden.has(k) ? "is-hidden" : undefined}>
              <th scope="row">
                <label>
                  <input
                    type="checkbox"
                    checked={!hidden.has(k)}
                    aria-label={`Draw ${group.name}`}
                    onChange={() => {
                      onToggle(k);
                    }}
                  />
                  <Swatch colour={group.colour} />
                  {group.name}
                </label>
              </th>
              <td className="is-number">{group.n.toLocaleString("en")}</td>
              <td className="is-number">
                {selected === null ? "" : (selected[k] ?? 0).toLocaleString("en")}
              </td>
              <td>
                <Button
                  aria-label={`Select ${group.name}`}
                  disabled={hidden.has(k)}
                  onClick={() => {
                    onSelect(k);
                  }}
                >
                  Select
                </Button>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Swatch({ colour }: { colour: string }) {
  return (
    <svg className="groups-swatch" viewBox="0 0 10 10" aria-hidden="true">
      <circle cx="5" cy="5" r="4.5" fill={colour} />
    </svg>
  );
}
