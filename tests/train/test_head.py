"""The head agrees with scikit-learn, chooses on the stopping rows only and never sees held-out rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from perikarya.config import HeadConfig
from perikarya.errors import InterruptedWorkError, TrainingError
from perikarya.train.head import fit_head, predict_head

NAMES = ("a", "b", "c")


def features_and_labels(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 300)
    x = rng.normal(size=(300, 10)) + 1.2 * np.eye(3)[labels] @ rng.normal(size=(3, 10))
    return x.astype(np.float16), labels


def fit(x: np.ndarray, y: np.ndarray, train: np.ndarray, stop: np.ndarray, **settings: object) -> object:
    config = HeadConfig.model_validate(settings)
    return fit_head(
        x, labels=y, train=train, stop=stop, class_names=NAMES, config=config, progress=lambda done, total: None
    )


def test_the_head_equals_logistic_regression_of_scikit_learn() -> None:
    x, y = features_and_labels()
    train, stop, test = np.split(np.arange(300), [150, 220])
    fitted = fit(x, y, train, stop, penalties=(0.01,), class_weights="none")
    scaler = StandardScaler().fit(x[train].astype(float))
    peer = LogisticRegression(C=1 / (0.01 * 150), max_iter=2000, tol=1e-8).fit(scaler.transform(x[train]), y[train])
    expected = peer.predict_proba(scaler.transform(x[test].astype(float)))
    np.testing.assert_allclose(predict_head(fitted.tensors, x, test), expected, atol=5e-3)


def test_the_penalty_with_the_least_loss_on_the_stopping_rows_is_kept() -> None:
    x, y = features_and_labels()
    train, stop = np.arange(0, 60), np.arange(60, 200)
    fitted = fit(x, y, train, stop, penalties=(1e-6, 1e-2, 10.0))
    losses = [row["stop_loss"] for row in fitted.history]
    assert [row["penalty"] for row in fitted.history] == [10.0, 1e-2, 1e-6]
    assert fitted.best_epoch == int(np.argmin(losses))
    prob = predict_head(fitted.tensors, x, stop)
    assert -np.log(prob[np.arange(len(stop)), y[stop]]).mean() == pytest.approx(min(losses), rel=1e-4)


def test_what_is_held_out_does_not_change_the_head() -> None:
    x, y = features_and_labels()
    train, stop = np.arange(100), np.arange(100, 200)
    changed = x.copy()
    changed[200:] = 99
    first, second = fit(x, y, train, stop), fit(changed, y, train, stop)
    for name, tensor in first.tensors.items():
        np.testing.assert_array_equal(tensor, second.tensors[name])


def test_a_class_without_training_cells_gets_no_probability() -> None:
    x, y = features_and_labels()
    train = np.flatnonzero(y != 1)[:100]
    fitted = fit(x, y, train, np.arange(200, 300))
    prob = predict_head(fitted.tensors, x, np.arange(300))
    assert prob.shape == (300, 3)
    assert prob[:, 1].max() < 1e-6
    np.testing.assert_allclose(prob.sum(axis=1), 1, atol=1e-6)


def test_one_class_alone_cannot_be_learnt() -> None:
    x, y = features_and_labels()
    with pytest.raises(TrainingError, match="Only one class"):
        fit(x, y, np.flatnonzero(y == 1), np.arange(10))


def test_balanced_weights_raise_the_recall_of_a_rare_class() -> None:
    x, y = features_and_labels()
    rare = np.flatnonzero(y == 2)[:6]
    train = np.sort(np.concatenate([np.flatnonzero(y[:200] != 2), rare]))
    test = np.arange(200, 300)
    recalls = {}
    for weights in ("none", "balanced"):
        fitted = fit(x, y, train, test, penalties=(0.1,), class_weights=weights)
        prob = predict_head(fitted.tensors, x, test)
        recalls[weights] = (prob.argmax(axis=1)[y[test] == 2] == 2).mean()
    assert recalls["balanced"] > recalls["none"]


def test_invented_cells_train_like_cells_of_the_study() -> None:
    x, y = features_and_labels()
    real, invented, stop = np.arange(0, 100), np.arange(100, 150), np.arange(150, 200)
    config = HeadConfig(penalties=(0.01,))
    asked = {"labels": y, "stop": stop, "class_names": NAMES, "config": config, "progress": lambda done, total: None}
    extra = (x[invented].astype(np.float32), y[invented])
    with_extra = fit_head(x, train=real, extra=extra, **asked)
    all_real = fit_head(x, train=np.concatenate([real, invented]), **asked)
    without = fit_head(x, train=real, **asked)
    test = np.arange(200, 300)
    seen = predict_head(with_extra.tensors, x, test)
    np.testing.assert_allclose(seen, predict_head(all_real.tensors, x, test), atol=0.02)
    assert np.abs(seen - predict_head(without.tensors, x, test)).max() > 0.05


def test_features_are_standardised_by_real_cells_alone() -> None:
    x, y = features_and_labels()
    train, stop = np.arange(100), np.arange(100, 200)
    far = (np.full((50, 10), 1e3, np.float32), np.zeros(50, np.int64))
    asked = {"labels": y, "stop": stop, "class_names": NAMES, "config": HeadConfig(penalties=(1.0,))}
    fitted = fit_head(x, train=train, extra=far, progress=lambda done, total: None, **asked)
    np.testing.assert_allclose(fitted.tensors["head.mean"], x[train].astype(float).mean(axis=0), rtol=1e-4, atol=1e-4)


def test_fitting_can_be_interrupted_and_done_anew() -> None:
    x, y = features_and_labels()

    def stop(done: int, total: int) -> None:
        raise InterruptedWorkError("stop")

    config, rows = HeadConfig(), {"train": np.arange(100), "stop": np.arange(100, 200)}
    with pytest.raises(InterruptedWorkError):
        fit_head(x, labels=y, **rows, class_names=NAMES, config=config, progress=stop)
    whole, again = (fit(x, y, **rows) for _ in range(2))
    assert whole.history == again.history
