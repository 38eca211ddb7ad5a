"""Networks work in a process of their own: the service never loads torch, and outlives what dies of memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.explain.training import train
from tests.tiny import make_study

from perikarya.config import ExperimentConfig
from perikarya.data.splits import FoldPlan, rows_of
from perikarya.data.store import OpenStudy, open_study, save_tables
from perikarya.errors import ConfigError, DataError, InterruptedWorkError, RunError
from perikarya.experiment.plan import load_run_config
from perikarya.explain.one import CellExplainer
from perikarya.models.embed import compute_features
from perikarya.models.weights import RANDOM
from perikarya.review.network_work import EmbedWork, ExplainWork
from perikarya.runs import RunFolder

torch = pytest.importorskip("torch", reason="the extra 'train' is not installed")
pytest.importorskip("pytorch_grad_cam", reason="the extra 'explain' is not installed")

EXTERNAL_ROW = 143
# the service as it would be, with a small network that needs no weights
SERVICE = """
import os, sys, time
from pathlib import Path
from perikarya.review import map_source
from perikarya.review.desk import open_desk

map_source.WEIGHTS, map_source.INPUT_PX, map_source._NEEDS = "none", 32, ("torch",)
desk = open_desk(Path(sys.argv[1]), study=None, reader="tester", blind=False)
assert desk.info("tester")["has_features"]
assert desk.explain(143, model="cnn", about=1).startswith(b"\\x89PNG")
while (state := desk.start_map("pca"))["status"] == "working":
    time.sleep(0.05)
assert state["status"] == "ready", state
assert len(desk.detail(143)["neighbours"]) == 12 and desk.detail(143)["neighbours_note"] == ""
pid = desk._explainer._worker.pid
desk.close()
assert not Path(f"/proc/{pid}").exists()
print(sorted({"torch", "timm", "perikarya.models.embed", "perikarya.models.explain"} & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> OpenStudy:
    return make_study(tmp_path_factory.mktemp("study") / "tiny")


@pytest.fixture(scope="module")
def run(opened: OpenStudy, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    torch.set_num_threads(1)
    config = {
        "name": "tiny",
        "study": str(opened.root),
        "cv": {"n_folds": 4, "folds": [1]},
        "models": [{"name": "cnn", "arch": "custom_cnn", "input_px": 32}],
        "train": {"epochs": 1, "batch_size": 16},
        "evaluate": {"n_bootstrap": 100},
        "launch": {"threads": 1},
    }
    out = tmp_path_factory.mktemp("runs") / "run"
    train(ExperimentConfig.model_validate(config), out)
    return RunFolder(out)


def test_cells_are_explained_and_refused_as_in_one_process(run: RunFolder, opened: OpenStudy) -> None:
    here = CellExplainer(run, opened, load_run_config(run))
    learnt = int(rows_of(opened.cells["cell_id"], FoldPlan.load(run.folds).roles(2).test)[0])
    work = ExplainWork(run, opened)
    try:
        for about in (0, 2):
            found = work.explain("cnn", EXTERNAL_ROW, about)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, here.explain("cnn", EXTERNAL_ROW, about), atol=1e-5)
        for asked in (("nobody", 0, 0), ("cnn", 144, 0), ("cnn", 0, 3), ("cnn", learnt, 0)):
            with pytest.raises((ConfigError, DataError, RunError)) as expected:
                here.explain(*asked)
            with pytest.raises(type(expected.value)) as refused:
                work.explain(*asked)
            assert str(refused.value) == str(expected.value)
        pid = work._worker.pid or 0
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert work.explain("cnn", EXTERNAL_ROW, 0).shape == (32, 32)
        assert work._worker.pid not in (pid, None)
    finally:
        work.close()
    with pytest.raises(InterruptedWorkError):
        work.explain("cnn", EXTERNAL_ROW, 0)


def test_a_study_that_was_changed_since_is_refused(run: RunFolder, tmp_path: Path) -> None:
    before = make_study(tmp_path / "tiny")
    save_tables(before.root, before.study, before.cells.assign(label="small"))
    assert open_study(before.root).data_hash != before.data_hash
    work = ExplainWork(run, before)
    with pytest.raises(DataError, match=r"changed since the page was opened(.|\n)*Fix"):
        work.explain("cnn", 0, 0)
    work.close()


def test_features_are_those_that_training_computes_and_its_process_ends(tmp_path: Path) -> None:
    study, other = (make_study(tmp_path / name, cells_per_subject=6) for name in ("tiny", "other"))
    shares: list[float] = []
    work = EmbedWork(study, arch="efficientnet_lite0", weights="none", input_px=32)
    found = work.run(shares.append)
    assert work._worker.pid is None
    assert shares == [64 / 72, 1]
    path = compute_features(
        other, arch="efficientnet_lite0", weights=RANDOM, input_px=32, progress=lambda _done, _n: None
    )
    np.testing.assert_allclose(found, np.load(path), atol=1e-2, rtol=1e-2)
    assert Path(found.filename).name == path.name


def test_the_service_never_loads_torch(run: RunFolder) -> None:
    command = [sys.executable, "-c", SERVICE, str(run.root)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
