import type { Field } from "../api/types";

const SVG = "http://www.w3.org/2000/svg";
const NO_CLASS_COLOUR = "#ffffff";

/** All outlines of a field as one drawing, each a path that knows its row; `mark` and `recolour` change it later. */
export class Outlines {
  readonly element: SVGSVGElement;
  private readonly paths = new Map<number, SVGPathElement>();
  private readonly marks: SVGPathElement[];

  constructor(field: Field, colours: string[]) {
    this.element = create("svg", { viewBox: `0 0 ${field.width} ${field.height}`, class: "outlines" });
    this.element.setAttribute("aria-hidden", "true"); // the list beside the picture says the same in words
    for (const cell of field.cells) {
      const path = create("path", { d: cell.path, "data-row": String(cell.row), class: "outline" });
      this.paths.set(cell.row, path);
      this.element.append(path);
      this.recolour(cell.row, cell.label, colours);
    }
    this.marks = ["mark-outer", "mark-inner"].map((name) => create("path", { class: name }));
    this.element.append(...this.marks);
  }

  recolour(row: number, label: number, colours: string[]): void {
    this.paths.get(row)?.setAttribute("stroke", colours[label] ?? NO_CLASS_COLOUR);
  }

  /** Draw the double line of the present cell around its outline. */
  mark(row: number): void {
    const path = this.paths.get(row);
    for (const mark of this.marks) mark.setAttribute("d", path?.getAttribute("d") ?? "");
    if (path) this.element.append(...this.marks, path);
  }

  /** Make one outline thick, that of the cell under the mouse or of the one named in the list. */
  point(row: number | null): void {
    for (const path of this.element.querySelectorAll(".is-pointed")) path.classList.remove("is-pointed");
    if (row !== null) this.paths.get(row)?.classList.add("is-pointed");
  }
}

/** Row of the cell whose outline a thing on the page is, or null. */
export function rowOf(target: EventTarget | null): number | null {
  const row = target instanceof Element ? target.closest("[data-row]")?.getAttribute("data-row") : null;
  return row === null || row === undefined ? null : Number(row);
}

/** Smallest box around an outline, in pixels of the image. Paths of the service hold absolute points only. */
export function boxOf(path: string): { x: number; y: number; width: number; height: number } | null {
  const numbers = (path.match(/-?\d+(\.\d+)?/g) ?? []).map(Number);
  const xs = numbers.filter((_, k) => k % 2 === 0);
  const ys = numbers.filter((_, k) => k % 2 === 1);
  if (ys.length === 0) return null;
  const [x, y] = [Math.min(...xs), Math.min(...ys)];
  return { x, y, width: Math.max(...xs) - x, height: Math.max(...ys) - y };
}

function create<K extends keyof SVGElementTagNameMap>(name: K, attributes: Record<string, string>) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
