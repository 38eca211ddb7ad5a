"""The page of ``perikarya review`` on a large study: first paint, frames while scrolling, labelling, memory.

    python benchmarks/review_page.py [--quick] [--cells 100000] [--study DIR] [--browser-width 1280]

Makes a study of that many painted cells (or takes one, which is written into: its cache), serves it as a person would,
and drives a headless Chromium (``PERIKARYA_BROWSER`` names another). Frame times are the distances between callbacks of
``requestAnimationFrame`` in the page; without a graphics card Chromium draws on the processor, so they are those of a
poor machine. Memory is the resident size of the service and its helpers together, mapped files included, sampled ten
times a second. Prints a table and, as its last line, one JSON object.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import psutil
from playwright.sync_api import Page, sync_playwright

from _common import parse_arguments, print_json, print_table
from perikarya.data.store import CropWriter, save_tables
from perikarya.report.pdf import find_browser
from perikarya.schema import Study

CLASSES = ("normal", "intermediate", "pyknotic")
WINDOW_PX = 80
SCROLL_S = 10.0
N_LABELS = 100

# frames while something happens: distances in ms between callbacks, until the promise `work` is kept
FRAMES = """async ([way, seconds]) => {
  const scroller = document.querySelector(".grid-scroller"), frames = [];
  const end = performance.now() + 1000 * seconds;
  let last = performance.now(), going = true, step = 0;
  await new Promise(done => requestAnimationFrame(function tick(now) {
    frames.push(now - last); last = now; step += 1;
    if (way === "wheel") scroller.scrollTop += 40;
    if (way === "fling") scroller.scrollTop += 2000;
    if (way === "jump" && step % 30 === 0) scroller.scrollTop = Math.random() * scroller.scrollHeight;
    if (performance.now() < end) requestAnimationFrame(tick); else done();
  }));
  return frames.slice(2);
}"""
# from the key to the second frame after it, when what it changed is on the screen
KEYS = """async n => {
  const times = [];
  for (let i = 0; i < n; i++) {
    const start = performance.now();
    const target = document.activeElement ?? document.body;
    target.dispatchEvent(new KeyboardEvent("keydown", { key: String(1 + i % 3), bubbles: true, cancelable: true }));
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    times.push(performance.now() - start);
  }
  return times;
}"""
PAINTED = """() => performance.getEntriesByType("paint").find(e => e.name === "first-contentful-paint")?.startTime"""
CELLS_SHOWN = """() => { const all = [...document.querySelectorAll('[role="gridcell"] img')];
  const seen = all.filter(e => { const b = e.getBoundingClientRect(); return b.bottom > 0 && b.top < innerHeight; });
  return seen.length > 0 && seen.every(e => e.complete && e.naturalWidth > 0) ? performance.now() : null; }"""


def make_study(root: Path, n_cells: int) -> None:
    """Write a study of discs and ellipses on noise, every cell a picture of its own."""
    rng = np.random.default_rng(0)
    noise = rng.integers(170, 230, (4096, WINDOW_PX, 3), np.uint8)
    root.mkdir(parents=True)
    with CropWriter(root / "crops.npy", n_cells=n_cells, window_px=WINDOW_PX) as writer:
        for i in range(n_cells):
            crop = np.zeros((WINDOW_PX, WINDOW_PX, 4), np.uint8)
            crop[..., :3] = np.roll(noise[i % 4096 : i % 4096 + 1, :, :], i // 4096, axis=1)
            mask = np.zeros((WINDOW_PX, WINDOW_PX), np.uint8)
            axes = (int(rng.integers(10, 30)), int(rng.integers(10, 30)))
            cv2.ellipse(mask, (40, 40), axes, float(rng.uniform(0, 180)), 0, 360, 255, -1)
            crop[mask > 0, :3] = (120, 70, 150)
            crop[..., 3] = mask
            writer.append(crop)
    i = np.arange(n_cells)
    cells = pd.DataFrame(
        {
            "cell_id": [f"{k:016x}" for k in i],
            "label": np.asarray(CLASSES)[i % 3],
            "subject": [f"sheep{k:03d}" for k in i // 5000],
            "image_id": [f"field{k:05d}" for k in i // 50],
            "region": np.array(["CA1", "CA3", "DG"])[i % 3],
            "group": np.array(["sham", "ischemia"])[i // 5000 % 2],
            "set": "development",
            "x_px": 40.0,
            "y_px": 40.0,
            "area_px": 900 + i % 500,
            "image_sha256": [f"{k:064x}" for k in i],
            "crop_phash": [f"{k * 2654435761 % 2**64:016x}" for k in i],
            "source": [f"{k}.png" for k in i],
        }
    )
    save_tables(root, Study(name="large", class_names=CLASSES, window_px=WINDOW_PX), cells)


class Memory:
    """Samples the resident size of a process and its children."""

    def __init__(self, pid: int) -> None:
        self.peak_mib = 0.0
        self.now_mib = 0.0
        self._process, self._stop = psutil.Process(pid), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            total = 0
            for member in [self._process, *self._process.children(recursive=True)]:
                try:
                    total += member.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.now_mib = total / 2**20
            self.peak_mib = max(self.peak_mib, self.now_mib)

    def stop(self) -> None:
        """End sampling."""
        self._stop.set()
        self._thread.join()


@contextmanager
def served(path: Path) -> Iterator[tuple[str, float, Memory]]:
    """Start the service; yield its address, how long it took and its memory."""
    start = time.perf_counter()
    command = [sys.executable, "-u", "-m", "perikarya", "review", str(path), "--no-open", "--reader", "benchmark"]
    process = subprocess.Popen(command, bufsize=0, stdout=subprocess.PIPE)
    memory = Memory(process.pid)
    assert process.stdout is not None
    try:
        found = None
        while found is None:
            line = process.stdout.readline().decode()
            found = re.search(r"http://\S+token=\S+", line)
            if not line:
                raise SystemExit("the service has ended")
        yield found[0], time.perf_counter() - start, memory
    finally:
        memory.stop()
        process.terminate()
        process.wait()


def shown_after(page: Page) -> float:
    """Wait until every cell on the screen has its picture; return when that was, in seconds after the navigation."""
    return float(page.wait_for_function(CELLS_SHOWN, polling="raf").json_value()) / 1000


def frames_of(name: str, frames: list[float]) -> dict[str, Any]:
    ordered = sorted(frames)

    def at(share: float) -> float:
        return ordered[int(share * (len(ordered) - 1))]

    stalled = sum(1 for f in frames if f > 100)
    return {
        "what": name, "n": len(frames), "median_ms": statistics.median(frames), "p95_ms": at(0.95), "p99_ms": at(0.99),
        "max_ms": ordered[-1], "over_100_ms": stalled,
    }  # fmt: skip


def drive(page: Page, address: str, *, scroll_s: float) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Do what a person does, and return times in seconds and frames."""
    page.goto(address)
    page.wait_for_url(re.compile("#|/$"))
    times = {"first_pictures_s": shown_after(page), "first_paint_s": page.evaluate(PAINTED) / 1000}
    page.reload()
    times |= {"again_pictures_s": shown_after(page), "again_first_paint_s": page.evaluate(PAINTED) / 1000}
    frames = []
    for way in ("wheel", "fling", "jump"):
        frames.append(frames_of(f"scrolling: {way}", page.evaluate(FRAMES, [way, scroll_s])))
        start = time.perf_counter()
        page.wait_for_function(CELLS_SHOWN, polling="raf")
        times[f"pictures_after_{way}_s"] = time.perf_counter() - start
    page.get_by_role("gridcell").first.click()
    frames.append(frames_of("a label by key, to the screen", page.evaluate(KEYS, N_LABELS)))
    page.get_by_text(f"{N_LABELS} of").wait_for()  # or the keys would have been for nobody
    start = time.perf_counter()
    page.get_by_label("Sort").first.select_option(label="area (px)")
    page.wait_for_function(CELLS_SHOWN, polling="raf")
    times["sorted_s"] = time.perf_counter() - start
    start = time.perf_counter()
    page.get_by_role("link", name="Map").click()
    page.get_by_role("img", name=re.compile("Map of")).wait_for(timeout=600_000)
    times["map_by_pca_s"] = time.perf_counter() - start
    return times, frames


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--study", type=Path, help="a study that is there already; its cache is written into")
    parser.add_argument("--browser-width", type=int, default=1280)


def main() -> None:
    arguments = parse_arguments(__doc__, extend=_extend)
    scroll_s = 2.0 if arguments.quick else SCROLL_S
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        study = arguments.study
        if study is None:
            study = Path(scratch) / "study"
            make_study(study, 5_000 if arguments.quick else arguments.cells)
        n_cells = len(pd.read_parquet(study / "cells.parquet", columns=["cell_id"]))
        browser = playwright.chromium.launch(executable_path=find_browser(), chromium_sandbox=os.geteuid() != 0)
        page = browser.new_page(viewport={"width": arguments.browser_width, "height": 900})
        with served(study) as (address, start_s, memory):
            opened_mib = memory.now_mib
            times, frames = drive(page, address, scroll_s=scroll_s)
            at_end_mib, peak_mib = memory.now_mib, memory.peak_mib
            page.close()
        browser.close()
    times = {"command_to_address_s": start_s, **times}
    print_table(["time", "s"], list(times.items()))
    print()
    print_table(list(frames[0]), [list(row.values()) for row in frames])
    print()
    memories = {"opened_mib": opened_mib, "at_end_mib": at_end_mib, "peak_mib": peak_mib}
    print_table(["memory of the service and its helpers", "MiB"], list(memories.items()))
    print_json("review_page", cells=n_cells, quick=arguments.quick, times=times, frames=frames, memory=memories)


if __name__ == "__main__":
    main()
