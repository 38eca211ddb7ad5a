"""Numbers and reports of a finished run need no torch: a laptop with the base install makes them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fake_run import make_fake_run

_BLOCKED = """
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "torchvision", "timm", "sklearn", "imblearn"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
sys.argv = ["perikarya", *sys.argv[1:]]
from perikarya.cli import main
main()
"""


def perikarya(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", _BLOCKED, *args], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_fake_run(tmp_path_factory.mktemp("torchless"), n_cells=240, n_external=90, models=("alpha",)).run.root


def test_evaluate_and_quantify_work_where_torch_is_not_installed(run: Path) -> None:
    done = perikarya("evaluate", str(run))
    assert done.returncode == 0, done.stderr
    results = json.loads((run / "results.json").read_text())
    assert results["models"]["alpha"]["external"]["accuracy"]["mean"] is not None
    done = perikarya("quantify", str(run))
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "damage.json").read_text())["animals"]


def test_a_report_works_where_torch_is_not_installed(run: Path) -> None:
    done = perikarya("report", str(run))
    assert done.returncode == 0, done.stderr
    page = (run / "report.html").read_text()
    assert "Fake sheep" in page
    assert "Severity" in page


def test_status_works_where_torch_is_not_installed(run: Path) -> None:
    done = perikarya("status", str(run))
    assert done.returncode == 0, done.stderr
    assert "5 of 5 tasks are done" in done.stdout


def test_evaluating_anew_keeps_what_quantify_was_told_and_survives_a_damaged_file(run: Path) -> None:
    assert perikarya("quantify", str(run), "--control", "ischemia", "--correction", "adjusted").returncode == 0
    assert perikarya("evaluate", str(run)).returncode == 0
    block = json.loads((run / "damage.json").read_text())
    assert (block["control"], block["settings"]["correction"]) == ("ischemia", "adjusted")
    (run / "damage.json").write_text("{")
    assert perikarya("evaluate", str(run)).returncode == 0
    block = json.loads((run / "damage.json").read_text())
    assert (block["control"], block["settings"]["correction"]) == ("sham", "probabilistic")
