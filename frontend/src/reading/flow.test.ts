import { expect, test } from "vitest";
import { nextPlace, progressOf, progressWords, question, trouble } from "./flow";

test("a round goes on at the first cell that has not been read, skipped ones count as read", () => {
  expect(nextPlace([0, -1, null, 2, null])).toBe(2);
  expect(nextPlace([0, -1])).toBe(2);
  expect(nextPlace([])).toBe(0);
});

test("progress tells how many were skipped", () => {
  expect(progressWords(progressOf([0, -1, null, 2]))).toBe("3 of 4 read, 1 of them skipped");
  expect(progressWords(progressOf([null, null]))).toBe("0 of 2 read");
});

test("the question names the place and all classes", () => {
  expect(question(0, 60, ["normal", "intermediate", "pyknotic"])).toBe(
    "Cell 1 of 60: normal, intermediate or pyknotic?",
  );
});

test.each([
  [{ n_cells: 60, n_repeats: 12, seed: 0 }, null],
  [{ n_cells: 100, n_repeats: 100, seed: 3 }, null],
  [{ n_cells: 0, n_repeats: 0, seed: 0 }, "between 1 and 100"],
  [{ n_cells: 101, n_repeats: 0, seed: 0 }, "between 1 and 100"],
  [{ n_cells: 1.5, n_repeats: 0, seed: 0 }, "between 1 and 100"],
  [{ n_cells: NaN, n_repeats: 0, seed: 0 }, "between 1 and 100"],
  [{ n_cells: 5, n_repeats: 6, seed: 0 }, "twice"],
  [{ n_cells: 5, n_repeats: -1, seed: 0 }, "twice"],
  [{ n_cells: 5, n_repeats: 0, seed: -1 }, "seed"],
])("a wish of %o is answered with %s", (wish, words) => {
  const said = trouble(wish, 100);
  if (words === null) expect(said).toBeNull();
  else expect(said).toContain(words);
});
