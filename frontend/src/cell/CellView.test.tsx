import { act, render, screen, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import axe from "axe-core";
import { beforeEach, expect, test, vi } from "vitest";
import { api, ServiceError } from "../api/client";
import type { CellDetail } from "../api/types";
import { useReview } from "../state/store";
import { Service } from "../testing/service";
import CellView from "./CellView";

vi.mock("./fieldViewer"); // needs a canvas, which jsdom lacks

const service = new Service([0, 1, 2]);
const fresh = useReview.getState();

const detail = (row: number): CellDetail => ({
  cell: service.cell(row),
  x_px: 12.4,
  y_px: 30,
  area_px: 900,
  area_um2: 225,
  probabilities: [
    { model: "lite0", prob: [0.02, 0.05, 0.93], n_networks: 2, held_out: true },
    { model: "lite1", prob: [0.6, 0.3, 0.1], n_networks: 1, held_out: false },
  ],
  neighbours: [{ cell: service.cell(2), distance: 0.25 }],
  neighbours_note: "",
  field: null,
  history: [
    {
      schema_version: 1,
      seq: 1,
      id: "x",
      at: "2026-11-23T12:00:00Z",
      by: "Ben",
      kind: "label",
      cell_id: "c0",
      row: 0,
      old: "normal",
      new: "pyknotic",
      seen: { model: "lite0", prob: [0.1, 0.2, 0.7] },
      undoes: null,
    },
  ],
});

const actions = {
  need: vi.fn(),
  open: vi.fn(),
  goTo: vi.fn(),
  show: vi.fn(),
  relabel: vi.fn(),
  skip: vi.fn(),
};

beforeEach(() => {
  vi.spyOn(api, "cell").mockImplementation((row) => Promise.resolve(detail(row)));
  for (const action of Object.values(actions)) action.mockReset();
  const study = { ...service.study, has_features: true };
  useReview.setState(
    { ...fresh, ...actions, study, row: 0, rows: Uint32Array.of(0, 1, 2), blind: false },
    true,
  );
});

const region = (name: string) => screen.findByRole("region", { name });

test("each model's probabilities are bars with words, the highest one set off", async () => {
  render(<CellView />);
  const said = await region("lite0 says pyknotic");
  const rows = within(said).getAllByRole("listitem");
  expect(rows.map((row) => row.textContent)).toEqual(["normal2.0 %", "intermediate5.0 %", "pyknotic93.0 %"]);
  expect(rows.map((row) => row.querySelector("rect")?.getAttribute("width"))).toEqual(["2%", "5%", "93%"]);
  expect(rows.map((row) => row.classList.contains("is-highest"))).toEqual([false, false, true]);
  expect(said.textContent).toContain("2 networks that never trained on it");
  expect((await region("lite1 says normal")).textContent).toContain("trained on this very cell");
});

test("a blind reader sees facts and history, and nothing that a model says", async () => {
  const { container } = render(<CellView />);
  expect(await screen.findByText("225 µm² (900 px)")).toBeDefined();
  act(() => {
    useReview.setState({ blind: true });
  });
  expect(container.textContent).toContain("normal → pyknotic");
  expect(container.textContent).not.toMatch(/lite|\d %|networks/);
  expect(screen.queryByText("Heat map")).toBeNull();
  expect(container.querySelector(".neighbours")).toBeNull();
});

test("where no neighbours are known yet, the service's words say why", async () => {
  const waiting = { ...detail(0), neighbours: [], neighbours_note: "They are being prepared: 35 %." };
  vi.spyOn(api, "cell").mockResolvedValue(waiting);
  render(<CellView />);
  expect(await screen.findByText("No neighbours to show. They are being prepared: 35 %.")).toBeTruthy();
});

test("what the service refuses is told in its own words", async () => {
  vi.spyOn(api, "cell").mockRejectedValue(new ServiceError(404, "There is no cell 0."));
  render(<CellView />);
  expect((await screen.findByRole("alert")).textContent).toBe("There is no cell 0.");
});

test("an answer that comes after the next cell was opened is not shown", async () => {
  let answerLate: (late: CellDetail) => void = () => undefined;
  vi.spyOn(api, "cell").mockImplementationOnce(() => new Promise((resolve) => (answerLate = resolve)));
  render(<CellView />);
  act(() => {
    useReview.setState({ row: 1 });
  });
  await region("lite0 says pyknotic");
  await act(async () => {
    answerLate(detail(0));
    await Promise.resolve();
  });
  expect(screen.getByRole("heading", { level: 2 }).textContent).toBe("c1");
  expect(screen.getByRole("region", { name: "lite0 says pyknotic" })).toBeDefined();
});

test("a heat map lies over the crop, is given back to the browser, and does not follow to the next cell", async () => {
  const create = vi.fn(() => "blob:one");
  const revoke = vi.fn();
  vi.stubGlobal("URL", Object.assign(URL, { createObjectURL: create, revokeObjectURL: revoke }));
  const explain = vi.spyOn(api, "explain").mockResolvedValue(new Blob());
  const { container } = render(<CellView />);
  await userEvent.click(await screen.findByText("Heat map"));
  await vi.waitFor(() => {
    expect(container.querySelector(".large-crop-heat")?.getAttribute("src")).toBe("blob:one");
  });
  expect(explain.mock.calls).toEqual([[0, "lite0", 2]]);
  act(() => {
    useReview.setState({ row: 1 });
  });
  await screen.findByText("c1");
  expect(revoke).toHaveBeenCalledExactlyOnceWith("blob:one");
  expect(container.querySelector(".large-crop-heat")).toBeNull();
  expect(explain).toHaveBeenCalledTimes(1);
});

test("a heat map that cannot be made says why", async () => {
  vi.spyOn(api, "explain").mockRejectedValue(new ServiceError(409, "No weights of lite0 are here."));
  render(<CellView />);
  await userEvent.click(await screen.findByText("Heat map"));
  expect(await screen.findByText("No weights of lite0 are here.")).toBeDefined();
});

test("keys set the class, skip and go to the next cell; a neighbour opens with a click", async () => {
  render(<CellView />);
  await region("lite0 says pyknotic");
  await userEvent.keyboard("3s{ArrowRight}{Escape}");
  expect(actions.relabel).toHaveBeenCalledExactlyOnceWith([0], "pyknotic");
  expect(actions.skip).toHaveBeenCalledExactlyOnceWith(0);
  expect(actions.goTo).toHaveBeenCalledExactlyOnceWith(1);
  expect(actions.show).toHaveBeenCalledExactlyOnceWith("gallery");
  await userEvent.click(screen.getByTitle("cell c2, pyknotic, distance 0.250"));
  expect(actions.open).toHaveBeenCalledExactlyOnceWith(2);
});

test("the page breaks no rule that axe knows", async () => {
  render(<CellView />);
  await region("lite0 says pyknotic");
  const rules = { "color-contrast": { enabled: false }, region: { enabled: false } }; // the shell has the landmarks
  vi.spyOn(HTMLCanvasElement.prototype, "getContext").mockReturnValue(null); // jsdom has none
  const { violations } = await axe.run(document.body, { rules });
  expect(violations.map(({ id }) => id)).toEqual([]);
});
