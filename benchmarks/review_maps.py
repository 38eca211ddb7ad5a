"""What the page draws of many cells: components, maps and neighbours; time and peak memory of each.

    python benchmarks/review_maps.py [--cells 100000] [--features 2560] [--out FOLDER] [--quick]

Cells and features are made up (40 groups of cells with a spectrum as features of networks have it), and lie on disk as
those of a study do. Every step is a process of its own, as the page's server is: ``components`` finds 32 of them,
``umap`` lays the cells out in a process of its own, whose peak is told apart, ``neighbours`` opens what was kept and
asks for the neighbours of 200 cells, ``pixels`` makes components from crops of 80 px where there are no features.
Named peer: scikit-learn's randomised PCA of the features in memory (``peer``). Prints a table and, as its last line, a
JSON object.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.lib import format as npy_format

from perikarya.data.store import CropWriter, OpenStudy, new_study_folder, open_study, save_tables
from perikarya.review.embedding import Maps
from perikarya.review.neighbours import Neighbours
from perikarya.schema import Study

common = importlib.import_module("_common")

N_GROUPS, WINDOW_PX, N_ASKED = 40, 80, 200


def make_study(out: Path, n_cells: int, n_features: int) -> None:
    """Write a study and the features of its cells, some thousand at a time."""
    rng = np.random.default_rng(0)
    names = [f"{i:016x}" for i in range(n_cells)]
    cells = pd.DataFrame({"cell_id": names, "image_id": "i", "set": "development", "label": "a"})
    cells = cells.assign(x_px=0.0, y_px=0.0, area_px=1, image_sha256="", crop_phash="", source="s.png")
    with new_study_folder(out / "study") as folder:
        with CropWriter(folder / "crops.npy", n_cells=n_cells, window_px=WINDOW_PX) as writer:
            some = rng.integers(0, 255, (64, WINDOW_PX, WINDOW_PX, 4), np.uint8)
            for i in range(n_cells):
                writer.append(some[i % 64])
        save_tables(folder, Study(name="many", class_names=("a",), window_px=WINDOW_PX), cells)
    spread = 10 / np.sqrt(1 + np.arange(n_features, dtype=np.float32))
    middles = rng.normal(size=(N_GROUPS, n_features)).astype(np.float32) * spread
    with (out / "features.npy").open("wb") as handle:
        header = {"descr": "<f2", "fortran_order": False, "shape": (n_cells, n_features)}
        npy_format.write_array_header_1_0(handle, header)
        for start in range(0, n_cells, 4096):
            n = min(4096, n_cells - start)
            noise = rng.standard_normal((n, n_features), np.float32) * spread
            handle.write((middles[rng.integers(0, N_GROUPS, n)] + noise).astype("<f2").tobytes())


def opened(out: Path) -> OpenStudy:
    return open_study(out / "study")


def maps_of(out: Path) -> Maps:
    return Maps(opened(out), np.load(out / "features.npy", mmap_mode="r"), "made up")


def made(maps: Maps, method: str) -> None:
    state = maps.start(method)
    while state["status"] == "working":
        time.sleep(0.05)
        state = maps.state(method)
    if state["status"] != "ready":
        raise SystemExit(state["message"])


def components(out: Path) -> dict[str, float]:
    made(maps_of(out), "pca")
    return {}


def umap(out: Path) -> dict[str, float]:
    made(maps_of(out), "umap")
    return {"worker_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024}


def neighbours(out: Path) -> dict[str, float]:
    maps = maps_of(out)
    asked = Neighbours(maps)
    started = time.perf_counter()
    asked.of(0)
    first_s = time.perf_counter() - started
    times = []
    for row in np.random.default_rng(1).choice(len(opened(out).cells), N_ASKED):
        started = time.perf_counter()
        asked.of(int(row))
        times.append(time.perf_counter() - started)
    return {"first_ms": 1000 * first_s, "median_ms": 1000 * statistics.median(times), "worst_ms": 1000 * max(times)}


def pixels(out: Path) -> dict[str, float]:
    from perikarya.review import map_source

    map_source.MOST_EMBEDDED = 0
    made(Maps(opened(out), None), "pca")
    return {}


def peer(out: Path) -> dict[str, float]:
    from sklearn.decomposition import PCA

    features = np.load(out / "features.npy").astype(np.float32)
    PCA(32, svd_solver="randomized", random_state=0).fit_transform(features)
    return {}


STEPS: dict[str, Callable[[Path], dict[str, float]]] = {
    "components": components, "umap": umap, "neighbours": neighbours, "pixels": pixels, "peer": peer,
}  # fmt: skip


def run_step(step: str, out: Path) -> None:
    """Do one step and say how long it took without the start of Python, and how much memory this process had."""
    started = time.perf_counter()
    more = STEPS[step](out)
    wall_s = time.perf_counter() - started
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own_mib = int(status["VmHWM"].split()[0]) / 1024  # getrusage also counts what the process that started it had
    (out / f"{step}.json").write_text(json.dumps({"work_s": wall_s, "own_mib": own_mib} | more))


def main(options: argparse.Namespace) -> None:
    n_cells = 5_000 if options.quick else options.cells
    folder = options.out or Path(tempfile.mkdtemp(prefix="perikarya-maps-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        make_study(folder, n_cells, options.features)
        found = {}
        for step in STEPS:
            common.measured_step(__file__, step, folder)
            found[step] = json.loads((folder / f"{step}.json").read_text())
    finally:
        shutil.rmtree(folder)
    columns = ("work_s", "own_mib", "worker_mib", "first_ms", "median_ms", "worst_ms")
    common.print_table(("step", *columns), [[step, *(row.get(c) for c in columns)] for step, row in found.items()])
    common.print_json("review_maps", n_cells=n_cells, n_features=options.features, steps=found)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=2_560)
    parser.add_argument("--out", type=Path, help="an empty folder, removed at the end; default: a temporary one")
    parser.add_argument("--step", choices=tuple(STEPS), help=argparse.SUPPRESS)


if __name__ == "__main__":
    asked = common.parse_arguments(__doc__, extend=add_arguments)
    if asked.step:
        run_step(asked.step, asked.out)
    else:
        main(asked)
