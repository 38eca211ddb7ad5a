"""Break `data` and `evaluate` on purpose, a little at a time, and count the breaks that no test notices.

    python tools/mutation.py FOLDER [--share 12] [--minutes 60] [--seed 0] [--budget 20] [--again]

Copies the project into FOLDER, where mutmut writes every mutant of every module beside its original; draws SHARE
mutants of each module and runs, on each, the tests that reach the mutated function, those of the mirrored test file
first. Stopped, it goes on where it was. `--again` takes the present tests and runs the survivors once more. FOLDER
holds results.jsonl, table.md and survivors.txt in the end (see docs/mutation.md). Needs `mutmut`; the work tree stays
as it is.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = ("data", "evaluate")
OPTIONS = ("-x", "-q", "--no-header", "--tb=short", "-p", "no:cacheprovider", "--timeout=0", "--basetemp=temporary")
FOLDERS = [f"tests/{package}" for package in PACKAGES]
#: For a mutant that waits instead of computing; CPU time, which a busy machine does not stretch, limits all others.
WALL_S = 1200.0
#: How a process that ran the tests of one mutant ends.
SURVIVED, KILLED = 0, 1


def main() -> None:
    """Read the command line, go into the copy and work there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--share", type=int, default=12, help="mutants of each module")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of tests, unbroken, that judge one mutant")
    parser.add_argument("--again", action="store_true", help="the survivors only, with the present tests")
    given = parser.parse_args()
    folder = given.folder.resolve()
    if folder == PROJECT or PROJECT in folder.parents:
        raise SystemExit(f"{folder} is inside the project; the mutants need a folder of their own.")
    first = not (folder / "mutants.json").is_file()
    copy_project(folder, () if first else ("tests",))
    os.chdir(folder)
    sys.path[:0] = [str(folder / "src"), str(folder)]
    os.environ["PYTHONPATH"] = str(folder / "src")  # for the processes that tests start
    if first:
        write_mutants(folder)
    if first or given.again:
        find_tests(folder)
    names = list(survivors_of(folder)) if given.again else list(draw(folder, share=given.share, seed=given.seed))
    run(folder, names, minutes=given.minutes, budget_s=given.budget, again=given.again)
    write_tables(folder)


def copy_project(folder: Path, only: tuple[str, ...]) -> None:
    """Copy what git knows or would take, so that caches and environments stay behind."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *only]
    names = subprocess.run(listed, cwd=PROJECT, check=True, capture_output=True, text=True).stdout  # noqa: S603
    for name in filter(None, names.split("\0")):
        if (PROJECT / name).is_file() and not name.startswith("frontend/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, folder / name)


def write_mutants(folder: Path) -> None:
    """Put the mutants of every module into its file in the copy, and their names into mutants.json."""
    from mutmut.mutation.file_mutation import mutate_file_contents

    names: dict[str, list[str]] = {}
    for package in PACKAGES:
        for path in sorted((folder / "src" / "perikarya" / package).rglob("*.py")):
            module = ".".join(path.relative_to(folder / "src").with_suffix("").parts).removesuffix(".__init__")
            mutated = mutate_file_contents(str(path), path.read_text(encoding="utf-8"))
            sentences = prose(mutated.code)
            path.write_text(mutated.code, encoding="utf-8")
            names[module] = [f"{module}.{name}" for name in mutated.mutant_names if name not in sentences]
    (folder / "mutants.json").write_text(json.dumps(names, indent=1), encoding="utf-8")


def prose(code: str) -> set[str]:
    """Return the mutants that only change the letters of a sentence: what tests should not pin down."""
    functions = functions_of(code)
    mutants = [name for name in functions if "__mutmut_" in name]
    return {name for name in mutants if _only_words(original_of(functions, name), functions[name])}


def functions_of(code: str) -> dict[str, ast.FunctionDef]:
    """Return the functions and methods of a module by their names, which mutmut made unique."""
    return {f.name: f for f in ast.walk(ast.parse(code)) if isinstance(f, ast.FunctionDef)}


def original_of(functions: dict[str, ast.FunctionDef], mutant: str) -> ast.FunctionDef:
    """Return the function that a mutant was made of."""
    return functions[mutant.rpartition("__mutmut_")[0] + "__mutmut_orig"]


def _only_words(a: ast.FunctionDef, b: ast.FunctionDef) -> bool:
    pairs = list(zip_longest(ast.walk(a), ast.walk(b)))
    if any(type(x) is not type(y) for x, y in pairs):
        return False
    constants = [(x.value, y.value) for x, y in pairs if isinstance(x, ast.Constant) and isinstance(y, ast.Constant)]
    changed = [x for x, y in constants if x != y]
    return bool(changed) and all(isinstance(x, str) and " " in x for x in changed)


class _Reach:
    """A pytest plugin: which test called which function, and how long it took."""

    def __init__(self) -> None:
        self.tests: defaultdict[str, list[str]] = defaultdict(list)
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: object) -> None:
        from mutmut.state import state

        node, seconds = report.nodeid, report.duration  # type: ignore[attr-defined]
        self.seconds[node] += seconds
        for function in state()._stats:
            if node not in self.tests[function]:
                self.tests[function].append(node)
        state()._stats.clear()


def find_tests(folder: Path) -> None:
    """Run the tests of the packages once, unbroken, and write down in tests.json what each of them reaches."""
    reach = _Reach()
    child = os.fork()  # so that what the tests leave behind in memory does not meet the mutants
    if child == 0:
        os.environ["MUTANT_UNDER_TEST"] = "stats"
        code = pytest.main([*OPTIONS, *FOLDERS], plugins=[reach])
        found = {"tests": reach.tests, "seconds": reach.seconds}
        (folder / "tests.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
        os._exit(code)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise SystemExit("The tests fail before anything is broken; see above.")


def run(folder: Path, names: list[str], *, minutes: float, budget_s: float, again: bool) -> None:
    """Judge mutants until all are done or the time is over, and add each outcome to results.jsonl."""
    done = set() if again else set(read_results(folder))
    left = [name for name in names if name not in done]
    if left:
        judges = _Judges(folder, left, end=time.monotonic() + 60 * minutes, budget_s=budget_s)
        pytest.main([*OPTIONS, *FOLDERS], plugins=[judges])


class _Judges:
    """A pytest plugin that takes the place of the test loop.

    All tests are collected once; the tests of each mutant run in a process forked off from there. What a module does
    when it is imported is therefore never broken.
    """

    def __init__(self, folder: Path, names: list[str], *, end: float, budget_s: float) -> None:
        self.folder, self.names, self.end, self.budget_s = folder, names, end, budget_s
        self.found = json.loads((folder / "tests.json").read_text(encoding="utf-8"))

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        session.config.pluginmanager.unregister(name="terminalreporter")  # no dot for each test of each mutant
        nothing = self.names[0].rpartition("_")[0] + "_none"
        if (outcome := self.judge(nothing, items)[0]) != "survived":
            raise SystemExit(f"The tests of {self.names[0]} end with {outcome!r} though nothing is broken.")
        with (self.folder / "results.jsonl").open("a", encoding="utf-8") as out:
            for name in self.names:
                if time.monotonic() > self.end:
                    break
                outcome, n_tests = self.judge(name, items)
                out.write(json.dumps({"mutant": name, "outcome": outcome, "tests": n_tests}) + "\n")
                out.flush()
        return True

    def judge(self, mutant: str, items: dict[str, pytest.Item]) -> tuple[str, int]:
        """Return what becomes of a mutant and how many tests it had to pass; CPU time limits them."""
        tests, expected_s = tests_of(mutant, self.found, budget_s=self.budget_s)
        if not tests:
            return "no test reaches it", 0
        child = os.fork()
        if child == 0:
            _run_in_child(mutant, [items[test] for test in tests], limit_s=int(10 + 5 * expected_s))
        return _wait(child, limit_s=WALL_S), len(tests)


def _run_in_child(mutant: str, items: list[pytest.Item], *, limit_s: int) -> None:
    code = 70
    try:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s + 2))
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        os.environ["MUTANT_UNDER_TEST"] = mutant
        session = items[0].session
        for item, following in zip_longest(items, items[1:]):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.testsfailed:
                break
        code = KILLED if session.testsfailed else SURVIVED
    finally:
        os._exit(code)


def _wait(child: int, *, limit_s: float) -> str:
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return {SURVIVED: "survived", KILLED: "killed"}.get(code, "timeout" if code < 0 else f"exit code {code}")
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


def survivors_of(folder: Path) -> Iterator[str]:
    """Yield the mutants that no test has noticed so far, and those that took too long."""
    yield from (name for name, result in read_results(folder).items() if result["outcome"] != "killed")


def draw(folder: Path, *, share: int, seed: int) -> Iterator[str]:
    """Yield the first drawn mutant of each module, then the second: a run that ends early is fair to all."""
    everything = json.loads((folder / "mutants.json").read_text(encoding="utf-8"))
    drawn = [random.Random(f"{seed} {m}").sample(names, min(share, len(names))) for m, names in everything.items()]
    yield from (name for turn in zip_longest(*drawn) for name in turn if name)


def tests_of(mutant: str, found: dict[str, Any], *, budget_s: float) -> tuple[list[str], float]:
    """Return the tests for a mutant and how long they take unbroken.

    First those of the mirrored file, then what reaches the function elsewhere, then what shares a file with that (a
    fixture of the whole file reaches the function for its first test only); of each the shortest first, until the
    budget is spent.
    """
    function = mutant.rpartition("__mutmut_")[0]
    parts = mutant.split(".")[1:-1]
    mirrored = "/".join(["tests", *parts[:-1], f"test_{parts[-1]}.py"])
    seconds: dict[str, float] = found["seconds"]
    reaching = set(found["tests"].get(function, []))
    files = {test.partition("::")[0] for test in reaching} | {mirrored}
    candidates = [test for test in seconds if test.partition("::")[0] in files]
    candidates.sort(key=lambda t: (not t.startswith(mirrored), t not in reaching, seconds[t]))
    chosen: list[str] = []
    total = 0.0
    for test in candidates:
        if chosen and total + seconds[test] > budget_s:
            continue
        chosen.append(test)
        total += seconds[test]
    return chosen, total


def read_results(folder: Path) -> dict[str, dict[str, str]]:
    """Return the last result of each mutant."""
    path = folder / "results.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {result["mutant"]: result for result in map(json.loads, lines)}


def write_tables(folder: Path) -> None:
    """Write table.md (one row for each module) and survivors.txt (what each of them changed)."""
    results = read_results(folder)
    everything = json.loads((folder / "mutants.json").read_text(encoding="utf-8"))
    head = ["| module | mutants | tried | killed | survived | timeout | not reached |", "|---|---|---|---|---|---|---|"]
    rows, survivors = [], []
    for module, names in everything.items():
        outcomes = [results[name]["outcome"] for name in names if name in results]
        counts = [outcomes.count(o) for o in ("killed", "survived", "timeout", "no test reaches it")]
        rows.append([module.removeprefix("perikarya."), len(names), len(outcomes), *counts])
        left = [n for n in names if n in results and results[n]["outcome"] not in ("killed", "timeout")]
        survivors += [f"{name}: {results[name]['outcome']}\n{difference(folder, module, name)}\n" for name in left]
    rows.append(["all", *(sum(row[i] for row in rows) for i in range(1, 7))])
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows if row[1]]
    (folder / "table.md").write_text("\n".join([*head, *lines]) + "\n", encoding="utf-8")
    (folder / "survivors.txt").write_text("\n".join(survivors), encoding="utf-8")


def difference(folder: Path, module: str, mutant: str) -> str:
    """Return what a mutant changed in its function, as the lines of a diff."""
    path = folder / "src" / Path(*module.split("."))
    source = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
    functions = functions_of(source.read_text(encoding="utf-8"))
    name = mutant.rpartition(".")[2]
    old, new = (ast.unparse(f).splitlines()[1:] for f in (original_of(functions, name), functions[name]))
    lines = list(difflib.unified_diff(old, new, lineterm="", n=1))
    return "\n".join(lines[2:])  # without the names of the files


if __name__ == "__main__":
    main()
