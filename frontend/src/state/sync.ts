import { api, ServiceError } from "../api/client";
import type { Changes, CorrectionsAnswer } from "../api/types";
import type { Click, ClickQueue } from "./clicks";

const CLICKS_PER_REQUEST = 500;
/** The click itself is at fault; sending it again would not help. Everything else passes. */
const REFUSALS = [400, 404, 413, 422];

export interface SyncParts {
  queue: ClickQueue;
  lockName: string;
  revision: () => number;
  onSaved: (batch: Click[], answer: CorrectionsAnswer) => void;
  onRefused: (click: Click, why: string) => void;
  onChanges: (changes: Changes) => void;
  onLost: (why: string) => void;
  /** The service answers; told after every round, after the first of which clicks are out. */
  onFound: () => void;
}

/** Of all tabs of a browser one at a time sends clicks, so that their order holds. */
async function alone(name: string, work: () => Promise<void>): Promise<void> {
  if ("locks" in navigator) await navigator.locks.request(name, work);
  else await work();
}

/** Keeps page and service in step: clicks out, what others did in. One round at a time. */
export class Sync {
  #running: Promise<void> | null = null;
  #again = false;

  constructor(private readonly parts: SyncParts) {}

  run(): Promise<void> {
    this.#again = this.#running !== null;
    this.#running ??= this.#rounds().finally(() => (this.#running = null));
    return this.#running;
  }

  async #rounds(): Promise<void> {
    do {
      this.#again = false;
      try {
        await alone(this.parts.lockName, () => this.#send());
        if (!document.hidden) this.parts.onChanges(await api.changes(this.parts.revision()));
        this.parts.onFound();
      } catch (error) {
        this.parts.onLost(error instanceof Error ? error.message : String(error));
      }
      // eslint-disable-next-line @typescript-eslint/no-unnecessary-condition -- set by run() meanwhile
    } while (this.#again);
  }

  async #send(): Promise<void> {
    const { queue } = this.parts;
    queue.read(); // another tab may have sent some while this one waited
    let size = CLICKS_PER_REQUEST;
    while (queue.size > 0) {
      const batch = queue.all.slice(0, size);
      try {
        const answer = await api.correct(batch.map((click) => click.correction));
        queue.remove(batch.map((click) => click.correction.id));
        this.parts.onSaved(batch, answer);
      } catch (error) {
        if (!(error instanceof ServiceError && REFUSALS.includes(error.status))) throw error;
        const [first] = batch;
        if (batch.length === 1 && first) {
          queue.remove([first.correction.id]);
          this.parts.onRefused(first, error.message);
        }
        size = 1; // find out which one it is
      }
    }
  }
}
