import { act, render, screen, waitFor } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { beforeEach, expect, test, vi } from "vitest";
import { api, ServiceError } from "../api/client";
import type { Field } from "../api/types";
import { useReview } from "../state/store";
import { Service } from "../testing/service";
import { FieldPlace } from "./FieldPlace";
import type { Told } from "./fieldViewer";
import type { Outlines } from "./outlines";

const viewer = vi.hoisted(() => ({
  told: null as Told | null,
  outlines: null as Outlines | null,
  lookAt: vi.fn(),
  move: vi.fn(),
  destroy: vi.fn(),
}));

vi.mock("./fieldViewer", () => ({
  FieldViewer: class {
    lookAt = viewer.lookAt;
    move = viewer.move;
    destroy = viewer.destroy;
    constructor(_host: HTMLElement, _field: Field, outlines: Outlines, told: Told) {
      viewer.told = told;
      viewer.outlines = outlines;
    }
    describe = () => undefined;
  },
}));

const service = new Service([0, 1, 2]);
const fresh = useReview.getState();
const open = vi.fn();
const FIELD: Field = {
  field: 3,
  image_id: "a1",
  width: 100,
  height: 100,
  tile_px: 256,
  n_levels: 1,
  min_level: 0,
  um_per_px: null,
  cells: [0, 1, 2].map((row) => ({ row, label: row, path: `M${row} 0L9 9Z` })),
};

beforeEach(() => {
  viewer.told = viewer.outlines = null;
  for (const mock of [open, viewer.lookAt, viewer.move, viewer.destroy]) mock.mockReset();
  vi.spyOn(api, "field").mockResolvedValue(FIELD);
  useReview.setState({ ...fresh, open, study: service.study, cells: new Map() }, true);
});

const show = () => render(<FieldPlace study={service.study} field={3} row={0} />);

/** The viewer is made in an effect, which may run after the first words are on the page. */
const drawn = async () => {
  await screen.findByText(/this cell/);
  await waitFor(() => {
    expect(viewer.told).not.toBeNull();
  });
};

test("outlines are gone through without a mouse, named, and opened", async () => {
  show();
  expect(await screen.findByText("Outline 1 of 3: normal, this cell")).toBeDefined();
  expect(screen.queryByText("Open it")).toBeNull();
  await userEvent.click(screen.getByText("‹ Outline before"));
  expect(screen.getByText("Outline 3 of 3: pyknotic")).toBeDefined();
  expect(viewer.lookAt).toHaveBeenLastCalledWith(2, false);
  await userEvent.click(screen.getByText("Open it"));
  expect(open).toHaveBeenCalledExactlyOnceWith(2);
});

test("the outline under the mouse is named, and a click on it opens its cell", async () => {
  show();
  await drawn();
  act(() => viewer.told?.onPoint(1));
  expect(screen.getByText("Outline 2 of 3: intermediate")).toBeDefined();
  expect(viewer.outlines?.element.querySelector(".is-pointed")?.getAttribute("data-row")).toBe("1");
  viewer.told?.onOpen(1);
  expect(open).toHaveBeenCalledExactlyOnceWith(1);
});

test("an outline takes the colour of a class that was set since the image was fetched", async () => {
  show();
  await drawn();
  act(() => {
    useReview.setState({ cells: new Map([[1, { ...service.cell(1), label: 2 }]]) });
  });
  const stroke = viewer.outlines?.element.querySelector('[data-row="1"]')?.getAttribute("stroke");
  expect(stroke).toBe(service.study.class_colours[2]);
});

test("buttons move the image, and the viewer goes with its place on the page", async () => {
  const { unmount } = show();
  await userEvent.click(await screen.findByText("Zoom in"));
  await userEvent.click(screen.getByText("This cell"));
  expect(viewer.move).toHaveBeenCalledExactlyOnceWith("in");
  expect(viewer.lookAt).toHaveBeenLastCalledWith(0, false);
  unmount();
  expect(viewer.destroy).toHaveBeenCalledTimes(1);
});

test("an image that cannot be read says why", async () => {
  vi.spyOn(api, "field").mockRejectedValue(new ServiceError(404, "The image a1 has been moved."));
  show();
  expect(await screen.findByText("The image a1 has been moved.")).toBeDefined();
});
