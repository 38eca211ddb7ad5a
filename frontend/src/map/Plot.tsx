import { useEffect, useEffectEvent, useRef, useState } from "react";
import { Button } from "../ui/Button";
import { Crop } from "../ui/Crop";
import { Scatter, type Told, type Tool } from "./chart";
import type { Layer } from "./layers";

interface Props extends Omit<Told, "onPoint"> {
  layers: Layer[];
  /** What is drawn, for those who do not see it. */
  label: string;
}

const TOOLS: [tool: Tool, words: string][] = [
  ["rectangle", "Rectangle"],
  ["lasso", "Lasso"],
  ["move", "Move"],
];

const SETTLE_MS = 60;

/** The scatter plot with its tools; the cell under the mouse is shown in the corner. */
export function Plot({ layers, label, onArea, onPick }: Props) {
  const host = useRef<HTMLDivElement>(null);
  const scatter = useRef<Scatter | null>(null);
  const [tool, setTool] = useState<Tool>("rectangle");
  const [pointed, setPointed] = useState<number | null>(null);
  const settled = useSettled(pointed);
  const tellArea = useEffectEvent(onArea);
  const tellPick = useEffectEvent(onPick);
  useEffect(() => {
    if (!host.current) return;
    const chart = new Scatter(host.current, {
      onArea: (area) => {
        tellArea(area);
      },
      onPick: (row) => {
        tellPick(row);
      },
      onPoint: setPointed,
    });
    scatter.current = chart;
    const observer = new ResizeObserver(() => {
      chart.resize();
    });
    observer.observe(host.current);
    return () => {
      observer.disconnect();
      chart.destroy();
      scatter.current = null;
    };
  }, []);
  useEffect(() => {
    scatter.current?.draw(layers);
  }, [layers]);
  useEffect(() => {
    scatter.current?.take(tool);
  }, [tool]);
  return (
    <div className="plot">
      <div className="plot-tools">
        <div role="group" aria-label="What the mouse does">
          {TOOLS.map(([each, words]) => (
            <Button
              key={each}
              pressed={tool === each}
              onClick={() => {
                setTool(each);
              }}
            >
              {words}
            </Button>
          ))}
        </div>
        <ZoomButtons onZoom={(way) => scatter.current?.zoom(way)} />
      </div>
      <div className="plot-frame">
        <div ref={host} className="plot-chart" role="img" aria-label={label} />
        {settled !== null && settled === pointed && <Crop row={settled} alt="" className="plot-pointed" />}
      </div>
      <p className="plot-help">
        {tool === "move"
          ? "Drag to move, Ctrl and the wheel to zoom, click on a point to open its cell."
          : "Draw around points to select their cells; Ctrl and the wheel zoom."}{" "}
        Without a mouse, select groups in the table.
      </p>
    </div>
  );
}

/** The point that the mouse stays at: those that it passes over are not worth a request each. */
function useSettled(pointed: number | null): number | null {
  const [settled, setSettled] = useState(pointed);
  useEffect(() => {
    const timer = setTimeout(() => {
      setSettled(pointed);
    }, SETTLE_MS);
    return () => {
      clearTimeout(timer);
    };
  }, [pointed]);
  return settled;
}

function ZoomButtons({ onZoom }: { onZoom: (way: "in" | "out" | "home") => void }) {
  const ways = [
    ["in", "+", "Zoom in"],
    ["out", "−", "Zoom out"],
    ["home", "⤢", "Show all"],
  ] as const;
  return (
    <div role="group" aria-label="Zoom">
      {ways.map(([way, sign, words]) => (
        <Button
          key={way}
          title={words}
          aria-label={words}
          onClick={() => {
            onZoom(way);
          }}
        >
          {sign}
        </Button>
      ))}
    </div>
  );
}
