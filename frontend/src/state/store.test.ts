import { beforeEach, describe, expect, it, vi } from "vitest";
import { Service } from "../testing/service";
import { createReview } from "./store";

type Store = ReturnType<typeof createReview>;

let service: Service;

beforeEach(() => {
  service = new Service([0, 0, 1, 1, 2, -1]);
  vi.stubGlobal("fetch", service.fetch);
});

async function openPage(): Promise<Store> {
  const page = createReview();
  await page.getState().start();
  await page.getState().sync();
  page.getState().need([0, 1, 2, 3, 4, 5]);
  await vi.waitFor(() => {
    expect(page.getState().cells.size).toBe(6);
  });
  return page;
}

const label = (page: Store, row: number) => page.getState().cells.get(row)?.label;
const kept = () => Object.keys(localStorage).filter((key) => key.includes(":click:")).length;

describe("a click", () => {
  it("is shown at once, steps on, and is written with who saw what", async () => {
    const page = await openPage();
    page.getState().relabel([0], "pyknotic");
    expect(label(page, 0)).toBe(2);
    expect(page.getState()).toMatchObject({
      place: 1,
      nPending: 1,
      nReviewed: 1,
      counts: [1, 2, 2, 1],
      stale: true,
    });
    await page.getState().sync();
    expect(page.getState()).toMatchObject({ nPending: 0, nReviewed: 1, counts: [1, 2, 2, 1] });
    expect(service.log).toMatchObject([
      {
        row: 0,
        old: "normal",
        new: "pyknotic",
        by: "Ann",
        seen: { model: "lite0", prob: [0.02, 0.05, 0.93] },
      },
    ]);
    expect(kept()).toBe(0);
  });

  it("of a blind reader says that no model was seen", async () => {
    const page = await openPage();
    page.getState().setBlind(true);
    page.getState().relabel([0], "pyknotic");
    await page.getState().sync();
    expect(service.log[0]?.seen).toBeNull();
  });

  it("takes a label away and gives the first one", async () => {
    const page = await openPage();
    page.getState().relabel([0], null);
    page.getState().relabel([5], "normal");
    await page.getState().sync();
    expect(service.log.map((entry) => [entry.old, entry.new])).toEqual([
      ["normal", null],
      [null, "normal"],
    ]);
    expect(page.getState().counts).toEqual([2, 2, 1, 1]);
  });

  it("on the last cell stays there and says so", async () => {
    const page = await openPage();
    page.getState().goTo(99);
    expect(page.getState().place).toBe(5);
    page.getState().relabel([5], "normal");
    expect(page.getState().place).toBe(5);
    expect(page.getState().said).toMatch(/last cell/);
  });

  it("that the service refuses is taken back and told, and those behind it are written", async () => {
    const page = await openPage();
    service.refuses = (item) => item.row === 1;
    page.getState().relabel([0], "pyknotic");
    page.getState().relabel([1], "pyknotic");
    page.getState().relabel([2], "pyknotic");
    await page.getState().sync();
    expect(service.log.map((entry) => entry.row)).toEqual([0, 2]);
    expect(label(page, 1)).toBe(0);
    expect(page.getState().nPending).toBe(0);
    expect(page.getState().said).toMatch(/refused: No such class/);
  });

  it("on many cells, some not fetched yet, changes all of them", async () => {
    const page = createReview();
    await page.getState().start();
    page.getState().relabel([1, 3, 5], "pyknotic");
    await vi.waitFor(() => {
      expect(page.getState().nReviewed).toBe(3);
    });
    await page.getState().sync();
    expect(service.log.map((entry) => [entry.row, entry.old])).toEqual([
      [1, "normal"],
      [3, "intermediate"],
      [5, null],
    ]);
    page.getState().undo();
    await page.getState().sync();
    expect(page.getState().counts).toEqual([2, 2, 1, 1]);
  });

  it("that skips leaves the label and steps on", async () => {
    const page = await openPage();
    page.getState().skip(0);
    await page.getState().sync();
    expect(service.log).toMatchObject([{ kind: "skip", old: "normal", new: "normal" }]);
    expect(page.getState()).toMatchObject({ place: 1, nReviewed: 0, counts: [2, 2, 1, 1] });
  });
});

describe("undo", () => {
  it("takes back the last click, goes to its cell and leaves earlier ones", async () => {
    const page = await openPage();
    page.getState().relabel([0], "pyknotic");
    page.getState().relabel([1], "pyknotic");
    page.getState().undo();
    expect([label(page, 0), label(page, 1)]).toEqual([2, 0]);
    expect(page.getState()).toMatchObject({ place: 1, nReviewed: 1 });
    await page.getState().sync();
    expect(service.log.at(-1)).toMatchObject({ kind: "undo", row: 1, undoes: service.log[1]?.id });
    expect([label(page, 0), label(page, 1)]).toEqual([2, 0]);
    expect(page.getState()).toMatchObject({ nReviewed: 1, counts: [1, 2, 2, 1] });
  });

  it("reaches back over a reload to one's own clicks only", async () => {
    const before = await openPage();
    before.getState().relabel([0], "pyknotic");
    before.getState().relabel([1], "pyknotic");
    before.getState().undo();
    await before.getState().sync();
    service.labelAs("Ben", 2, "pyknotic");
    const after = await openPage();
    after.getState().undo();
    await after.getState().sync();
    expect(service.log.at(-1)).toMatchObject({ kind: "undo", row: 0, undoes: service.log[0]?.id });
    after.getState().undo();
    expect(after.getState().said).toMatch(/Nothing of yours/);
    expect(service.label(2)).toBe(2);
  });

  it("says so when there is nothing", async () => {
    const page = await openPage();
    page.getState().undo();
    expect(page.getState().said).toMatch(/Nothing/);
    expect(service.log).toEqual([]);
  });
});

describe("a service that is away", () => {
  it("gets all clicks in their order when it is back", async () => {
    const page = await openPage();
    service.away = true;
    page.getState().relabel([0], "pyknotic");
    page.getState().relabel([1], "intermediate");
    page.getState().undo();
    await page.getState().sync();
    expect(page.getState().lost).toMatch(/does not answer/);
    expect(page.getState()).toMatchObject({ nPending: 3, nReviewed: 1, counts: [1, 2, 2, 1] });
    service.away = false;
    await page.getState().sync();
    expect(service.log.map((entry) => [entry.kind, entry.row])).toEqual([
      ["label", 0],
      ["label", 1],
      ["undo", 1],
    ]);
    expect(page.getState()).toMatchObject({ lost: null, nPending: 0, nReviewed: 1, counts: [1, 2, 2, 1] });
  });

  it("gets clicks from before a reload, which can be undone too", async () => {
    const before = await openPage();
    service.away = true;
    before.getState().relabel([0], "pyknotic");
    await before.getState().sync();
    service.away = false;
    const after = await openPage();
    expect(service.log).toHaveLength(1);
    expect(label(after, 0)).toBe(2);
    after.getState().undo();
    await after.getState().sync();
    expect(service.label(0)).toBe(0);
  });

  it("that wrote a click but could not say so does not get it twice", async () => {
    const page = await openPage();
    service.losesAnswers = true;
    page.getState().relabel([0], "pyknotic");
    await page.getState().sync();
    expect(page.getState().nPending).toBe(1);
    service.losesAnswers = false;
    await page.getState().sync();
    expect(service.log).toHaveLength(1);
    expect(page.getState()).toMatchObject({ nPending: 0, nReviewed: 1 });
  });

  it("keeps clicks in memory where the browser keeps nothing, and says so", async () => {
    const page = await openPage();
    service.away = true;
    vi.spyOn(Storage.prototype, "setItem").mockImplementation(() => {
      throw new DOMException("full", "QuotaExceededError");
    });
    page.getState().relabel([0], "pyknotic");
    await page.getState().sync();
    service.away = false;
    await page.getState().sync();
    expect(service.log).toHaveLength(1);
  });

  it("keeps clicks of one study apart from those of another", async () => {
    const page = await openPage();
    service.away = true;
    page.getState().relabel([0], "pyknotic");
    await page.getState().sync();
    const other = new Service([0, 0, 0, 0, 0, 0], { data_hash: "other" });
    vi.stubGlobal("fetch", other.fetch);
    await openPage();
    expect(other.log).toEqual([]);
    expect(kept()).toBe(1);
  });
});

describe("others", () => {
  it("are shown with the next sync and told", async () => {
    const page = await openPage();
    service.labelAs("Ben", 3, "normal");
    await page.getState().sync();
    expect(label(page, 3)).toBe(0);
    expect(page.getState()).toMatchObject({ nReviewed: 1, counts: [3, 1, 1, 1], stale: true });
    expect(page.getState().said).toMatch(/Ben: 1 cell/);
  });

  it("that changed the same cell meanwhile are a conflict, and both clicks stay in the log", async () => {
    const page = await openPage();
    service.labelAs("Ben", 0, "intermediate");
    page.getState().relabel([0], "pyknotic");
    await page.getState().sync();
    expect(page.getState().conflicts).toMatchObject([{ row: 0 }]);
    expect(page.getState().conflicts[0]?.words).toMatch(
      /Ben had set it to intermediate; your "pyknotic" stands/,
    );
    expect(service.log).toHaveLength(2);
    expect(label(page, 0)).toBe(2);
    page.getState().dismissConflicts();
    expect(page.getState().conflicts).toEqual([]);
  });
});

describe("two tabs of one browser", () => {
  it("lose no click and double none", async () => {
    const [one, two] = [await openPage(), await openPage()];
    service.away = true;
    one.getState().relabel([0], "pyknotic");
    two.getState().relabel([1], "pyknotic");
    one.getState().relabel([2], "pyknotic");
    await Promise.all([one.getState().sync(), two.getState().sync()]);
    expect(kept()).toBe(3);
    service.away = false;
    await Promise.all([one.getState().sync(), two.getState().sync()]);
    await Promise.all([one.getState().sync(), two.getState().sync()]);
    expect(service.log.map((entry) => entry.row)).toEqual([0, 1, 2]);
    for (const page of [one, two]) {
      expect([0, 1, 2].map((row) => label(page, row))).toEqual([2, 2, 2]);
      expect(page.getState()).toMatchObject({ nPending: 0, nReviewed: 3 });
    }
  });
});

describe("the question", () => {
  it("lives in the address, so that a reload asks it again", async () => {
    const page = await openPage();
    await page.getState().ask({ filters: [{ column: "label", values: ["normal"] }] });
    expect([...page.getState().rows]).toEqual([0, 1]);
    expect(window.location.hash).toBe("#/gallery?in.label=normal");
    const after = createReview();
    await after.getState().start();
    expect([...after.getState().rows]).toEqual([0, 1]);
  });

  it("shows at once, and only the last one asked is answered", async () => {
    const page = await openPage();
    const first = page.getState().ask({ filters: [{ column: "label", values: ["normal"] }] });
    expect(page.getState().query.filters).toHaveLength(1);
    const second = page.getState().ask({ filters: [{ column: "label", values: ["pyknotic"] }] });
    await Promise.all([first, second]);
    expect([...page.getState().rows]).toEqual([4]);
  });

  it("that the service refuses leaves the list as it was", async () => {
    const page = await openPage();
    await page.getState().ask({ filters: [{ column: "nonsense", values: ["a"] }] });
    expect(page.getState().query.filters).toEqual([]);
    expect(page.getState().rows).toHaveLength(6);
    expect(page.getState().said).toMatch(/no column/);
  });

  it("of an address that asks for a column of another study is dropped and told", async () => {
    window.history.replaceState(null, "", "#/gallery?in.nonsense=a");
    const page = await openPage();
    expect(page.getState().rows).toHaveLength(6);
    expect(page.getState().trouble).toBeNull();
  });

  it("asked again stays at the cell where it is still there", async () => {
    const page = await openPage();
    await page.getState().ask({ filters: [{ column: "label", values: ["normal", "intermediate"] }] });
    page.getState().goTo(3);
    page.getState().relabel([0], "pyknotic");
    expect([...page.getState().rows]).toEqual([0, 1, 2, 3]);
    await page.getState().sync();
    await page.getState().refresh();
    expect([...page.getState().rows]).toEqual([1, 2, 3]);
    expect(page.getState()).toMatchObject({ place: 2, stale: false });
  });

  it("keeps a selection of the map over a reload", async () => {
    const page = await openPage();
    await page.getState().ask({ within: [4, 2] });
    const after = createReview();
    await after.getState().start();
    expect(service.query?.within).toEqual([4, 2]);
  });
});

describe("views", () => {
  it("follow the address, back and forth", async () => {
    const page = await openPage();
    page.getState().open(3);
    expect(page.getState()).toMatchObject({ view: "cell", row: 3, place: 3 });
    expect(window.location.hash).toBe("#/cell/3");
    page.getState().goTo(4);
    expect(page.getState().row).toBe(4);
    page.getState().show("gallery");
    expect(page.getState()).toMatchObject({ view: "gallery", place: 4 });
    window.history.replaceState(null, "", "#/map");
    page.getState().follow();
    expect(page.getState().view).toBe("map");
  });

  it("of a cell that the study does not have are the gallery", async () => {
    window.history.replaceState(null, "", "#/cell/6");
    const page = await openPage();
    expect(page.getState()).toMatchObject({ view: "gallery", row: null });
    window.history.replaceState(null, "", "#/cell/5");
    page.getState().follow();
    expect(page.getState()).toMatchObject({ view: "cell", row: 5, place: 5 });
  });

  it("of a study that cannot be opened say why", async () => {
    service.away = true;
    const page = createReview();
    await page.getState().start();
    expect(page.getState().trouble).toMatch(/does not answer/);
  });
});
