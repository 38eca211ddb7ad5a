import { useMemo, useState } from "react";
import { decodeNumbers } from "../api/decode";
import type { Column, MapState, StudyInfo } from "../api/types";
import { tellsOfModels } from "../gallery/filters";
import { useReview } from "../state/store";
import { Button } from "../ui/Button";
import { useCellKeys } from "../ui/useCellKeys";
import { GroupTable } from "./GroupTable";
import type { Grouping } from "./groups";
import { countByGroup, layersOf, rowsOfGroup, visibleRows } from "./layers";
import "./map.css";
import { Plot } from "./Plot";
import { rowsInside } from "./selection";
import { SelectionPanel } from "./SelectionPanel";
import { useGrouping, useMap } from "./useMap";

type Method = StudyInfo["map_methods"][number];
const METHOD_WORDS: Record<Method, string> = { pca: "PCA", umap: "UMAP" };

export default function MapView() {
  const study = useReview((state) => state.study);
  if (study === null) return <p>The study is being opened …</p>;
  const [first] = study.map_methods;
  const [column] = study.columns;
  if (first === undefined || column === undefined) return <p>There is nothing to draw a map of.</p>;
  return <MapOfStudy study={study} first={first} />;
}

/** Columns that points may be coloured by; in blind mode none that a model had a say in. */
export function coloursToChoose(study: StudyInfo, blind: boolean): Column[] {
  return blind ? study.columns.filter((column) => !tellsOfModels(column.key)) : study.columns;
}

function MapOfStudy({ study, first }: { study: StudyInfo; first: Method }) {
  const blind = useReview((state) => state.blind);
  const [method, setMethod] = useState<Method>(first);
  const [key, setKey] = useState("label");
  const within = useReview((state) => state.query.within);
  const [selected, setSelected] = useState<Uint32Array | null>(within && Uint32Array.from(within));
  const columns = coloursToChoose(study, blind);
  const column = columns.find((each) => each.key === key) ?? columns[0];
  const { state, again } = useMap(method);
  useCellKeys(undefined);
  return (
    <div className="map-view">
      <header className="map-head">
        <h2>Map</h2>
        <div role="group" aria-label="Kind of map">
          {study.map_methods.map((each) => (
            <Button
              key={each}
              pressed={method === each}
              onClick={() => {
                setMethod(each);
              }}
            >
              {METHOD_WORDS[each]}
            </Button>
          ))}
        </div>
        <label>
          Colour by{" "}
          <select
            value={column?.key}
            onChange={(event) => {
              setKey(event.target.value);
            }}
          >
            {columns.map((each) => (
              <option key={each.key} value={each.key}>
                {each.title}
              </option>
            ))}
          </select>
        </label>
        {state.value && <p>Of {state.value.features}: near points are cells that look alike in these.</p>}
      </header>
      {state.error !== null && <p className="is-error">{state.error}</p>}
      {state.value?.status === "ready" && column ? (
        <ReadyMap
          key={method}
          study={study}
          map={state.value}
          column={column}
          selected={selected}
          onSelect={setSelected}
        />
      ) : (
        <Waiting map={state.value} onAgain={again} />
      )}
    </div>
  );
}

function Waiting({ map, onAgain }: { map: MapState | null; onAgain: () => void }) {
  if (map?.status === "failed") {
    return (
      <div role="alert">
        <p className="is-error">{map.message}</p>
        <Button onClick={onAgain}>Try again</Button>
      </div>
    );
  }
  return (
    <div className="map-waiting">
      <p role="status">{map?.message || "The map is being fetched …"}</p>
      <progress aria-label="Progress of the map" max={1} value={map?.progress} />
    </div>
  );
}

interface ReadyProps {
  study: StudyInfo;
  map: MapState;
  column: Column;
  selected: Uint32Array | null;
  onSelect: (rows: Uint32Array | null) => void;
}

/** The map in the colours of a column; until its values are there, in those of the column before. */
function ReadyMap({ map, column, ...rest }: ReadyProps) {
  const revision = useReview((state) => state.revision);
  const xy = useMemo(() => decodeNumbers(map.xy_b64), [map.xy_b64]);
  const { grouping, error } = useGrouping(rest.study, column, revision);
  const [drawn, setDrawn] = useState<{ column: Column; grouping: Grouping } | null>(null);
  if (grouping !== null && grouping !== drawn?.grouping) setDrawn({ column, grouping });
  return (
    <>
      {error !== null && <p className="is-error">{error}</p>}
      {drawn === null ? <p>The colours are being fetched …</p> : <Drawn {...rest} {...drawn} xy={xy} />}
    </>
  );
}

interface DrawnProps extends Omit<ReadyProps, "map"> {
  xy: Float32Array;
  grouping: Grouping;
}

const NONE_HIDDEN: ReadonlySet<number> = new Set();

function Drawn({ study, xy, column, grouping, selected, onSelect }: DrawnProps) {
  const { open, say } = useReview.getState();
  const [hiding, setHiding] = useState({ key: column.key, groups: NONE_HIDDEN });
  const hidden = hiding.key === column.key ? hiding.groups : NONE_HIDDEN;
  const layers = useMemo(() => layersOf(xy, grouping, hidden, selected), [xy, grouping, hidden, selected]);
  const select = (rows: Uint32Array) => {
    onSelect(rows.length === 0 ? null : rows);
    say(rows.length === 0 ? "No cell lies there." : `${rows.length.toLocaleString("en")} cells selected.`);
  };
  const toggle = (group: number) => {
    const groups = new Set(hidden);
    if (!groups.delete(group)) groups.add(group);
    setHiding({ key: column.key, groups });
  };
  return (
    <div className="map-parts">
      <Plot
        layers={layers}
        label={`Map of ${grouping.of.length} cells, coloured by ${column.title}`}
        onArea={(area) => {
          select(visibleRows(rowsInside(xy, area), grouping, hidden));
        }}
        onPick={open}
      />
      <div className="map-side">
        <GroupTable
          title={column.title}
          groups={grouping.groups}
          selected={selected && countByGroup(selected, grouping)}
          hidden={hidden}
          onToggle={toggle}
          onSelect={(group) => {
            select(rowsOfGroup(grouping, group));
          }}
        />
        {selected === null ? (
          <p>No cell is selected.</p>
        ) : (
          <SelectionPanel
            study={study}
            rows={selected}
            onClear={() => {
              onSelect(null);
            }}
          />
        )}
      </div>
    </div>
  );
}
