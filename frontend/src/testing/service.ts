import type { Cell, Correction, Entry, Query, StudyInfo } from "../api/types";

/** A stand-in for the service: keeps a log in memory and answers `fetch` as `perikarya review` does. */
export class Service {
  readonly study: StudyInfo;
  readonly log: Entry[] = [];
  readonly asked: string[] = [];
  away = false;
  /** Answers of POST /api/corrections get lost after they were written. */
  losesAnswers = false;
  refuses: (item: Correction) => boolean = () => false;
  query: Query | null = null;
  readonly #imported: number[];

  constructor(labels: number[], changes: Partial<StudyInfo> = {}) {
    this.#imported = labels;
    this.study = { ...STUDY, n_cells: labels.length, ...changes };
  }

  readonly fetch = async (input: RequestInfo | URL, init?: RequestInit): Promise<Response> => {
    const path = input as string;
    await Promise.resolve();
    if (this.away) throw new TypeError("Failed to fetch");
    this.asked.push(path);
    const body: unknown = typeof init?.body === "string" ? JSON.parse(init.body) : null;
    const answer = this.#answer(path, body);
    return new Response(JSON.stringify(answer), { status: "error" in answer ? 400 : 200 });
  };

  /** Somebody else labels a cell, on another page. */
  labelAs(by: string, row: number, name: string): void {
    this.#write(
      { ...NO_CLICK, id: crypto.randomUUID(), row, old: this.#name(this.label(row)), new: name },
      by,
    );
  }

  label(row: number): number {
    const undone = new Set(this.log.flatMap((entry) => entry.undoes ?? []));
    const standing = this.log.filter((e) => e.row === row && e.kind === "label" && !undone.has(e.id)).at(-1);
    return standing ? this.study.class_names.indexOf(standing.new ?? "") : (this.#imported[row] ?? -1);
  }

  cell(row: number): Cell {
    const undone = new Set(this.log.flatMap((entry) => entry.undoes ?? []));
    const reviewed = this.log.some((e) => e.row === row && e.kind === "label" && !undone.has(e.id));
    return { ...CELL, row, cell_id: `c${row}`, label: this.label(row), reviewed };
  }

  #answer(path: string, body: unknown): object {
    if (path === "/api/study") return { ...this.study, revision: this.log.length };
    if (path === "/api/query") return this.#ask(body as Query);
    if (path === "/api/cells")
      return { cells: (body as { rows: number[] }).rows.map((row) => this.cell(row)) };
    if (path === "/api/reader") {
      const { reader } = body as { reader: string };
      return reader === "Nobody" ? { error: "Nobody is no name." } : { reader };
    }
    if (path === "/api/corrections") return this.#correct((body as { items: Correction[] }).items);
    if (path.startsWith("/api/changes")) {
      return { ...this.#tally(), entries: this.log.slice(Number(path.split("=")[1])) };
    }
    return { error: `Nothing is at ${path}.` };
  }

  #ask(query: Query): object {
    this.query = query;
    if (query.filters.some(({ column }) => column === "nonsense"))
      return { error: "There is no column 'nonsense'." };
    const wanted = query.filters.find(({ column }) => column === "label");
    let rows = this.#imported.map((_, row) => row);
    if (wanted && "values" in wanted) {
      rows = rows.filter((row) => wanted.values.includes(this.#name(this.label(row)) ?? ""));
    }
    const bytes = new Uint8Array(Uint32Array.from(rows).buffer);
    return { ...this.#tally(), n: rows.length, rows_b64: btoa(String.fromCharCode(...bytes)) };
  }

  #correct(items: Correction[]): object {
    if (items.some(this.refuses)) return { error: "No such class." };
    const conflicts: Record<string, Entry> = {};
    const entries = items.map((item) => {
      const last = this.log.filter((entry) => entry.row === item.row).at(-1);
      if (last && last.by !== this.study.reader && this.#name(this.label(item.row)) !== item.old) {
        conflicts[item.id] = last;
      }
      return this.#write(item, this.study.reader);
    });
    if (this.losesAnswers) throw new TypeError("Failed to fetch");
    return { ...this.#tally(), entries, conflicts };
  }

  #write(item: Correction, by: string): Entry {
    const known = this.log.find((entry) => entry.id === item.id);
    if (known) return known;
    const seq = this.log.length + 1;
    const entry: Entry = {
      schema_version: 1,
      seq,
      at: "2026-11-23T12:00:00Z",
      by,
      cell_id: `c${item.row}`,
      ...item,
    };
    this.log.push(entry);
    return entry;
  }

  #tally() {
    const cells = this.#imported.map((_, row) => this.cell(row));
    const codes = [...this.study.class_names.keys(), -1];
    const counts = codes.map((code) => cells.filter((cell) => cell.label === code).length);
    return { counts, n_reviewed: cells.filter((cell) => cell.reviewed).length, revision: this.log.length };
  }

  #name(code: number): string | null {
    return this.study.class_names[code] ?? null;
  }
}

const NO_CLICK: Correction = {
  id: "",
  row: 0,
  kind: "label",
  old: null,
  new: null,
  seen: null,
  undoes: null,
};

export const STUDY: StudyInfo = {
  schema_version: 1,
  name: "tiny",
  source: "study tiny",
  class_names: ["normal", "intermediate", "pyknotic"],
  class_colours: ["#0072b2", "#e69f00", "#a50026"],
  window_px: 64,
  um_per_px: null,
  n_cells: 0,
  data_hash: "abc123",
  models: [{ name: "lite0", kind: "network", can_explain: true }],
  table_model: "lite0",
  blind: false,
  columns: [
    {
      key: "label",
      title: "label",
      kind: "category",
      values: ["normal", "intermediate", "pyknotic"],
      range: null,
    },
    { key: "reviewed", title: "reviewed", kind: "category", values: ["no", "yes"], range: null },
    { key: "confidence", title: "confidence", kind: "number", values: [], range: [0.34, 0.99] },
    { key: "queue", title: "review queue", kind: "number", values: [], range: [1, 9] },
  ],
  reader: "Ann",
  has_features: false,
  map_methods: ["pca"],
  has_fields: false,
  revision: 0,
};

export const CELL: Cell = {
  row: 0,
  cell_id: "",
  label: -1,
  imported_label: -1,
  reviewed: false,
  predicted: 2,
  confidence: 0.93,
  prob: [0.02, 0.05, 0.93],
  abstained: false,
  subject: null,
  image_id: "a1",
  region: null,
  group: null,
  set: "development",
  cluster: null,
};
