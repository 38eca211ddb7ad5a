import type {
  Agreement,
  CellDetail,
  Cell,
  Changes,
  ColumnValues,
  Correction,
  CorrectionsAnswer,
  Field,
  MapState,
  Problem,
  Query,
  QueryAnswer,
  Round,
  StudyInfo,
} from "./types";

/** What the service refused, in its own words; `status` 0 means that it could not be reached. */
export class ServiceError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

async function ask(path: string, body?: unknown): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      credentials: "same-origin",
      ...(body === undefined
        ? {}
        : { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }),
    });
  } catch {
    throw new ServiceError(0, "The service does not answer. Is 'perikarya review' still running?");
  }
  if (!response.ok) {
    const problem = (await response.json().catch(() => ({ error: response.statusText }))) as Problem;
    throw new ServiceError(response.status, problem.error);
  }
  return response;
}

async function json<T>(path: string, body?: unknown): Promise<T> {
  return (await (await ask(path, body)).json()) as T;
}

export const api = {
  study: () => json<StudyInfo>("/api/study"),
  query: (query: Query) => json<QueryAnswer>("/api/query", query),
  cells: async (rows: number[]) => (await json<{ cells: Cell[] }>("/api/cells", { rows })).cells,
  cell: (row: number) => json<CellDetail>(`/api/cells/${row}`),
  explain: async (row: number, model: string, about: number) =>
    (await ask(`/api/cells/${row}/explain`, { model, about })).blob(),
  field: (field: number) => json<Field>(`/api/fields/${field}`),
  map: (method: string) => json<MapState>(`/api/map?method=${encodeURIComponent(method)}`),
  startMap: (method: string) => json<MapState>("/api/map", { method }),
  column: (key: string) => json<ColumnValues>(`/api/columns/${encodeURIComponent(key)}`),
  correct: (items: Correction[]) => json<CorrectionsAnswer>("/api/corrections", { items }),
  changes: (since: number) => json<Changes>(`/api/changes?since=${since}`),
  rename: (reader: string) => json<{ reader: string }>("/api/reader", { reader }),
  rounds: async () => (await json<{ rounds: Round[] }>("/api/readings")).rounds,
  startRound: (wish: { n_cells: number; n_repeats: number; seed: number }) =>
    json<Round>("/api/readings", wish),
  read: (round: string, reading: { id: string; place: number; code: number }) =>
    json<Round>(`/api/readings/${encodeURIComponent(round)}`, reading),
  agreement: () => json<Agreement>("/api/agreement"),
};

/** Address of a crop; the study's hash makes it good for ever. */
export function cropAddress(hash: string, row: number, outlined: boolean): string {
  return `/crops/${hash}/${row}.png${outlined ? "?outline=1" : ""}`;
}

export const exportAddress = (format: "geojson" | "roi") => `/api/export?format=${format}`;

export function tileAddress(field: number, level: number, x: number, y: number): string {
  return `/fields/${field}/${level}/${x}_${y}.jpg`;
}
