import { expect, it, vi } from "vitest";
import type { Cell } from "../api/types";
import { CELL } from "../testing/service";
import { CellCache } from "./cells";

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);

/** A cache, the questions it asked, and a way to answer the oldest open one. */
function cacheWithQuestions() {
  const open: { rows: number[]; resolve: (cells: Cell[]) => void; reject: (error: Error) => void }[] = [];
  const asked: number[][] = [];
  const fetchCells = (rows: number[]) => {
    asked.push(rows);
    return new Promise<Cell[]>((resolve, reject) => open.push({ rows, resolve, reject }));
  };
  const onChange = vi.fn<(come: number[], gone: number[]) => void>();
  const onTrouble = vi.fn();
  const cache = new CellCache(fetchCells, onChange, onTrouble);
  const question = () => vi.waitUntil(() => open.shift());
  const answer = async (label = 0) => {
    const { rows, resolve } = await question();
    resolve(rows.map((row) => ({ ...CELL, row, label })));
  };
  return { cache, asked, question, answer, onChange, onTrouble };
}

it("asks once for what several views need in one moment", async () => {
  const { cache, asked, answer } = cacheWithQuestions();
  cache.need([1, 2]);
  cache.need([2, 3]);
  await answer();
  await vi.waitUntil(() => cache.get(3));
  cache.need([1, 2, 3]);
  await new Promise((resolve) => setTimeout(resolve, 30));
  expect(asked).toEqual([[1, 2, 3]]);
});

it("asks for the newest wishes first and forgets those scrolled past", async () => {
  const { cache, asked, answer } = cacheWithQuestions();
  for (const from of [0, 400, 800, 1_200, 1_600]) cache.need(range(from, from + 400));
  for (let i = 0; i < 3; i++) await answer();
  await vi.waitUntil(() => cache.get(800));
  expect(asked.map((rows) => rows[0])).toEqual([1_600, 1_200, 800]);
  expect(cache.get(799)).toBeUndefined();
});

it("asks again for a cell that was changed while the answer was under way", async () => {
  const { cache, asked, answer } = cacheWithQuestions();
  cache.need([1, 2]);
  await vi.waitUntil(() => asked.length === 1);
  cache.amend(2, { label: 2 });
  await answer(0);
  await answer(2);
  await vi.waitUntil(() => cache.get(2)?.label === 2);
  expect(asked).toEqual([[1, 2], [2]]);
});

it("goes on after trouble when it is told to", async () => {
  const { cache, question, answer, onTrouble } = cacheWithQuestions();
  cache.need([7]);
  (await question()).reject(new Error("away"));
  await vi.waitUntil(() => onTrouble.mock.calls.length > 0);
  expect(cache.get(7)).toBeUndefined();
  await vi.waitFor(async () => {
    cache.retry();
    await answer();
  });
  await vi.waitUntil(() => cache.get(7));
});

it("forgets the cells used least when there are too many, and says which", async () => {
  const { cache, answer, onChange } = cacheWithQuestions();
  for (let from = 0; from < 10_000; from += 400) {
    cache.need(range(from, from + 400));
    await answer();
    await vi.waitUntil(() => cache.get(from));
  }
  cache.need([0]); // used again
  cache.need([10_000]);
  await answer();
  await vi.waitUntil(() => cache.get(10_000));
  expect(cache.get(0)).toBeDefined();
  expect(onChange).toHaveBeenLastCalledWith([10_000], [1]);
});
