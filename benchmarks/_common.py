"""What the benchmarks share: arguments, the machine's description, interleaved repeats, a table and a JSON line."""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]


def parse_arguments(
    description: str | None, *, extend: Callable[[argparse.ArgumentParser], None] | None = None
) -> argparse.Namespace:
    """Read ``--quick`` (seconds instead of minutes) and ``--data`` (the red blood cells), and what ``extend`` adds."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a short run: seconds instead of minutes")
    parser.add_argument(
        "--data", type=Path, default=REPOSITORY.parent / "shared" / "data" / "rbc", help="folder of the rbc data set"
    )
    if extend is not None:
        extend(parser)
    return parser.parse_args()


def machine() -> dict[str, Any]:
    """Describe the machine in one flat mapping."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "system": platform.system(),
    }


def interleaved(
    contestants: Mapping[str, Callable[[], object]], *, repeats: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Time callables in turns, so that a disturbance of the machine meets all of them alike; return seconds."""
    for run in contestants.values():
        for _ in range(warm_up):
            run()
    wall_s: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for turn in range(repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            gc.collect()
            start = time.perf_counter()
            contestants[name]()
            wall_s[name].append(time.perf_counter() - start)
    return wall_s


def ratio(slow_s: Sequence[float], fast_s: Sequence[float]) -> float:
    """Return the median over turns of how many times longer the first took."""
    return statistics.median(s / f for s, f in zip(slow_s, fast_s, strict=True))


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; numbers are aligned to the right."""
    text = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(r[i]) for r in [list(header), *text]) for i in range(len(header))]
    print("  ".join(h.ljust(w) if i == 0 else h.rjust(w) for i, (h, w) in enumerate(zip(header, widths, strict=True))))
    print("  ".join("-" * w for w in widths))
    for row in text:
        print("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))))


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return "" if value is None else str(value)


def print_json(name: str, **content: Any) -> None:
    """Print the last line: one JSON object."""
    print(json.dumps({"benchmark": name, "machine": machine(), **content}))


def add_peers(requirements: Sequence[str], *, cache_dir: Path) -> None:
    """Make packages that only a benchmark needs importable, installed into a folder of their own.

    They are installed without their dependencies, so that numpy, OpenCV and torch stay those of the environment: all
    contestants run on the same ones. Perikarya itself never depends on them.
    """
    marker = cache_dir / "installed.txt"
    wanted = "\n".join(requirements)
    if not marker.is_file() or marker.read_text() != wanted:
        cache_dir.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
        subprocess.run([*command, "--target", str(cache_dir), *requirements], check=True)
        marker.write_text(wanted)
    sys.path.append(str(cache_dir))  # at the end: what the environment has comes first
    importlib.invalidate_caches()


def measured_step(script: str, step: str, out: Path, **arguments: object) -> dict[str, float]:
    """Run ``script --step STEP --out OUT --name value`` as a process of its own; return wall and CPU time, peak memory.

    Seconds and MiB.
    """
    more = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
    start = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, script, "--step", step, "--out", str(out), *more], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    wall_s = time.perf_counter() - start
    if status:
        raise SystemExit(f"{step} failed")
    return {"wall_s": wall_s, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_mib": usage.ru_maxrss / 1024}
