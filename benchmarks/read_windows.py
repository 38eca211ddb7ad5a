"""Windows of a large tiled TIFF: how many per second, and in how much memory.

    python benchmarks/read_windows.py [--quick] [--side 20000] [--windows 5000] [--compression jpeg]

Writes a square RGB TIFF in tiles of 256 px, tile by tile, and reads 80 px windows at random places: row by row, as
cells come out of most files, and in random order. Contestants: perikarya, OpenSlide, tiffslide (where installed), and
tifffile decoding everything first. Each runs in a process of its own, in turns; memory is the peak of what the process
grew by after its libraries were imported (Linux only). Prints a table and, as its last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from _common import parse_arguments, print_json, print_table
from perikarya.data.pictures import open_picture

WINDOW_PX, TILE_PX = 80, 256
CONTESTANTS = ("perikarya", "openslide", "tiffslide", "whole")
Read = Callable[[int, int], NDArray[np.uint8]]


def write_slide(path: Path, side: int, compression: str) -> None:
    """Write a picture with structure, a few different tiles over and over."""
    rng = np.random.default_rng(0)
    noise = [cv2.GaussianBlur(rng.normal(size=(TILE_PX, TILE_PX, 3)), (0, 0), 4) for _ in range(16)]
    tiles = [np.clip(200 + 600 * n, 0, 255).astype(np.uint8) for n in noise]
    n_tiles = (-(-side // TILE_PX)) ** 2
    options = {"tile": (TILE_PX, TILE_PX), "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        source = (tiles[i * 7 % 16] for i in range(n_tiles))
        writer.write(source, shape=(side, side, 3), dtype=np.uint8, compression=compression, **options)


def reader(name: str, path: Path) -> Read:
    """Open a slide with one of the contestants."""
    size = (WINDOW_PX, WINDOW_PX)
    if name == "perikarya":
        picture = open_picture(path)
        return lambda x, y: picture.read8(x, y, *size)
    if name == "whole":
        pixels = tifffile.imread(path)
        return lambda x, y: pixels[y : y + WINDOW_PX, x : x + WINDOW_PX].copy()
    module = __import__(name)
    slide = (module.OpenSlide if name == "openslide" else module.TiffSlide)(path)
    return lambda x, y: np.asarray(slide.read_region((x, y), 0, size).convert("RGB"))


def corners(side: int, n: int, *, ordered: bool) -> Iterator[tuple[int, int]]:
    """Yield upper left corners of windows; ordered: by rows of tiles, from left to right."""
    places = np.random.default_rng(1).integers(0, side - WINDOW_PX, (n, 2))
    if ordered:
        places = places[np.lexsort((places[:, 0], places[:, 1] // TILE_PX))]
    yield from places.tolist()


def peak_kib() -> int:
    """Return the largest resident size of this process so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def run_one(name: str, path: Path, side: int, n: int, *, ordered: bool) -> None:
    """Read all windows in this process; print seconds, MiB of growth and a checksum."""
    if name in ("openslide", "tiffslide"):
        __import__(name)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before_kib = peak_kib()
    start = time.perf_counter()
    read = reader(name, path)
    checksum = sum(int(read(x, y).sum()) for x, y in corners(side, n, ordered=ordered))
    wall_s = time.perf_counter() - start
    growth_mib = (peak_kib() - before_kib) / 1024
    print(json.dumps({"wall_s": wall_s, "growth_mib": growth_mib, "checksum": checksum}))


def measure(name: str, path: Path, side: int, n: int, *, ordered: bool) -> dict[str, float]:
    """Run one contestant in a process of its own."""
    command = [sys.executable, __file__, "--one", name, "--path", str(path), "--side", str(side), "--windows", str(n)]
    done = subprocess.run([*command, *(["--ordered"] if ordered else [])], capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--side", type=int, default=20_000, help="side of the picture in pixels")
    parser.add_argument("--windows", type=int, default=5000)
    parser.add_argument("--compression", default="jpeg", choices=["none", "deflate", "lzw", "jpeg"])
    for hidden in ("--one", "--path"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--ordered", action="store_true", help=argparse.SUPPRESS)


def main() -> None:
    """Compare the contestants."""
    given = parse_arguments(__doc__, extend=_extend)
    if given.one:
        run_one(given.one, Path(given.path), given.side, given.windows, ordered=given.ordered)
        return
    side, n, repeats = (6000, 1000, 1) if given.quick else (given.side, given.windows, 3)
    names = [name for name in CONTESTANTS if name == "whole" or find_spec(name)]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.tif"
        write_slide(path, side, given.compression)
        for ordered in (True, False):
            runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
            for _ in range(repeats):
                for name in names:
                    runs[name].append(measure(name, path, side, n, ordered=ordered))
            if len({run["checksum"] for found in runs.values() for run in found}) > 1:
                sys.exit("the contestants did not read the same pixels")
            for name, found in runs.items():
                wall_s = statistics.median(run["wall_s"] for run in found)
                growth_mib = max(run["growth_mib"] for run in found)
                order = "by rows" if ordered else "random"
                results.append({"order": order, "reader": name, "windows_per_s": n / wall_s, "growth_mib": growth_mib})
    print_table(["reader, order", "windows/s", "MiB"], [
        [f"{r['reader']}, {r['order']}", r["windows_per_s"], r["growth_mib"]] for r in results
    ])  # fmt: skip
    rounded = [{k: round(v, 1) if isinstance(v, float) else v for k, v in r.items()} for r in results]
    print_json("read_windows", side=side, windows=n, compression=given.compression, results=rounded)


if __name__ == "__main__":
    main()
