import type { Cell } from "../api/types";

const CELLS_KEPT = 10_000;
const CELLS_PER_QUESTION = 400;
const CELLS_AWAITED = 1_200; // more than that were scrolled past

/** Details of cells as the service gave them: fetched in batches, newest wish first, least used forgotten first. */
export class CellCache {
  readonly #cells = new Map<number, Cell>();
  readonly #wanted = new Set<number>();
  readonly #asked = new Set<number>();
  #running = false;

  constructor(
    private readonly fetchCells: (rows: number[]) => Promise<Cell[]>,
    private readonly onChange: (come: number[], gone: number[]) => void,
    private readonly onTrouble: (error: unknown) => void,
  ) {}

  get(row: number): Cell | undefined {
    return this.#cells.get(row);
  }

  /** Change what is known of a cell; one that is not known stays so. */
  amend(row: number, changes: Partial<Cell>): void {
    if (this.#asked.has(row)) this.#wanted.add(row); // the answer under way may be older than the change
    const cell = this.#cells.get(row);
    if (cell) this.#cells.set(row, { ...cell, ...changes });
  }

  clear(): void {
    this.#cells.clear();
    this.#wanted.clear();
  }

  need(rows: number[]): void {
    for (const row of rows) {
      const cell = this.#cells.get(row);
      if (cell) {
        this.#cells.delete(row); // to the end of the map: used last
        this.#cells.set(row, cell);
      } else if (!this.#asked.has(row)) {
        this.#wanted.delete(row);
        this.#wanted.add(row);
      }
    }
    for (const row of this.#wanted) {
      if (this.#wanted.size <= CELLS_AWAITED) break;
      this.#wanted.delete(row);
    }
    this.retry();
  }

  /** Fetch again although it is known, since the service knows better. */
  renew(rows: number[]): void {
    for (const row of rows) this.#wanted.add(row);
    this.retry();
  }

  /** Go on with what is wanted, after the service was away. */
  retry(): void {
    if (this.#running || this.#wanted.size === 0) return;
    this.#running = true;
    setTimeout(() => void this.#run(), 10); // wishes of one frame go together
  }

  /** Details of all of these rows, however many. */
  async load(rows: number[]): Promise<Cell[]> {
    const cells = rows.flatMap((row) => this.#cells.get(row) ?? []);
    const missing = rows.filter((row) => !this.#cells.has(row));
    for (let i = 0; i < missing.length; i += CELLS_PER_QUESTION) {
      cells.push(...(await this.fetchCells(missing.slice(i, i + CELLS_PER_QUESTION))));
    }
    return cells;
  }

  async #run(): Promise<void> {
    while (this.#wanted.size > 0) {
      const batch = [...this.#wanted].slice(-CELLS_PER_QUESTION);
      for (const row of batch) {
        this.#wanted.delete(row);
        this.#asked.add(row);
      }
      try {
        this.#keep(await this.fetchCells(batch));
      } catch (error) {
        for (const row of batch) this.#wanted.add(row);
        this.onTrouble(error);
        break;
      } finally {
        for (const row of batch) this.#asked.delete(row);
      }
    }
    this.#running = false;
  }

  #keep(cells: Cell[]): void {
    for (const cell of cells) {
      this.#cells.delete(cell.row);
      this.#cells.set(cell.row, cell);
    }
    const gone: number[] = [];
    for (const row of this.#cells.keys()) {
      if (this.#cells.size <= CELLS_KEPT) break;
      this.#cells.delete(row);
      gone.push(row);
    }
    this.onChange(
      cells.map((cell) => cell.row),
      gone,
    );
  }
}
