import { act, configure, render, screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import axe from "axe-core";
import { beforeEach, describe, expect, it, vi } from "vitest";
import { Header } from "../shell/Header";
import { useReview } from "../state/store";
import { Service } from "../testing/service";
import { StatusLine } from "../ui/StatusLine";
import GalleryView from "./GalleryView";

configure({ defaultHidden: true }); // nothing is hidden here, and looking whether it is takes long
const user = userEvent.setup({ delay: null });
const beginning = useReview.getInitialState();
let service: Service;

beforeEach(() => {
  service = new Service(Array.from({ length: 500 }, (_, row) => row % 3));
  vi.stubGlobal("fetch", service.fetch);
  // jsdom lays nothing out: a screen of 5 columns and 2 rows
  vi.spyOn(HTMLElement.prototype, "clientWidth", "get").mockReturnValue(560);
  vi.spyOn(HTMLElement.prototype, "clientHeight", "get").mockReturnValue(280);
  useReview.setState(beginning, true);
});

async function openGallery(): Promise<void> {
  render(
    <>
      <Header />
      <main>
        <GalleryView />
        <StatusLine />
      </main>
    </>,
  );
  await act(() => useReview.getState().start());
  await screen.findByRole("gridcell", { name: /^cell c0,/ });
}

function here(): HTMLElement {
  const [cell, ...others] = document.querySelectorAll<HTMLElement>("[role=gridcell][aria-selected=true]");
  if (!cell || others.length > 0) throw new Error("not one cell is chosen");
  return cell;
}

const nameOf = (cell: HTMLElement) => cell.querySelector("img")?.alt;
const press = async (keys: string) => {
  await user.keyboard(keys);
};

describe("the gallery", () => {
  it("is a grid of which only what can be seen is there", async () => {
    await openGallery();
    const grid = screen.getByRole("grid", { name: "Cells" });
    expect(grid.getAttribute("aria-rowcount")).toBe("100");
    expect(grid.getAttribute("aria-colcount")).toBe("5");
    expect(within(grid).getAllByRole("gridcell").length).toBeLessThan(60);
    expect(service.asked.filter((path) => path === "/api/cells")).toHaveLength(1);
  });

  it("says of each cell its label and what the model says", async () => {
    await openGallery();
    expect(nameOf(here())).toBe("cell c0, normal, lite0 says pyknotic, 93 %");
    expect(screen.getByRole("gridcell", { name: "cell c2, pyknotic, 93 % lite0" })).toBeTruthy();
  });

  it("has one cell that Tab reaches, which the arrows move", async () => {
    await openGallery();
    await press("{ArrowRight}{ArrowDown}");
    expect(here().dataset["place"]).toBe("6");
    await waitFor(() => {
      expect(document.activeElement).toBe(here());
    });
    const reachable = screen.getAllByRole("gridcell").filter((cell) => cell.tabIndex === 0);
    expect(reachable).toEqual([here()]);
  });

  it("sets classes by keys, steps on, skips and undoes", async () => {
    await openGallery();
    await press("2s30");
    await waitFor(() => {
      expect(service.log.map((entry) => [entry.kind, entry.row, entry.new])).toEqual([
        ["label", 0, "intermediate"],
        ["skip", 1, "intermediate"],
        ["label", 2, "pyknotic"],
        ["label", 3, null],
      ]);
    });
    expect(here().dataset["place"]).toBe("4");
    await press("u");
    expect(here().dataset["place"]).toBe("3");
    expect(screen.getByRole("status").textContent).toMatch(/Undone: normal again/);
    await waitFor(() => {
      expect(screen.getByRole("gridcell", { name: /^cell c0, intermediate, reviewed/ })).toBeTruthy();
    });
  });

  it("shows counts and progress, clicks at once", async () => {
    await openGallery();
    const counts = screen.getByRole("list", { name: "Cells of each class" });
    expect(counts.textContent).toBe("1normal1672intermediate1673pyknotic166");
    await press("3");
    expect(counts.textContent).toBe("1normal1662intermediate1673pyknotic167");
    expect(screen.getByRole("progressbar").getAttribute("value")).toBe("1");
  });

  it("opens a cell by Enter and a double click", async () => {
    await openGallery();
    await press("{ArrowRight}{Enter}");
    expect(useReview.getState()).toMatchObject({ view: "cell", row: 1 });
    act(() => {
      useReview.getState().show("gallery");
    });
    await user.dblClick(screen.getByRole("gridcell", { name: /^cell c7,/ }));
    expect(useReview.getState()).toMatchObject({ view: "cell", row: 7 });
  });

  it("hides models and columns that tell of them from a blind reader", async () => {
    await openGallery();
    await press("b");
    expect(nameOf(here())).toBe("cell c0, normal");
    expect(screen.queryByText("93 %")).toBeNull();
    expect(screen.queryByRole("option", { name: "confidence" })).toBeNull();
    expect(screen.queryByText("Unsure")).toBeNull();
  });

  it("shows outlines by a key", async () => {
    await openGallery();
    expect(here().querySelector("img")?.getAttribute("src")).toBe("/crops/abc123/0.png");
    await press("o");
    expect(here().querySelector("img")?.getAttribute("src")).toBe("/crops/abc123/0.png?outline=1");
  });

  it("leaves keys to a field that is typed in, which / reaches", async () => {
    await openGallery();
    await press("/");
    expect(document.activeElement).toBe(screen.getByRole("searchbox", { name: /Cell, image/ }));
    await press("12s");
    await waitFor(() => {
      expect(service.query?.text).toBe("12s");
    });
    expect(service.log).toEqual([]);
  });

  it("filters by ticks and keeps them in the address", async () => {
    await openGallery();
    await user.click(screen.getByRole("checkbox", { name: "pyknotic" }));
    await waitFor(() => {
      expect(screen.getByText("166", { selector: ".toolbar-n *" })).toBeTruthy();
    });
    expect(window.location.hash).toBe("#/gallery?in.label=pyknotic");
    await user.click(screen.getByRole("button", { name: "Remove the filter label: pyknotic" }));
    await waitFor(() => {
      expect(useReview.getState().rows).toHaveLength(500);
    });
  });

  it("filters numbers when the field is left", async () => {
    await openGallery();
    const bounds = screen.getByRole("group", { name: "confidence" });
    await user.type(within(bounds).getByLabelText("from"), "0.5{Enter}");
    expect(service.query?.filters).toEqual([{ column: "confidence", min: 0.5, max: null }]);
  });

  it("has the review queue one click away, and both ends of an order", async () => {
    await openGallery();
    await user.click(screen.getByRole("button", { name: "Review queue" }));
    expect(service.query?.sort).toEqual([{ column: "queue", descending: false }]);
    await user.click(screen.getByRole("button", { name: /Smallest first/ }));
    expect(service.query?.sort).toEqual([{ column: "queue", descending: true }]);
  });

  it("tells of its keys", async () => {
    await openGallery();
    await press("?");
    expect(screen.getByRole("dialog", { name: "Keys" })).toBeTruthy();
    await press("1");
    expect(service.log).toEqual([]);
  });

  it("breaks no rule that axe knows", async () => {
    await openGallery();
    const rules = { "color-contrast": { enabled: false } }; // needs a browser, as does the next line
    vi.spyOn(HTMLCanvasElement.prototype, "getContext").mockReturnValue(null);
    const { violations } = await axe.run(document.body, { rules });
    expect(violations.map(({ id, nodes }) => [id, nodes[0]?.html])).toEqual([]);
  });
});
