import { act, render, screen, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import axe from "axe-core";
import { beforeEach, expect, test, vi } from "vitest";
import { api, ServiceError } from "../api/client";
import type { MapState } from "../api/types";
import { useReview } from "../state/store";
import { Service } from "../testing/service";
import type { Told } from "./chart";
import type { Layer } from "./layers";
import MapView from "./MapView";

const chart = vi.hoisted(() => ({
  told: null as Told | null,
  drawn: [] as Layer[],
  take: vi.fn(),
  zoom: vi.fn(),
}));

vi.mock("./chart", () => ({
  Scatter: class {
    take = chart.take;
    zoom = chart.zoom;
    constructor(_host: HTMLElement, told: Told) {
      chart.told = told;
    }
    draw = (layers: Layer[]) => (chart.drawn = layers);
    resize = () => undefined;
    destroy = () => undefined;
  },
}));

const encode = (array: { buffer: ArrayBufferLike }) =>
  btoa(String.fromCharCode(...new Uint8Array(array.buffer)));
const map = (changes: Partial<MapState>): MapState => ({
  method: "pca",
  status: "ready",
  progress: 1,
  message: "",
  features: "features of lite0",
  xy_b64: encode(Float32Array.of(0, 0, 1, 1, 2, 2, 3, 3)),
  ...changes,
});
const VALUES: Record<string, string> = {
  label: encode(Int32Array.of(0, 1, 1, 2)),
  reviewed: encode(Int32Array.of(0, 0, 0, 1)),
  confidence: encode(Float32Array.of(0.5, 0.6, 0.7, 0.8)),
};

const service = new Service([0, 1, 1, 2], { map_methods: ["pca", "umap"] });
const fresh = useReview.getState();
const actions = {
  need: vi.fn(),
  open: vi.fn(),
  show: vi.fn(),
  relabel: vi.fn(),
  say: vi.fn(),
  ask: vi.fn(),
  undo: vi.fn(),
};

beforeEach(() => {
  chart.drawn = [];
  for (const action of Object.values(actions)) action.mockReset();
  vi.spyOn(api, "map").mockImplementation(() => Promise.resolve(map({})));
  vi.spyOn(api, "column").mockImplementation((key) =>
    Promise.resolve({ key, values_b64: VALUES[key] ?? "" }),
  );
  useReview.setState({ ...fresh, ...actions, study: service.study, blind: false }, true);
});

const table = () => screen.findByRole("table", { name: /^Cells on the map by/ });
const lines = (element: HTMLElement) =>
  within(element)
    .getAllByRole("row")
    .slice(1)
    .map((row) => [...row.children].slice(0, 3).map((cell) => cell.textContent));

test("the table counts cells of each value, and selects them without a mouse", async () => {
  render(<MapView />);
  expect(lines(await table())).toEqual([
    ["normal", "1", ""],
    ["intermediate", "2", ""],
    ["pyknotic", "1", ""],
  ]);
  await userEvent.click(screen.getByRole("button", { name: "Select intermediate" }));
  expect(screen.getByRole("status").textContent).toBe("2 cells selected");
  expect(lines(await table())[1]).toEqual(["intermediate", "2", "2"]);
  expect(chart.drawn.filter((layer) => !layer.faint).map((layer) => [...layer.rows])).toEqual([[1, 2]]);
  await userEvent.click(screen.getByText("Clear the selection"));
  expect(screen.getByText("No cell is selected.")).toBeDefined();
});

test("a stroke of the brush selects what is drawn, not what is hidden", async () => {
  render(<MapView />);
  await table();
  await userEvent.click(screen.getByLabelText("Draw pyknotic"));
  act(() => chart.told?.onArea({ kind: "rectangle", x: [0.5, 9], y: [0.5, 9] }));
  expect(screen.getByRole("status").textContent).toBe("2 cells selected");
  expect(actions.say).toHaveBeenLastCalledWith("2 cells selected.");
  act(() => chart.told?.onArea({ kind: "rectangle", x: [7, 9], y: [7, 9] }));
  expect(actions.say).toHaveBeenLastCalledWith("No cell lies there.");
});

test("the cell under the mouse is shown, those passed over are not fetched; a click opens one", async () => {
  const { container } = render(<MapView />);
  await table();
  const crop = () => container.querySelector(".plot-pointed")?.getAttribute("src");
  act(() => chart.told?.onPoint(1));
  act(() => chart.told?.onPoint(3));
  expect(crop()).toBeUndefined();
  await vi.waitFor(() => {
    expect(crop()).toBe("/crops/abc123/3.png");
  });
  act(() => chart.told?.onPoint(null));
  expect(crop()).toBeUndefined();
  chart.told?.onPick(3);
  expect(actions.open).toHaveBeenCalledExactlyOnceWith(3);
});

test("a selection is shown in the gallery, whatever was filtered there before", async () => {
  render(<MapView />);
  await table();
  await userEvent.click(screen.getByRole("button", { name: "Select intermediate" }));
  await userEvent.click(screen.getByText("Show in the gallery"));
  expect(actions.show).toHaveBeenCalledExactlyOnceWith("gallery");
  expect(actions.ask).toHaveBeenCalledExactlyOnceWith({ within: [1, 2], filters: [], text: "" });
});

test("many labels at once are set only after a question", async () => {
  render(<MapView />);
  await table();
  await userEvent.click(screen.getByRole("button", { name: "Select intermediate" }));
  await userEvent.click(screen.getByText("pyknotic …"));
  const dialog = screen.getByRole("dialog", { name: "Set the class of 2 cells?" });
  await userEvent.click(within(dialog).getByText("Leave them as they are"));
  expect(actions.relabel).not.toHaveBeenCalled();
  await userEvent.click(screen.getByText("pyknotic …"));
  await userEvent.click(screen.getByText("Set 2 to pyknotic"));
  expect(actions.relabel).toHaveBeenCalledExactlyOnceWith([1, 2], "pyknotic");
  expect(screen.queryByRole("dialog")).toBeNull();
  await userEvent.keyboard("u");
  expect(actions.undo).toHaveBeenCalledTimes(1);
});

test("another column colours the map anew and keeps the selection", async () => {
  render(<MapView />);
  await table();
  await userEvent.click(screen.getByRole("button", { name: "Select intermediate" }));
  await userEvent.selectOptions(screen.getByLabelText(/Colour by/), "reviewed");
  expect(await screen.findByLabelText("Draw yes")).toBeDefined();
  expect(lines(await table())).toEqual([
    ["no", "3", "2"],
    ["yes", "1", "0"],
  ]);
});

test("a blind reader cannot colour the map by what a model says", async () => {
  render(<MapView />);
  await table();
  await userEvent.selectOptions(screen.getByLabelText(/Colour by/), "confidence");
  await screen.findByLabelText("Draw 0.5 to 0.6");
  act(() => {
    useReview.setState({ blind: true });
  });
  expect(screen.queryByRole("option", { name: "confidence" })).toBeNull();
  expect(await screen.findByLabelText("Draw normal")).toBeDefined();
});

test("labels that change are fetched again", async () => {
  render(<MapView />);
  await table();
  vi.spyOn(api, "column").mockResolvedValue({ key: "label", values_b64: encode(Int32Array.of(2, 2, 2, 2)) });
  act(() => {
    useReview.setState({ revision: 1 });
  });
  await vi.waitFor(async () => {
    expect(lines(await table())).toEqual([["pyknotic", "4", ""]]);
  });
});

test("a map that is not there is started and followed until it is", async () => {
  const ask = vi
    .spyOn(api, "map")
    .mockResolvedValueOnce(map({ status: "absent" }))
    .mockResolvedValue(map({}));
  const start = vi
    .spyOn(api, "startMap")
    .mockResolvedValue(map({ status: "working", progress: 0.25, message: "UMAP of 4 cells" }));
  render(<MapView />);
  expect(await screen.findByText("UMAP of 4 cells")).toBeDefined();
  expect(screen.getByRole("progressbar")).toHaveProperty("value", 0.25);
  expect(await screen.findByRole("table", undefined, { timeout: 3000 })).toBeDefined();
  expect(start).toHaveBeenCalledExactlyOnceWith("pca");
  expect(ask).toHaveBeenCalledTimes(2);
});

test("a map that failed says why and can be tried again", async () => {
  vi.spyOn(api, "map").mockResolvedValue(map({ status: "failed", message: "Too few cells for UMAP." }));
  const start = vi.spyOn(api, "startMap").mockResolvedValue(map({ status: "working" }));
  render(<MapView />);
  expect((await screen.findByRole("alert")).textContent).toContain("Too few cells for UMAP.");
  await userEvent.click(screen.getByText("Try again"));
  expect(start).toHaveBeenCalledTimes(1);
});

test("a column that cannot be read says why", async () => {
  vi.spyOn(api, "column").mockRejectedValue(new ServiceError(404, "No column is called label."));
  render(<MapView />);
  expect(await screen.findByText("No column is called label.")).toBeDefined();
});

test("the page breaks no rule that axe knows", async () => {
  render(<MapView />);
  await userEvent.click(within(await table()).getByRole("button", { name: "Select normal" }));
  const rules = { "color-contrast": { enabled: false }, region: { enabled: false } }; // the shell has the landmarks
  vi.spyOn(HTMLCanvasElement.prototype, "getContext").mockReturnValue(null); // jsdom has none
  const { violations } = await axe.run(document.body, { rules });
  expect(violations.map(({ id }) => id)).toEqual([]);
});
