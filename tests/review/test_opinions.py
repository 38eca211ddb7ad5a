from __future__ import annotations

import logging
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.fake_run import CLASSES, FakeRun, make_fake_run

from perikarya.errors import ConfigError, RunError
from perikarya.review.cells import open_review
from perikarya.review.opinions import Opinion, read_opinions
from perikarya.runs import TaskKey, write_json
from perikarya.schema import Predictions


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    return make_fake_run(tmp_path_factory.mktemp("opinions"), n_cells=60, n_external=20, n_folds=3)


def index_of(fake: FakeRun) -> pd.Index:
    return pd.Index(fake.opened.cells["cell_id"].astype(object))


def opinions_of(fake: FakeRun) -> dict[str, Opinion]:
    return {o.name: o for o in read_opinions(fake.run, fake.config, index_of(fake), CLASSES)}


def test_points_of_a_learning_curve_have_no_opinion(made: FakeRun) -> None:
    beta = made.config.models[1].model_copy(update={"train_subjects": 3})
    config = made.config.model_copy(update={"models": [made.config.models[0], beta]})
    found = read_opinions(made.run, config, index_of(made), CLASSES)
    assert [o.name for o in found] == ["alpha"]


def test_validation_cells_are_not_held_out(made: FakeRun) -> None:
    opinion = opinions_of(made)["alpha"]
    assert opinion.n_networks[:60].tolist() == [1] * 60
    assert opinion.n_networks[60:].tolist() == [3] * 20


def test_cells_of_an_unfinished_fold_have_no_opinion(tmp_path: Path) -> None:
    made = make_fake_run(
        tmp_path, n_cells=60, n_external=0, n_folds=3, skip=[TaskKey("alpha", 0, 1), TaskKey("beta", 0, 2)]
    )
    found = opinions_of(made)
    alpha, together = found["alpha"], found["all models (ensemble)"]
    fold = pd.read_parquet(made.run.folds).set_index("cell_id")["fold"].reindex(index_of(made)).to_numpy()
    assert (alpha.known == (fold != 1)).all()
    assert (alpha.predicted[fold == 1] == -1).all()
    assert np.isnan(alpha.confidence[fold == 1]).all()
    assert np.isnan(alpha.entropy[fold == 1]).all()
    assert together.known.all()
    np.testing.assert_array_equal(together.prob_nk[fold == 2], alpha.prob_nk[fold == 2])
    np.testing.assert_allclose(together.prob_nk.sum(axis=1), 1.0, atol=1e-5)


def test_entropy_is_a_share_of_the_largest_there_can_be() -> None:
    prob = np.array([[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0.0]], np.float32)
    opinion = Opinion("x", "network", False, prob, np.ones(3, np.int32))
    np.testing.assert_allclose(opinion.entropy, [0.0, 1.0, np.log(2) / np.log(3)], atol=1e-6)


def test_means_over_views_count_where_every_network_has_them(tmp_path: Path) -> None:
    made = make_fake_run(tmp_path, n_cells=60, n_external=0, n_folds=3, models=("alpha",))
    plain = opinions_of(made)["alpha"].prob_nk
    paths = sorted((made.run.root / "tasks").rglob("predictions.parquet"))
    for i, path in enumerate(paths):
        table = Predictions.load(path, CLASSES)
        turned = np.roll(table.prob_nk, 1, axis=1)
        Predictions(**{**vars(table), "tta_nk": turned}).save(path)
        expected = np.roll(plain, 1, axis=1) if i == len(paths) - 1 else plain
        np.testing.assert_allclose(opinions_of(made)["alpha"].prob_nk, expected, atol=1e-6)


@pytest.mark.skipif(find_spec("pytorch_grad_cam") is None or find_spec("timm") is None, reason="needs grad-cam, timm")
def test_a_model_can_be_explained_where_its_weights_were_kept(tmp_path: Path) -> None:
    made = make_fake_run(tmp_path, n_cells=60, n_external=0, n_folds=3)
    assert not any(o.can_explain for o in opinions_of(made).values())
    (made.run.task(TaskKey("beta", 0, 2)) / "model.safetensors").write_bytes(b"")
    assert [name for name, o in opinions_of(made).items() if o.can_explain] == ["beta"]


def test_cells_the_study_no_longer_has_are_left_out_with_a_word(
    made: FakeRun, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = read_opinions(made.run, made.config, index_of(made)[:30], CLASSES)
    assert len(found[0].prob_nk) == 30
    assert found[0].known.all()
    assert "are not in the study" in caplog.text


def test_a_model_whose_predictions_are_gone_is_left_out_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = make_fake_run(tmp_path, n_cells=60, n_external=0, n_folds=3)
    for path in (made.run.root / "tasks" / "alpha").rglob("predictions.parquet"):
        path.unlink()
    with caplog.at_level(logging.WARNING):
        assert [*opinions_of(made)] == ["beta"]
    assert "no network of alpha" in caplog.text


def test_a_run_nobody_has_trained_is_refused(made: FakeRun, tmp_path: Path) -> None:
    shutil.copytree(made.run.root, tmp_path / "run", ignore=shutil.ignore_patterns("tasks"))
    with pytest.raises(RunError, match="without models"):
        read_opinions(type(made.run)(tmp_path / "run"), made.config, index_of(made), CLASSES)


def predicted(fake: FakeRun, out: Path, *, trained_on: str, threshold: float = 0.0) -> Path:
    """Write what ``perikarya predict`` leaves behind of a study, as far as it is read."""
    n = len(fake.opened.cells)
    prob = np.random.default_rng(0).dirichlet([1, 1, 1], n).astype(np.float32)
    ids = fake.opened.cells["cell_id"].to_numpy(dtype=str)
    Predictions(ids, prob, fake.opened.labels, CLASSES, "made", 0, 0, "development").save(out / "predictions.parquet")
    model = {"name": "made", "study": {"data_hash": trained_on}}
    write_json(out / "predict.json", {"model": model, "options": {"threshold": threshold}})
    return out


def test_predictions_of_a_study_are_the_opinion_of_one_model(made: FakeRun, tmp_path: Path) -> None:
    out = predicted(made, tmp_path / "out", trained_on="another study", threshold=0.5)
    table = open_review(out, study=made.opened.root, reader="ann")
    assert table.info()["models"] == [{"name": "made", "kind": "prediction", "can_explain": False}]
    assert table.info()["source"] == "predictions out"
    (said,) = table.probabilities(3)
    assert (said["n_networks"], said["held_out"]) == (1, True)
    assert sum(said["prob"]) == pytest.approx(1.0, abs=1e-4)
    abstained = [cell["row"] for cell in table.cells(range(80)) if cell["abstained"]]
    assert abstained == [row for row in range(80) if max(table.probabilities(row)[0]["prob"]) < 0.5]
    assert abstained
    assert open_review(out, study=made.opened.root, reader="ann", blind=True).info()["models"] == []


def test_predictions_of_a_models_own_study_are_not_held_out(made: FakeRun, tmp_path: Path) -> None:
    out = predicted(made, tmp_path / "out", trained_on=made.opened.data_hash)
    table = open_review(out, study=made.opened.root, reader="ann")
    assert table.probabilities(3)[0]["held_out"] is False


def test_predictions_without_their_study_or_with_a_damaged_record_are_refused(made: FakeRun, tmp_path: Path) -> None:
    out = predicted(made, tmp_path / "out", trained_on="x")
    with pytest.raises(ConfigError, match="--study"):
        open_review(out, reader="ann")
    write_json(out / "predict.json", {"model": {}})
    with pytest.raises(RunError, match="predict again"):
        open_review(out, study=made.opened.root, reader="ann")
