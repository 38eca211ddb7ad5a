/** What the service says and takes. The other side is `perikarya.review.schemas`, with the same names. */

export interface ModelInfo {
  name: string;
  kind: "network" | "ensemble" | "prediction";
  can_explain: boolean;
}

export interface Column {
  key: string;
  title: string;
  kind: "category" | "number";
  /** Of categories: their names; a code is an index into them, -1 is "none". */
  values: string[];
  /** Of numbers: smallest and largest value that occurs; null where there is none. */
  range: [number, number] | null;
}

export interface StudyInfo {
  schema_version: 1;
  name: string;
  /** Where the cells come from, in words: "study f7", "run lead_rbc". */
  source: string;
  class_names: string[];
  /** One #rrggbb per class, the palette of all figures. */
  class_colours: string[];
  window_px: number;
  um_per_px: number | null;
  n_cells: number;
  /** Part of the address of crops, so that they may be cached for ever. */
  data_hash: string;
  models: ModelInfo[];
  /** Name of the model whose predictions the table shows (the ensemble where there is one); null without models. */
  table_model: string | null;
  /** Whether the page starts with all that models say hidden. */
  blind: boolean;
  columns: Column[];
  reader: string;
  /** Whether features are there, for the map by them and for neighbours; otherwise pixels serve the map. */
  has_features: boolean;
  map_methods: ("pca" | "umap")[];
  /** Whether cells can be shown in the image they come from. */
  has_fields: boolean;
  revision: number;
}

export type Filter =
  { column: string; values: string[] } | { column: string; min: number | null; max: number | null };

export interface Sort {
  column: string;
  descending: boolean;
}

export interface Query {
  filters: Filter[];
  /** First key first; rows that are equal keep the order of the table. */
  sort: Sort[];
  /** Part of a cell's, image's or subject's name; "" for all. */
  text: string;
  /** Only these rows (a selection on the map); null for all. */
  within: number[] | null;
}

export interface QueryAnswer {
  n: number;
  /** Rows in order: base64 of little-endian uint32. */
  rows_b64: string;
  /** Cells of each class by their present label; the last entry counts those without. */
  counts: number[];
  n_reviewed: number;
  revision: number;
}

export interface Cell {
  row: number;
  cell_id: string;
  /** Code of the present label (after corrections), -1 without. */
  label: number;
  /** Code of the label in the study's table, -1 without. */
  imported_label: number;
  reviewed: boolean;
  /** Of the table's model: code, probability; null without models. */
  predicted: number | null;
  confidence: number | null;
  /** Of that model, in the order of the classes, so that a click can say what was seen; null without models. */
  prob: number[] | null;
  abstained: boolean | null;
  subject: string | null;
  image_id: string;
  region: string | null;
  group: string | null;
  set: "development" | "external";
  /** Number of the cluster of near-duplicates; null for a cell without any. */
  cluster: number | null;
}

export interface Probabilities {
  model: string;
  /** In the order of the classes; mean over the networks that did not train on the cell. */
  prob: number[];
  n_networks: number;
  /** False where every network of the model was trained on this cell. */
  held_out: boolean;
}

export interface Neighbour {
  cell: Cell;
  /** 1 - cosine similarity. */
  distance: number;
}

export interface Entry {
  schema_version: 1;
  /** Place in the log, from 1. */
  seq: number;
  /** Made by the page, so that a click sent twice counts once. */
  id: string;
  /** ISO 8601, UTC. */
  at: string;
  by: string;
  kind: "label" | "undo" | "skip";
  cell_id: string;
  row: number;
  old: string | null;
  new: string | null;
  /** What the person saw the model say; null where nothing was shown. */
  seen: { model: string; prob: number[] } | null;
  /** The entry that an undo takes back. */
  undoes: string | null;
}

export interface CellDetail {
  cell: Cell;
  x_px: number;
  y_px: number;
  area_px: number;
  area_um2: number | null;
  probabilities: Probabilities[];
  neighbours: Neighbour[];
  /** Why there are no neighbours (yet), in words; "" where there are. */
  neighbours_note: string;
  field: number | null;
  history: Entry[];
}

export interface Field {
  field: number;
  image_id: string;
  width: number;
  height: number;
  tile_px: number;
  /** Level k is the image shrunk by 2^(n_levels - 1 - k). */
  n_levels: number;
  /** Levels below this one are not served (images too large to be shrunk whole). */
  min_level: number;
  um_per_px: number | null;
  /** Outlines in pixels of the image, as the d attribute of an SVG path. */
  cells: { row: number; label: number; path: string }[];
}

export interface MapState {
  method: "pca" | "umap";
  status: "absent" | "working" | "ready" | "failed";
  progress: number;
  message: string;
  /** What it is a map of, in words. */
  features: string;
  /** base64 of little-endian float32, x and y of each row in turn; "" until ready. */
  xy_b64: string;
}

export interface ColumnValues {
  key: string;
  /** base64 of little-endian int32 codes of categories, float32 of numbers (NaN: unknown). */
  values_b64: string;
}

export interface Correction {
  id: string;
  row: number;
  kind: "label" | "undo" | "skip";
  /** What the page showed as the cell's label when the key was pressed. */
  old: string | null;
  new: string | null;
  seen: { model: string; prob: number[] } | null;
  undoes: string | null;
}

export interface CorrectionsAnswer {
  entries: Entry[];
  /** Entries of others that changed a cell since the page last saw it, by the id of the correction. */
  conflicts: Record<string, Entry>;
  revision: number;
  counts: number[];
  n_reviewed: number;
}

export interface Changes {
  revision: number;
  entries: Entry[];
  /** Of all cells. */
  counts: number[];
  n_reviewed: number;
}

/** One blind reading: some cells, a reader, an order; labels and models are never sent with it. */
export interface Round {
  round: string;
  reader: string;
  started: string;
  /** Rows in the order they are read; a few come twice where repeats were asked for. */
  rows: number[];
  /** Codes read so far, by place in `rows`; -1 for a cell that was skipped, null for one to come. */
  read: (number | null)[];
}

export interface Kappa {
  estimate: number | null;
  ci95: [number, number] | null;
}

export interface Agreement {
  /** Each two readers (and the labels of the study as one of them): Cohen's kappa over the cells both have read. */
  pairs: {
    a: string;
    b: string;
    n_cells: number;
    observed: number | null;
    cohen: Kappa;
    /** Quadratic weights; null unless the classes are in order of severity and more than two. */
    weighted: Kappa | null;
    per_class: { class_name: string; kappa: Kappa }[];
  }[];
  /** Cells read by all readers. */
  fleiss: {
    readers: string[];
    n_cells: number;
    kappa: Kappa;
    per_class: { class_name: string; kappa: Kappa }[];
  } | null;
  /** The same reader twice. */
  intra: { reader: string; n_cells: number; cohen: Kappa; observed: number | null }[];
  notes: string[];
}

/** Every answer that is not 2xx. */
export interface Problem {
  error: string;
}
