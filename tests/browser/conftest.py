"""A browser, a page that was built, and studies to look at in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="tests in a browser need playwright")
pytest.importorskip("fastapi", reason="the service needs the packages of perikarya[review]")
from playwright.sync_api import Browser, sync_playwright
from tests.browser.watched import Watched
from tests.fake_run import make_fake_run

from perikarya.config import ExperimentConfig
from perikarya.data.phantom import make_phantom
from perikarya.data.phantom_plan import PhantomSettings
from perikarya.data.store import save_tables
from perikarya.errors import PerikaryaError
from perikarya.report.pdf import find_browser
from perikarya.review.assets import read_page

SCRIPTS = ("<img src=x onerror=window.hacked=1>", "<script>window.hacked=1</script>", '"><svg onload=window.hacked=1>')
SHOTS = "PERIKARYA_SCREENSHOTS"  # a folder; where it is set, pictures of the page are kept there for people to look at


@dataclass(frozen=True)
class Lab:
    """A run and its study, which may be written into."""

    run: Path
    study: Path


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    try:
        path = find_browser()
        read_page()
    except PerikaryaError as missing:
        pytest.skip(f"no page or no browser of the Chromium family here: {missing}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, chromium_sandbox=os.geteuid() != 0)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A study of painted fields, and a run with a network and a head, trained for seconds."""
    pytest.importorskip("torch", reason="maps of where a network looks need torch")
    from tests.explain.training import train

    root = tmp_path_factory.mktemp("lab")
    settings = PhantomSettings(n_cells=240, n_subjects=6, n_external_subjects=2, window_px=64)
    opened = make_phantom(root / "study", settings=settings)
    content = {
        "name": "lab",
        "study": str(opened.root),
        "cv": {"n_folds": 3},
        "models": [
            {"name": "cnn", "arch": "custom_cnn", "input_px": 32},
            {"name": "head", "arch": "efficientnet_lite0", "weights": "none", "strategy": "head", "input_px": 32},
        ],
        "train": {"epochs": 1, "batch_size": 16},
        "evaluate": {"n_bootstrap": 100},
        "launch": {"threads": 1},
    }
    train(ExperimentConfig.model_validate(content), root / "run")
    return Lab(root / "run", opened.root)


@pytest.fixture
def lab(trained: Lab, tmp_path: Path) -> Lab:
    return Lab(trained.run, Path(shutil.copytree(trained.study, tmp_path / "study")))


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A run whose every name is a script."""
    made = make_fake_run(tmp_path, n_cells=90, n_external=0, n_folds=3, class_names=SCRIPTS, study_name=SCRIPTS[1])
    cells = made.opened.cells.assign(subject=SCRIPTS[0], image_id=SCRIPTS[2], region=SCRIPTS[1])
    save_tables(made.opened.root, made.opened.study.model_copy(update={"regions": (SCRIPTS[1],)}), cells)
    return made.run.root


@pytest.fixture
def page(chromium: Browser) -> Iterator[Watched]:
    """A page in a browser of its own; at the end, whatever it complained of or asked of others fails the test."""
    watched = Watched(chromium)
    yield watched
    watched.close()


@pytest.fixture
def other_page(chromium: Browser) -> Iterator[Watched]:
    watched = Watched(chromium)
    yield watched
    watched.close()


@pytest.fixture
def shots() -> Path | None:
    folder = os.environ.get(SHOTS)
    if folder is None:
        return None
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)
