import { render, screen } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import axe from "axe-core";
import { beforeEach, expect, test, vi } from "vitest";
import { api, ServiceError } from "../api/client";
import type { Agreement, Round } from "../api/types";
import { useReview } from "../state/store";
import { Service } from "../testing/service";
import ReadingView from "./ReadingView";
import { axisStart, kappaWords } from "./words";

const { study } = new Service([0, 1, 2]);
const fresh = useReview.getState();
const EMPTY: Agreement = { pairs: [], fleiss: null, intra: [], notes: [] };
const kappa = (estimate: number | null, ci95: [number, number] | null = null) => ({ estimate, ci95 });
const ROUND: Round = {
  round: "r1",
  reader: "Ann",
  started: "2026-11-23T12:00:00Z",
  rows: [2, 0],
  read: [1, null],
};

beforeEach(() => {
  vi.spyOn(api, "rounds").mockResolvedValue([]);
  vi.spyOn(api, "agreement").mockResolvedValue(EMPTY);
  useReview.setState({ ...fresh, study }, true);
});

test("a round is started with as many cells as asked for", async () => {
  const start = vi.spyOn(api, "startRound").mockResolvedValue({ ...ROUND, read: [null, null] });
  render(<ReadingView />);
  const fill = async (label: string, text: string) => {
    await userEvent.clear(screen.getByLabelText(label));
    await userEvent.type(screen.getByLabelText(label), text);
  };
  await fill("Cells", "2");
  await fill("Of these, shown twice", "1");
  await fill("Seed", "7");
  await userEvent.click(screen.getByText("Start reading"));
  expect(await screen.findByText(/^Cell 1 of 2/)).toBeDefined();
  expect(start).toHaveBeenCalledExactlyOnceWith({ n_cells: 2, n_repeats: 1, seed: 7 });
});

test("a wish that cannot be fulfilled is told before it is sent, a refusal after", async () => {
  const start = vi
    .spyOn(api, "startRound")
    .mockRejectedValue(new ServiceError(409, "The folder is read-only."));
  render(<ReadingView />);
  await userEvent.click(screen.getByText("Start reading"));
  expect((await screen.findByRole("alert")).textContent).toBe("The folder is read-only.");
  await userEvent.clear(screen.getByLabelText("Cells"));
  await userEvent.type(screen.getByLabelText("Cells"), "4");
  expect(screen.getByRole("alert").textContent).toContain("between 1 and 3 cells");
  expect(screen.getByText("Start reading")).toHaveProperty("disabled", true);
  expect(start).toHaveBeenCalledTimes(1);
});

test("only the reader's own unfinished rounds can be continued, and others' progress is not shown", async () => {
  const finished: Round = { ...ROUND, round: "r2", read: [1, 1] };
  const other: Round = { ...ROUND, round: "r3", reader: "Ben" };
  vi.spyOn(api, "rounds").mockResolvedValue([ROUND, finished, other]);
  render(<ReadingView />);
  await screen.findByText("Ben");
  expect(screen.getAllByText("Continue")).toHaveLength(1);
  const [mine, , theirs] = screen.getAllByRole("listitem").map((item) => item.textContent);
  expect(mine).toContain("1 of 2 read");
  expect(theirs).toMatch(/: 2 cells$/);
});

test("agreement is told with intervals, and what cannot be said with the reason", async () => {
  vi.spyOn(api, "agreement").mockResolvedValue({
    pairs: [
      {
        a: "Ann",
        b: "Ben",
        n_cells: 60,
        observed: 0.825,
        cohen: kappa(0.712, [0.61, 0.8]),
        weighted: kappa(0.8, [0.7, 0.9]),
        per_class: [
          { class_name: "normal", kappa: kappa(0.5, [-0.1, 0.7]) },
          { class_name: "pyknotic", kappa: kappa(null) },
        ],
      },
    ],
    fleiss: { readers: ["Ann", "Ben", "Cy"], n_cells: 40, kappa: kappa(0.6, [0.5, 0.7]), per_class: [] },
    intra: [{ reader: "Ann", n_cells: 12, cohen: kappa(null), observed: 1 }],
    notes: ["Ann used one class only, so chance alone explains everything."],
  });
  render(<ReadingView />);
  const overall = await screen.findByRole("table", { name: "Over all classes" });
  const rows = [...overall.querySelectorAll("tbody tr")].map((row) =>
    [...row.children].map((cell) => cell.textContent),
  );
  expect(rows).toEqual([
    ["Ann and Ben", "60", "83 %", "Cohen", "0.71 (0.61 to 0.80)", ""],
    ["weighted", "0.80 (0.70 to 0.90)", ""],
    ["Ann, twice", "12", "100 %", "Cohen", "cannot be said", ""],
    ["all of Ann, Ben, Cy", "40", "", "Fleiss", "0.60 (0.50 to 0.70)", ""],
  ]);
  expect(screen.getByRole("table", { name: "Each class against all others" }).textContent).toContain(
    "0.50 (−0.10 to 0.70)",
  );
  expect(screen.getByText(/Ann used one class only/)).toBeDefined();
  const rules = { "color-contrast": { enabled: false }, region: { enabled: false } }; // the shell has the landmarks
  vi.spyOn(HTMLCanvasElement.prototype, "getContext").mockReturnValue(null); // jsdom has none
  const { violations } = await axe.run(document.body, { rules });
  expect(violations.map(({ id }) => id)).toEqual([]);
});

test("the dot and its interval stand where the axis says", async () => {
  const per_class = [{ class_name: "normal", kappa: kappa(0, [-0.5, 0.5]) }];
  vi.spyOn(api, "agreement").mockResolvedValue({
    ...EMPTY,
    fleiss: { readers: ["Ann", "Ben"], n_cells: 4, kappa: kappa(0.25, [0, 0.5]), per_class },
  });
  const { container } = render(<ReadingView />);
  await screen.findByText("Over all classes");
  const places = [...container.querySelectorAll(".interval")].map((plot) => [
    plot.querySelector("circle")?.getAttribute("cx"),
    plot.querySelector(".interval-range")?.getAttribute("x1"),
    plot.querySelector(".interval-range")?.getAttribute("x2"),
  ]);
  expect(places).toEqual([
    ["25%", "0%", "50%"], // an axis from 0 to 1
    ["50%", "25%", "75%"], // from -1 to 1
  ]);
});

test("without readings the page says what is missing", async () => {
  render(<ReadingView />);
  expect(await screen.findByText(/Nothing can be compared yet/)).toBeDefined();
});

test("an axis begins at 0 unless a value or an interval reaches below", () => {
  expect(axisStart([kappa(0.5, [0.1, 0.9]), kappa(null)])).toBe(0);
  expect(axisStart([kappa(0.1, [-0.2, 0.4])])).toBe(-1);
  expect(axisStart([kappa(-0.1)])).toBe(-1);
  expect(kappaWords(kappa(0.5))).toBe("0.50 (interval unknown)");
});
