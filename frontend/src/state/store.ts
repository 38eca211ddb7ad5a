/**
 * What all views of the page share. Views read it with `useReview(s => s.…)` and change it through its actions only.
 */
import { create } from "zustand";
import { api, ServiceError } from "../api/client";
import { decodeRows } from "../api/decode";
import type { Cell, Entry, Query, StudyInfo } from "../api/types";
import { CellCache } from "./cells";
import { type Click, type ClickDraft, ClickQueue, type Tally, tallyWithClicks, withClicks } from "./clicks";
import { type Circumstances, codeOf, labelDrafts, skipDrafts, undoDrafts } from "./drafts";
import { EMPTY_QUERY, formatRoute, keepWithin, parseRoute, type Route } from "./route";
import { keepSettings, readSettings } from "./settings";
import { Sync } from "./sync";
import type { Review, View } from "./types";
import { type Deed, UndoStack } from "./undo";

export type { Conflict, Review, ReviewActions, ReviewState, View } from "./types";

/** How far back "undo" reaches after a reload, in entries of the log. */
const ENTRIES_LOOKED_BACK = 1_000;

const sentence = (error: unknown) => (error instanceof Error ? error.message : String(error));
const plural = (n: number, what: string) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;

export function createReview() {
  return create<Review>()((set, get) => {
    let queue: ClickQueue | null = null;
    let sync: Sync | null = null;
    let done = new UndoStack();
    let tally: Tally = { counts: [], nReviewed: 0 };
    let question = 0;
    const ownIds = new Set<string>();
    /** Of each row the last entry taken in: one's own come at once, older ones of others after them. */
    const lastSeq = new Map<number, number>();

    const cache = new CellCache(
      (rows) => api.cells(rows),
      (come, gone) => {
        publish(come, gone);
      },
      (error) => {
        set({ lost: sentence(error) });
      },
    );

    /** Show what is known of some cells, with the clicks to be sent on top. */
    function publish(come: number[], gone: number[] = []): void {
      const cells = new Map(get().cells);
      const clicks = queue?.all ?? [];
      for (const row of gone) cells.delete(row);
      for (const row of come) {
        const cell = cache.get(row);
        if (cell) cells.set(row, withClicks(cell, clicks));
      }
      set({ cells });
    }

    function publishTally(): void {
      const clicks = queue?.all ?? [];
      set({ ...tallyWithClicks(tally, clicks), nPending: clicks.length });
    }

    function circumstances(): Circumstances | null {
      const { study, blind } = get();
      return study && { study, blind };
    }

    function visit(view: View, row: number | null, how: "push" | "replace"): void {
      const hash = formatRoute({ view, row, query: get().query });
      if (hash !== window.location.hash) {
        if (how === "push") window.history.pushState(null, "", hash);
        else window.history.replaceState(null, "", hash);
      }
      set({ view, row });
    }

    /** What the address asks for, as far as the study has it. */
    function addressed(): Route {
      const route = parseRoute(window.location.hash);
      const isThere = route.row === null || route.row < (get().study?.n_cells ?? 0);
      return isThere ? route : { ...route, view: "gallery", row: null };
    }

    function click(drafts: ClickDraft[], undoable: Deed[]): void {
      if (!queue || drafts.length === 0) return;
      if (!queue.add(drafts)) {
        get().say("This browser keeps no more clicks: leave the page open until all are saved.");
      }
      for (const { correction } of drafts) ownIds.add(correction.id);
      if (undoable.length > 0) done.push(undoable);
      publish(drafts.map((draft) => draft.correction.row));
      publishTally();
      set({ stale: true });
      void sync?.run();
    }

    function stepOnFrom(row: number): void {
      const { rows, place } = get();
      if (rows[place] !== row) return;
      if (place + 1 < rows.length) get().goTo(place + 1);
      else get().say(`${get().said} This was the last cell of the list.`);
    }

    function labelKnown(cells: Cell[], className: string | null): void {
      const at = circumstances();
      if (!at) return;
      const { drafts, deeds } = labelDrafts(cells, className, at);
      click(drafts, deeds);
      const [first] = cells;
      if (cells.length === 1 && first) {
        get().say(`Cell ${first.cell_id}: ${className ?? "no label"}.`);
        stepOnFrom(first.row);
      } else get().say(`${plural(cells.length, "cell")}: ${className ?? "no label"}.`);
    }

    function onSaved(batch: Click[], entries: Entry[], conflicts: Record<string, Entry>): void {
      get().takeIn(entries);
      for (const { correction, becomes } of batch) cache.amend(correction.row, becomes);
      publish(batch.map((each) => each.correction.row));
      const told = batch.flatMap(({ correction }) => {
        const theirs = conflicts[correction.id];
        if (!theirs) return [];
        const mine = correction.new ?? "no label";
        const words = `Cell ${theirs.cell_id}: ${theirs.by} had set it to ${theirs.new ?? "no label"}; your "${mine}" stands now.`;
        return [{ id: correction.id, row: correction.row, words }];
      });
      if (told.length > 0) set({ conflicts: [...get().conflicts, ...told] });
      for (const { words } of told.slice(-1)) get().say(words);
    }

    function onFound(): void {
      if (get().lost === null) return;
      set({ lost: null });
      get().say("Connected again; all clicks are saved.");
      cache.retry();
      // another study may answer at this address now
      const known = get().study?.data_hash;
      api.study().then(
        (study) => {
          if (study.data_hash !== known) window.location.reload();
        },
        () => undefined, // away again: the next round tells
      );
    }

    function open(study: StudyInfo): ClickQueue {
      cache.clear();
      lastSeq.clear();
      const clicks = new ClickQueue(study.data_hash);
      queue = clicks;
      sync = new Sync({
        queue: clicks,
        lockName: `perikarya:${study.data_hash}`,
        revision: () => get().revision,
        onSaved: (batch, answer) => {
          tally = { counts: answer.counts, nReviewed: answer.n_reviewed };
          onSaved(batch, answer.entries, answer.conflicts);
          publishTally();
        },
        onRefused: ({ correction }, why) => {
          publish([correction.row]);
          publishTally();
          get().say(`A click was refused: ${why}`);
        },
        onChanges: (changes) => {
          tally = { counts: changes.counts, nReviewed: changes.n_reviewed };
          tellOfOthers(changes.entries);
          get().takeIn(changes.entries);
          set({ revision: changes.revision });
          publishTally();
        },
        onLost: (why) => {
          if (get().lost === null) get().say(`${why} Clicks are kept in this browser until then.`);
          set({ lost: why });
        },
        onFound,
      });
      set({ study, blind: get().blind || study.blind });
      return clicks;
    }

    function tellOfOthers(entries: Entry[]): void {
      const theirs = entries.filter((entry) => !ownIds.has(entry.id));
      if (theirs.length === 0) return;
      const names = [...new Set(theirs.map((entry) => entry.by))].join(", ");
      get().say(`${names}: ${plural(theirs.length, "cell")} elsewhere.`);
    }

    return {
      study: null,
      trouble: null,
      view: "gallery",
      query: EMPTY_QUERY,
      rows: new Uint32Array(),
      counts: [],
      nReviewed: 0,
      revision: 0,
      place: 0,
      row: null,
      outlined: readSettings().outlined,
      blind: readSettings().blind,
      cells: new Map(),
      nPending: 0,
      lost: null,
      conflicts: [],
      stale: false,
      asking: false,
      said: "",

      start: async () => {
        try {
          const study = await api.study();
          const clicks = open(study);
          const changes = await api.changes(Math.max(0, study.revision - ENTRIES_LOOKED_BACK));
          done = UndoStack.fromLog(changes.entries, study.reader);
          for (const { correction, was } of clicks.all) {
            if (correction.kind !== "undo") {
              done.push([{ ...correction, kind: correction.kind, wasReviewed: was.reviewed }]);
            }
          }
          tally = { counts: changes.counts, nReviewed: changes.n_reviewed };
          set({ revision: changes.revision });
          publishTally();
          const { view, row, query } = addressed();
          set({ view, row });
          if (row !== null) cache.need([row]);
          await get().ask(query);
        } catch (error) {
          set({ trouble: sentence(error) });
          return;
        }
        void get().sync();
      },

      show: (view) => {
        visit(view, view === "cell" ? get().row : null, "push");
      },

      ask: async (query) => {
        const mine = ++question;
        const before = get().query;
        const whole: Query = { ...before, ...query };
        set({ query: whole, asking: true }); // a tick shows at once, the answer when it comes
        try {
          const answer = await api.query(whole);
          if (mine !== question) return; // asked again meanwhile
          const rows = decodeRows(answer.rows_b64);
          const { view, row } = get();
          const place = row === null ? 0 : Math.max(0, rows.indexOf(row));
          keepWithin(whole.within);
          set({ rows, place, asking: false, stale: false });
          visit(view, row, "replace");
          get().say(answer.n === 0 ? "No cell fits these filters." : `${plural(answer.n, "cell")} fit.`);
        } catch (error) {
          if (mine !== question) return;
          set({ query: before, asking: false });
          get().say(sentence(error));
          if (get().rows.length === 0 && error instanceof ServiceError && error.status === 400) {
            if (whole.filters.length + whole.sort.length > 0) await get().ask(EMPTY_QUERY);
          }
        }
      },

      refresh: async () => {
        const { rows, place } = get();
        const here = rows[place];
        await get().ask({});
        if (here === undefined || get().view === "cell") return;
        const again = get().rows.indexOf(here);
        get().goTo(again >= 0 ? again : place);
      },

      need: (rows) => {
        cache.need(rows);
      },

      goTo: (place) => {
        const { rows, view } = get();
        const bounded = Math.max(0, Math.min(place, rows.length - 1));
        set({ place: bounded });
        const row = rows[bounded];
        if (view === "cell" && row !== undefined) visit("cell", row, "replace");
      },

      open: (row) => {
        const place = get().rows.indexOf(row);
        if (place >= 0) set({ place });
        cache.need([row]);
        visit("cell", row, get().view === "cell" ? "replace" : "push");
      },

      relabel: (rows, className) => {
        const known = rows.flatMap((row) => get().cells.get(row) ?? []);
        if (known.length === rows.length) {
          labelKnown(known, className);
          return;
        }
        cache.load(rows).then(
          (cells) => {
            const clicks = queue?.all ?? [];
            labelKnown(
              cells.map((cell) => withClicks(cell, clicks)),
              className,
            );
          },
          (error: unknown) => {
            get().say(`Nothing was changed: ${sentence(error)}`);
          },
        );
      },

      skip: (row) => {
        const cell = get().cells.get(row);
        const at = circumstances();
        if (!cell || !at) return;
        const { drafts, deeds } = skipDrafts(cell, at);
        click(drafts, deeds);
        get().say(`Cell ${cell.cell_id}: skipped.`);
        stepOnFrom(row);
      },

      undo: () => {
        const at = circumstances();
        const last = at ? done.pop() : undefined;
        const [first] = last ?? [];
        if (!at || !last || !first) {
          get().say("Nothing of yours is left to undo.");
          return;
        }
        click(undoDrafts(last, get().cells, at), []);
        const what = first.kind === "skip" ? "skip taken back" : `${first.old ?? "no label"} again`;
        get().say(
          last.length === 1 ? `Undone: ${what}.` : `Undone: ${plural(last.length, "cell")} as before.`,
        );
        const place = get().rows.indexOf(first.row);
        if (place >= 0) get().goTo(place);
      },

      setOutlined: (outlined) => {
        keepSettings({ outlined });
        set({ outlined });
        get().say(outlined ? "Outlines are shown." : "Outlines are hidden.");
      },

      setBlind: (blind) => {
        keepSettings({ blind });
        set({ blind });
        get().say(blind ? "Models are hidden." : "Models are shown.");
      },

      say: (said) => {
        set({ said });
      },

      takeIn: (log) => {
        queue?.remove(log.map((entry) => entry.id));
        const { study } = get();
        const news = log.filter(({ kind, row, seq }) => kind !== "skip" && seq > (lastSeq.get(row) ?? 0));
        if (!study || news.length === 0) return;
        for (const { row, seq, kind, new: name } of news) {
          lastSeq.set(row, seq);
          if (kind === "label") cache.amend(row, { label: codeOf(study, name), reviewed: true });
          else if (cache.get(row)) cache.renew([row]); // what an undo leaves depends on entries before it
        }
        publish(news.flatMap(({ kind, row }) => (kind === "label" ? row : [])));
        set({ stale: true });
      },

      sync: async () => {
        await sync?.run();
      },

      follow: () => {
        const { view, row, query } = addressed();
        const same = formatRoute({ view, row, query: get().query }) === formatRoute({ view, row, query });
        set({ view, row });
        if (row !== null) {
          const place = get().rows.indexOf(row);
          if (place >= 0) set({ place });
          cache.need([row]);
        }
        if (!same) void get().ask(query);
      },

      dismissConflicts: () => {
        set({ conflicts: [] });
      },

      rename: async (name) => {
        const { reader } = await api.rename(name);
        const { study } = get();
        if (study) set({ study: { ...study, reader } });
        get().say(`Clicks are written as ${reader} from now on.`);
      },

      renewStudy: async () => {
        const study = await api.study().catch(() => null); // being away is told by sync
        if (study && study.data_hash === get().study?.data_hash) set({ study });
      },
    };
  });
}

export const useReview = createReview();
