import OpenSeadragon from "openseadragon";
import { tileAddress } from "../api/client";
import type { Field } from "../api/types";
import { boxOf, type Outlines, rowOf } from "./outlines";

const ZOOM_STEP = 1.5;
const PAN_STEP = 0.15; // of what is seen
const CELLS_ACROSS = 6; // how much of the surroundings is seen of a cell at first

export type Move = "in" | "out" | "home" | "left" | "right" | "up" | "down";

const MOVE_OF_KEY: Record<string, Move> = {
  "+": "in",
  "=": "in",
  "-": "out",
  "0": "home",
  Home: "home",
  ArrowLeft: "left",
  ArrowRight: "right",
  ArrowUp: "up",
  ArrowDown: "down",
};

export interface Told {
  onOpen: (row: number) => void;
  onPoint: (row: number | null) => void;
  onTrouble: (words: string) => void;
}

/** A field image that can be moved and zoomed, with outlines over it. */
export class FieldViewer {
  private readonly viewer: OpenSeadragon.Viewer;

  constructor(
    host: HTMLElement,
    private readonly field: Field,
    outlines: Outlines,
    told: Told,
  ) {
    keepStyleOut();
    this.viewer = OpenSeadragon({
      element: host,
      drawer: "canvas",
      tileSources: tileSourceOf(field),
      showNavigationControl: false,
      keyboardNavEnabled: false,
      cooperativeGestures: true, // the wheel scrolls the page, Ctrl and the wheel zoom
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      animationTime: matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 0.4,
      maxZoomPixelRatio: 8,
      visibilityRatio: 0.5,
    });
    this.viewer.addOnceHandler("open", () => {
      const whole = new OpenSeadragon.Rect(0, 0, 1, field.height / field.width);
      this.viewer.addOverlay({ element: outlines.element as unknown as HTMLElement, location: whole });
    });
    this.listen(outlines, told);
  }

  private listen(outlines: Outlines, told: Told): void {
    const { viewer } = this;
    viewer.addHandler("canvas-key", (event) => {
      const move = MOVE_OF_KEY[event.originalEvent.key];
      if (move === undefined) return;
      event.originalEvent.stopPropagation();
      event.originalEvent.preventDefault();
      this.move(move);
    });
    viewer.addHandler("canvas-click", (event) => {
      const row = event.quick ? rowOf(event.originalTarget) : null;
      if (row !== null) told.onOpen(row);
    });
    viewer.addHandler("tile-load-failed", () => {
      told.onTrouble("A part of the image could not be read.");
    });
    outlines.element.addEventListener("pointerover", (event) => {
      told.onPoint(rowOf(event.target));
    });
    outlines.element.addEventListener("pointerout", () => {
      told.onPoint(null);
    });
  }

  /** Have the viewer named and reached by keyboard like any other part of the page. */
  describe(label: string, describedBy: string): void {
    const { canvas } = this.viewer;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", label);
    canvas.setAttribute("aria-describedby", describedBy);
  }

  move(move: Move): void {
    const { viewport } = this.viewer;
    const { width, height } = viewport.getBounds();
    const pan = (x: number, y: number) => viewport.panBy(new OpenSeadragon.Point(x * width, y * height));
    const moves: Record<Move, () => unknown> = {
      in: () => viewport.zoomBy(ZOOM_STEP),
      out: () => viewport.zoomBy(1 / ZOOM_STEP),
      home: () => viewport.goHome(),
      left: () => pan(-PAN_STEP, 0),
      right: () => pan(PAN_STEP, 0),
      up: () => pan(0, -PAN_STEP),
      down: () => pan(0, PAN_STEP),
    };
    moves[move]();
    viewport.applyConstraints();
  }

  /** Bring one cell into view, with its surroundings; at once or on the way there. */
  lookAt(row: number, immediately: boolean): void {
    const path = this.field.cells.find((cell) => cell.row === row)?.path;
    const box = path === undefined ? null : boxOf(path);
    if (box === null) return;
    const look = () => {
      const side = CELLS_ACROSS * Math.max(box.width, box.height);
      const [x, y] = [box.x + box.width / 2 - side / 2, box.y + box.height / 2 - side / 2];
      const scale = 1 / this.field.width;
      const bounds = new OpenSeadragon.Rect(x * scale, y * scale, side * scale, side * scale);
      this.viewer.viewport.fitBoundsWithConstraints(bounds, immediately);
    };
    if (this.viewer.isOpen()) look();
    else this.viewer.addOnceHandler("open", look);
  }

  destroy(): void {
    this.viewer.destroy();
  }
}

/**
 * OpenSeadragon adds a style element where it finds none of its own, which the content security policy refuses with an
 * error. An element that has the name and no meaning is taken for it.
 */
function keepStyleOut(): void {
  const attribute = "data-openseadragon-mobile-css";
  if (document.querySelector(`style[${attribute}]`) !== null) return;
  const mark = document.createElementNS("urn:perikarya:mark", "style");
  mark.setAttribute(attribute, "true");
  document.head.append(mark);
}

function tileSourceOf(field: Field) {
  return {
    width: field.width,
    height: field.height,
    tileSize: field.tile_px,
    minLevel: field.min_level,
    maxLevel: field.n_levels - 1,
    getTileUrl: (level: number, x: number, y: number) => tileAddress(field.field, level, x, y),
  };
}
