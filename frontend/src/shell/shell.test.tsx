import { act, render, screen, waitFor } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { beforeEach, describe, expect, it, vi } from "vitest";
import { useReview } from "../state/store";
import { Service } from "../testing/service";
import { Banners } from "./Banners";
import { Header } from "./Header";
import { applyTheme } from "./theme";

const user = userEvent.setup({ delay: null });
const beginning = useReview.getInitialState();
let service: Service;

beforeEach(async () => {
  service = new Service([0, 1, 2]);
  vi.stubGlobal("fetch", service.fetch);
  useReview.setState(beginning, true);
  render(
    <>
      <Header />
      <Banners />
    </>,
  );
  await act(() => useReview.getState().start());
});

describe("the header", () => {
  it("leads to the views and keeps what was asked", async () => {
    await act(() => useReview.getState().ask({ text: "a1" }));
    const map = screen.getByRole("link", { name: "Map" });
    expect(map.getAttribute("href")).toBe("#/map?text=a1");
    await user.click(map);
    expect(useReview.getState().view).toBe("map");
    expect(window.location.hash).toBe("#/map?text=a1");
    expect(map.getAttribute("aria-current")).toBe("page");
  });

  it("renames the reader, and says what the service has against a name", async () => {
    await user.click(screen.getByRole("button", { name: "More" }));
    const name = screen.getByRole("textbox", { name: "Your name in the log" });
    await user.clear(name);
    await user.type(name, "Nobody{Enter}");
    await screen.findByText("Nobody is no name.");
    await user.clear(name);
    await user.type(name, "Ben{Enter}");
    await waitFor(() => {
      expect(useReview.getState().study?.reader).toBe("Ben");
    });
    expect(screen.queryByText("Nobody is no name.")).toBeNull();
  });

  it("shows the page light or dark, and keeps that", async () => {
    await user.click(screen.getByRole("button", { name: "More" }));
    await user.click(screen.getByRole("button", { name: "Dark" }));
    expect(document.documentElement.dataset["theme"]).toBe("dark");
    delete document.documentElement.dataset["theme"];
    applyTheme();
    expect(document.documentElement.dataset["theme"]).toBe("dark");
    await user.click(screen.getByRole("button", { name: "As the system" }));
    expect(document.documentElement.dataset["theme"]).toBeUndefined();
  });
});

describe("banners", () => {
  it("say that the service is away, until it is back", async () => {
    service.away = true;
    await act(() => useReview.getState().sync());
    expect(screen.getByRole("alert").textContent).toMatch(/does not answer/);
    service.away = false;
    await user.click(screen.getByRole("button", { name: "Try now" }));
    expect(screen.queryByRole("alert")).toBeNull();
  });

  it("tell of conflicts and lead to the cell", async () => {
    await act(async () => {
      useReview.getState().need([1]);
      await vi.waitFor(() => {
        expect(useReview.getState().cells.size).toBe(1);
      });
    });
    service.labelAs("Ben", 1, "pyknotic");
    useReview.getState().relabel([1], "normal");
    await act(() => useReview.getState().sync());
    expect(screen.getByText(/Ben had set it to pyknotic/)).toBeTruthy();
    await user.click(screen.getByRole("button", { name: "See cell" }));
    expect(useReview.getState()).toMatchObject({ view: "cell", row: 1 });
    await user.click(screen.getByRole("button", { name: "Dismiss" }));
    expect(screen.queryByText(/Ben had/)).toBeNull();
  });
});
