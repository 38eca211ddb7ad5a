"""What the how-to pages tell developers to type works, and the files and tests they name are there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from perikarya.data import importers
from perikarya.data.importers.base import ImportOptions
from perikarya.evaluate import metrics
from perikarya.evaluate.stats import tally_draws
from perikarya.models import zoo
from perikarya.models.build import build_network, n_parameters

ROOT = Path(__file__).parents[2]
HOWTO = ROOT / "docs" / "howto"
PAGES = sorted(HOWTO.glob("*.md"))
WRITTEN_BY_THE_READER = {
    "new_importer": {"src/perikarya/data/importers/polygons.py", "tests/data/importers/test_polygons.py"}
}


def python_of(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (HOWTO / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_that_are_named_exist(page: Path) -> None:
    named = set(re.findall(r"\b[\w/]+\.py\b", page.read_text(encoding="utf-8")))
    known = [str(path) for folder in ("src", "tests", "tools", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    lost = {name for name in named if not any(path.endswith(f"/{name}") for path in known)}
    assert lost == WRITTEN_BY_THE_READER.get(page.stem, set())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_tests_that_are_named_exist(page: Path) -> None:
    text = re.sub(r"[\w/]*test_\w+\.py", "", page.read_text(encoding="utf-8"))
    defined = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    assert set(re.findall(r"\btest_\w+", text)) - defined == set()


def test_the_network_of_the_page_is_a_whole_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = python_of("new_model.md")
    ((name, spec),) = eval(f"{{{text}}}", vars(zoo)).items()
    monkeypatch.setitem(zoo.NETWORKS._entries, name, spec)
    with torch.device("meta"):
        assert round(n_parameters(build_network(name, n_classes=3)) / 1e6, 1) == spec.params_m


def test_the_metric_of_the_page_is_that_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    formula, check = python_of("new_metric.md")
    monkeypatch.setattr(metrics.OVERALL, "_entries", dict(metrics.OVERALL.items()))
    exec(formula, found := dict(vars(metrics)))
    rng = np.random.default_rng(0)
    label, prob = rng.integers(0, 3, 200), rng.dirichlet(np.ones(3), 200)
    predicted = prob.argmax(axis=1)
    (expected,) = eval(f"{{{check}}}", {"sk": sk, "label": label, "predicted": predicted}).values()
    metric = metrics.OVERALL.get("mcc")
    assert metric.compute is found["mcc"]
    assert metric.compute(metrics.tally_of(label, prob)) == pytest.approx(expected, abs=1e-12)
    drawn = tally_draws(label, prob, np.arange(200) % 5, np.ones((4, 5)))
    assert metric.compute(drawn) == pytest.approx([expected] * 4, abs=1e-12)


def test_the_importer_of_the_page_brings_cells_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, line = python_of("new_importer.md")
    monkeypatch.setitem(sys.modules, "polygons", module := ModuleType("polygons"))
    exec(text, vars(module))
    monkeypatch.setattr(importers.IMPORTERS, "_entries", dict(importers.IMPORTERS.items()))
    exec(line, {"IMPORTERS": importers.IMPORTERS, "POLYGONS": module.POLYGONS})  # type: ignore[attr-defined]
    source = tmp_path / "src"
    source.mkdir()
    cv2.imwrite(str(source / "a.png"), np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8))
    (source / "a_cells.txt").write_text("Pyk,10,10,20,10,20,22,10,22\n,40,30,52,30,52,40\nnormal,3,x\n")
    opened = importers.import_study(
        source, tmp_path / "study", options=ImportOptions(class_map="Pyk=pyknotic", skip_bad=True)
    )
    assert opened.study.provenance["layout"] == "polygons"
    assert opened.cells["label"].fillna("").tolist() == ["pyknotic", ""]
    assert opened.cells["area_px"].tolist()[0] == 120
    assert "line 3" in (tmp_path / "study" / "refused.csv").read_text()
