import { render, screen } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { beforeEach, expect, test, vi } from "vitest";
import { api, ServiceError } from "../api/client";
import type { Round } from "../api/types";
import { useReview } from "../state/store";
import { Service } from "../testing/service";
import { RoundReader } from "./RoundReader";

const { study } = new Service([0, 1, 2]);
const fresh = useReview.getState();
const START: Round = {
  round: "r1",
  reader: "Ann",
  started: "2026-11-23T12:00:00Z",
  rows: [2, 0, 2],
  read: [null, null, null],
};

/** What the service keeps of a round: one code per place. */
function serve(start: Round) {
  const read = [...start.read];
  return vi.spyOn(api, "read").mockImplementation((_round, { place, code }) => {
    read[place] = code;
    return Promise.resolve({ ...start, read: [...read] });
  });
}

beforeEach(() => {
  useReview.setState({ ...fresh, study, outlined: false }, true);
});

const show = (start = START, onLeave = vi.fn()) =>
  render(<RoundReader study={study} start={start} onLeave={onLeave} />);
const shown = () => screen.getByAltText("The cell to be read").getAttribute("src");
const question = (words: string) => screen.findByRole("heading", { name: new RegExp(`^${words}`) });

test("a round is read by keyboard to its end", async () => {
  const read = serve(START);
  show();
  expect((await question("Cell 1 of 3")).textContent).toBe("Cell 1 of 3: normal, intermediate or pyknotic?");
  expect(shown()).toBe("/crops/abc123/2.png");
  await userEvent.keyboard("3");
  await question("Cell 2 of 3");
  expect(shown()).toBe("/crops/abc123/0.png");
  await userEvent.keyboard("s");
  await question("Cell 3 of 3");
  await userEvent.keyboard("1");
  expect(await screen.findByText("The round is read")).toBeDefined();
  expect(screen.getByText("3 of 3 read, 1 of them skipped")).toBeDefined();
  expect(read.mock.calls.map(([, { place, code }]) => [place, code])).toEqual([
    [0, 2],
    [1, -1],
    [2, 0],
  ]);
  expect(new Set(read.mock.calls.map(([, { id }]) => id)).size).toBe(3);
});

test("U goes back, shows the own answer, and the next answer takes its place", async () => {
  const read = serve(START);
  show();
  await userEvent.keyboard("3");
  await question("Cell 2 of 3");
  await userEvent.keyboard("u");
  await question("Cell 1 of 3");
  expect(screen.getByRole("button", { name: /pyknotic/ }).getAttribute("aria-pressed")).toBe("true");
  await userEvent.keyboard("1");
  await question("Cell 2 of 3");
  expect(read.mock.calls.map(([, { place, code }]) => [place, code])).toEqual([
    [0, 2],
    [0, 0],
  ]);
});

test("a paused round goes on where it was left", async () => {
  serve(START);
  show({ ...START, read: [1, -1, null] });
  await question("Cell 3 of 3");
});

test("an answer that was not saved keeps its cell, and counts once when given again", async () => {
  const read = vi
    .spyOn(api, "read")
    .mockRejectedValueOnce(new ServiceError(0, "The service does not answer."))
    .mockResolvedValue({ ...START, read: [1, null, null] });
  show();
  await userEvent.keyboard("2");
  expect((await screen.findByRole("alert")).textContent).toContain("The service does not answer.");
  await question("Cell 1 of 3");
  await userEvent.keyboard("2");
  await question("Cell 2 of 3");
  expect(screen.queryByRole("alert")).toBeNull();
  const [first, second] = read.mock.calls.map(([, { id }]) => id);
  expect(second).toBe(first);
});

test("another answer after a failure is another answer", async () => {
  const read = vi.spyOn(api, "read").mockRejectedValue(new ServiceError(0, "Gone."));
  show();
  await userEvent.keyboard("2");
  await screen.findByRole("alert");
  await userEvent.keyboard("3");
  await vi.waitFor(() => {
    expect(read).toHaveBeenCalledTimes(2);
  });
  const [first, second] = read.mock.calls.map(([, { id }]) => id);
  expect(second).not.toBe(first);
});

test("a second key while the first answer is saved is not taken for the next cell", async () => {
  let save: (round: Round) => void = () => undefined;
  const read = vi.spyOn(api, "read").mockImplementation(() => new Promise((resolve) => (save = resolve)));
  show();
  await userEvent.keyboard("3");
  await userEvent.keyboard("1u");
  save({ ...START, read: [2, null, null] });
  await question("Cell 2 of 3");
  expect(read).toHaveBeenCalledTimes(1);
});

test("a blind reader's page asks for pictures and nothing else about cells", async () => {
  serve(START);
  const asked = vi.spyOn(globalThis, "fetch");
  const need = vi.fn();
  useReview.setState({ need });
  const { container } = show();
  await userEvent.keyboard("3");
  await question("Cell 2 of 3");
  expect(asked).not.toHaveBeenCalled();
  expect(need).not.toHaveBeenCalled();
  expect(container.textContent).not.toContain("c2");
});

test("a round can be left at any time", async () => {
  const onLeave = vi.fn();
  show(START, onLeave);
  await userEvent.click(screen.getByText("Pause"));
  expect(onLeave).toHaveBeenCalledTimes(1);
});
