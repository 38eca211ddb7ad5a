import { ScatterChart } from "echarts/charts";
import { BrushComponent, DataZoomInsideComponent, GridComponent, ToolboxComponent } from "echarts/components";
import { init, use as register } from "echarts/core";
import { CanvasRenderer } from "echarts/renderers";
import type { Layer } from "./layers";
import type { Area, Point } from "./selection";

register([
  ScatterChart,
  GridComponent,
  BrushComponent,
  DataZoomInsideComponent,
  ToolboxComponent,
  CanvasRenderer,
]);

export type Tool = "move" | "rectangle" | "lasso";

export interface Told {
  onArea: (area: Area) => void;
  onPoint: (row: number | null) => void;
  onPick: (row: number) => void;
}

const MANY_POINTS = 20_000; // drawn smaller, and as squares, which are faster
const FAINT = 0.12;
const ZOOM_STEP = 0.7;

interface BrushArea {
  brushType: "rect" | "polygon";
  coordRange: [[number, number], [number, number]] | Point[];
}

/** A scatter plot of very many points that can be moved, zoomed and drawn on. */
export class Scatter {
  private readonly chart: ReturnType<typeof init>;
  private layers: Layer[] = [];

  constructor(host: HTMLElement, told: Told) {
    this.chart = init(host, null, { renderer: "canvas" });
    this.chart.setOption(frame());
    this.chart.on("brushEnd", (event) => {
      const [area] = (event as { areas: BrushArea[] }).areas;
      if (area) told.onArea(areaOf(area));
      this.chart.dispatchAction({ type: "brush", areas: [] });
    });
    this.chart.on("mousemove", (event) => {
      told.onPoint(this.rowAt(event));
    });
    for (const left of ["mouseout", "globalout"]) {
      this.chart.on(left, () => {
        told.onPoint(null);
      });
    }
    this.chart.on("click", (event) => {
      const row = this.rowAt(event);
      if (row !== null) told.onPick(row);
    });
  }

  private rowAt(event: { seriesIndex?: number; dataIndex?: number }): number | null {
    const { seriesIndex = -1, dataIndex = -1 } = event;
    return this.layers[seriesIndex]?.rows[dataIndex] ?? null;
  }

  /** Draw these points in the place of those before; what is seen of the map stays. */
  draw(layers: Layer[]): void {
    this.layers = layers;
    const nPoints = layers.reduce((n, layer) => n + layer.rows.length, 0);
    const series = layers.map((layer) => seriesOf(layer, nPoints > MANY_POINTS ? 2.5 : 6));
    this.chart.setOption({ series }, { replaceMerge: ["series"] });
  }

  take(tool: Tool): void {
    const brushType = { move: false, rectangle: "rect", lasso: "polygon" }[tool];
    const brushOption = { brushType, brushMode: "single" };
    this.chart.dispatchAction({ type: "takeGlobalCursor", key: "brush", brushOption });
  }

  /** Zoom about the middle of what is seen; "home" shows all. */
  zoom(way: "in" | "out" | "home"): void {
    const { dataZoom } = this.chart.getOption() as { dataZoom: { start: number; end: number }[] };
    const factor = way === "in" ? ZOOM_STEP : 1 / ZOOM_STEP;
    const batch = dataZoom.map(({ start, end }, dataZoomIndex) => {
      const half = way === "home" ? 50 : Math.min(50, ((end - start) / 2) * factor);
      const middle = Math.min(100 - half, Math.max(half, (start + end) / 2));
      return { dataZoomIndex, start: middle - half, end: middle + half };
    });
    this.chart.dispatchAction({ type: "dataZoom", batch });
  }

  resize(): void {
    this.chart.resize();
  }

  destroy(): void {
    this.chart.dispose();
  }
}

/** Axes without numbers: distances on such a map are all that means anything, and these only nearby. */
function frame() {
  const axis = { type: "value", scale: true, axisLabel: { show: false }, axisTick: { show: false } } as const;
  const zoom = {
    type: "inside",
    filterMode: "none",
    zoomOnMouseWheel: "ctrl",
    moveOnMouseWheel: false,
  } as const;
  return {
    animation: false,
    grid: { left: 8, right: 8, top: 8, bottom: 8 },
    xAxis: { ...axis, splitLine: { show: false }, axisLine: { show: false } },
    yAxis: { ...axis, splitLine: { show: false }, axisLine: { show: false } },
    dataZoom: [
      { ...zoom, xAxisIndex: 0 },
      { ...zoom, yAxisIndex: 0 },
    ],
    toolbox: { show: false },
    brush: {
      toolbox: [],
      xAxisIndex: 0,
      yAxisIndex: 0,
      seriesIndex: [], // the selection is computed in selection.ts, once, at the end of the stroke
      brushStyle: { color: "rgba(10, 88, 168, 0.12)", borderColor: "#0a58a8", borderWidth: 2 },
    },
    series: [],
  };
}

function seriesOf(layer: Layer, symbolSize: number) {
  return {
    type: "scatter",
    large: true,
    largeThreshold: 0,
    dimensions: ["x", "y"],
    data: layer.xy,
    symbolSize,
    itemStyle: { color: layer.colour, opacity: layer.faint ? FAINT : 0.85 },
  };
}

function areaOf({ brushType, coordRange }: BrushArea): Area {
  if (brushType === "polygon") return { kind: "polygon", points: coordRange as Point[] };
  const [x, y] = coordRange as [[number, number], [number, number]];
  return { kind: "rectangle", x, y };
}
