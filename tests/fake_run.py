"""A finished run that nobody trained: random probabilities in the files a real run leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perikarya.config import ExperimentConfig
from perikarya.data.store import CropWriter, OpenStudy, open_study, save_tables
from perikarya.runs import RunFolder, TaskKey, versions, write_json, write_text
from perikarya.schema import Predictions, Study, write_table

CLASSES = ("normal", "intermediate", "pyknotic")


@dataclass(frozen=True)
class FakeRun:
    run: RunFolder
    opened: OpenStudy
    config: ExperimentConfig
    tasks: list[TaskKey]


def make_fake_run(
    root: Path,
    *,
    n_cells: int = 600,
    n_external: int = 240,
    class_names: Sequence[str] = CLASSES,
    n_subjects: int = 12,
    n_external_subjects: int = 8,
    models: Sequence[str] = ("alpha", "beta"),
    seeds: Sequence[int] = (0,),
    n_folds: int = 5,
    scheme: str = "kfold",
    subjects_known: bool = True,
    window_px: int = 24,
    study_name: str = "Fake sheep",
    skip: Sequence[TaskKey] = (),
) -> FakeRun:
    """Build a study and a run folder below ``root``; tasks in ``skip`` look unfinished."""
    rng = np.random.default_rng(7)
    cells = _cells(rng, n_cells, n_external, class_names, n_subjects, n_external_subjects)
    if not subjects_known:
        cells["subject"] = None
    _save_study(root / "study", cells, tuple(class_names), window_px, study_name, rng)
    opened = open_study(root / "study")
    config = ExperimentConfig.model_validate(
        {
            "name": "fake",
            "study": str(root / "study"),
            "seeds": list(seeds),
            "cv": {"n_folds": n_folds, "scheme": scheme},
            "models": [*models],
            "evaluate": {"n_bootstrap": 400},
        }
    )
    run = RunFolder(root / "run")
    hashes = f"# configuration {config.content_hash()}, data {opened.data_hash}; made definite by nobody\n"
    write_text(run.config, hashes + config.dump())
    write_json(run.check, [])
    development = opened.cells[opened.cells["set"] == "development"]
    names = sorted(development["subject" if subjects_known else "image_id"].unique())
    fold_of = {name: i % n_folds for i, name in enumerate(names)}
    group_by = "subject" if subjects_known else "image_id"
    folds = pd.DataFrame(
        {"cell_id": development["cell_id"], "fold": development[group_by].map(fold_of).astype("int64")}
    )
    write_table(run.folds, folds, group_by=group_by, n_folds=str(n_folds), seed="0")
    fold_list = range(n_folds) if scheme == "kfold" else [0]
    tasks = [TaskKey(m, s, f) for m in models for s in seeds for f in fold_list]
    for key in tasks:
        if key not in skip:
            skill = 1.0 + 0.6 * list(models).index(key.model)
            _write_task(run, key, opened, config, folds, skill)
    return FakeRun(run, opened, config, tasks)


def _cells(
    rng: np.random.Generator, n_dev: int, n_ext: int, class_names: Sequence[str], n_subjects: int, n_ext_subjects: int
) -> pd.DataFrame:
    n = n_dev + n_ext
    is_dev = np.arange(n) < n_dev
    k = len(class_names)
    share = np.linspace(2, 1, k) / np.linspace(2, 1, k).sum()
    subject = np.where(is_dev, rng.integers(0, n_subjects, n), 100 + rng.integers(0, max(n_ext_subjects, 1), n))
    groups = np.array(["sham", "ischemia", "ischemia+hypothermia"])
    return pd.DataFrame(
        {
            "cell_id": [f"cell{i:05d}" for i in range(n)],
            "label": np.asarray(class_names)[rng.choice(k, n, p=share)],
            "subject": [f"sheep{s:03d}" for s in subject],
            "image_id": [f"s{s:03d}_image{i}" for s, i in zip(subject, rng.integers(0, 4, n), strict=True)],
            "region": np.array(["CA1", "CA3", "DG"])[rng.integers(0, 3, n)],
            "group": groups[subject % 3],
            "set": np.where(is_dev, "development", "external"),
            "x_px": 10.0,
            "y_px": 10.0,
            "area_px": 100,
            "image_sha256": "0" * 64,
            "crop_phash": "0" * 16,
            "source": "fake",
        }
    )


def _save_study(
    root: Path, cells: pd.DataFrame, class_names: tuple[str, ...], window_px: int, name: str, rng: np.random.Generator
) -> None:
    root.mkdir(parents=True)
    study = Study(
        name=name,
        class_names=class_names,
        um_per_px=0.5,
        window_px=window_px,
        regions=("CA1", "CA3", "DG"),
        groups=("sham", "ischemia", "ischemia+hypothermia"),
    )
    save_tables(root, study, cells)
    with CropWriter(root / "crops.npy", n_cells=len(cells), window_px=window_px) as writer:
        for label in cells["label"]:
            writer.append(_crop(rng, window_px, list(class_names).index(label) / max(1, len(class_names) - 1)))


def _crop(rng: np.random.Generator, size: int, severity: float) -> NDArray[np.uint8]:
    crop = np.zeros((size, size, 4), np.uint8)
    crop[..., :3] = np.clip(rng.normal([222, 200, 222], 5, (size, size, 3)), 0, 255).astype(np.uint8)
    centre, radius = (size // 2, size // 2), max(3, int(size * (0.36 - 0.16 * severity)))
    mask = np.zeros((size, size), np.uint8)
    cv2.ellipse(mask, centre, (radius, int(radius * 0.8)), float(rng.uniform(0, 180)), 0, 360, 255, -1)
    crop[mask > 0, :3] = (150 - 70 * severity, 90 - 50 * severity, 160 - 60 * severity)
    crop[..., 3] = mask
    return crop


def _write_task(
    run: RunFolder, key: TaskKey, opened: OpenStudy, config: ExperimentConfig, folds: pd.DataFrame, skill: float
) -> None:
    rng = np.random.default_rng([key.seed, key.fold, len(key.model), ord(key.model[0])])
    test_ids = set(folds.loc[folds["fold"] == key.fold, "cell_id"]) if config.cv.scheme == "kfold" else set()
    is_test = opened.cells["cell_id"].isin(test_ids).to_numpy()
    is_external = (opened.cells["set"] == "external").to_numpy()
    stop_fold = (key.fold + 1) % config.cv.n_folds if config.cv.scheme == "kfold" else 0
    is_stop = opened.cells["cell_id"].isin(set(folds.loc[folds["fold"] == stop_fold, "cell_id"])).to_numpy()
    wanted = [
        ("predictions", is_test, "development"),
        ("external", is_external, "external"),
        ("validation", is_stop, "development"),
    ]
    for name, mask, set_name in wanted:
        if mask.any():
            _predict(rng, key, opened, mask, set_name, skill).save(run.task(key) / f"{name}.parquet")
    history = _history(rng, opened.study.class_names, head=key.model.endswith("head"))
    write_text(run.task(key) / "history.csv", history.to_csv(index=False))
    result = {
        "schema_version": 1, "model": key.model, "arch": key.model, "strategy": "finetune", "fold": key.fold,
        "seed": key.seed, "config_hash": config.content_hash(), "data_hash": opened.data_hash, "best_epoch": 4,
        "n_train": 300, "n_stop": 100, "n_test": int(is_test.sum()), "n_external": int(is_external.sum()),
        "wall_s": 12.5, "peak_memory_mib": 800.0, "n_params": 123456,
        "inference_s_per_cell": {"batch1": 0.004 + 0.001 * key.fold, "batched": 0.001},
        "weights": {"source": "made up", "sha256": "ab" * 32, "licence": "Apache-2.0"},
        "versions": versions(), "threads": 1,
    }  # fmt: skip
    write_json(run.task(key) / "result.json", result)


def _predict(
    rng: np.random.Generator, key: TaskKey, opened: OpenStudy, mask: NDArray[np.bool_], set_name: str, skill: float
) -> Predictions:
    labels = opened.labels[mask]
    k = len(opened.study.class_names)
    subject = opened.cells.loc[mask, "subject"].fillna("x").astype("category").cat.codes.to_numpy()
    severity = labels + np.linspace(-0.4, 0.4, max(1, subject.max() + 1))[subject] + rng.normal(0, 0.7, len(labels))
    logits = -skill * np.abs(severity[:, None] - np.arange(k)[None, :])
    prob = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Predictions(
        cell_id=opened.cells.loc[mask, "cell_id"].to_numpy(dtype=str),
        prob_nk=np.round(prob, 2).astype(np.float32) / np.round(prob, 2).sum(axis=1, keepdims=True).astype(np.float32),
        label_n=labels,
        class_names=opened.study.class_names,
        model=key.model,
        fold=key.fold,
        seed=key.seed,
        set=set_name,
    )


def _history(rng: np.random.Generator, class_names: Sequence[str], *, head: bool) -> pd.DataFrame:
    n = 7 if head else 12
    epochs = np.arange(n)
    frame = pd.DataFrame({"epoch": epochs})
    if head:
        frame["penalty"] = np.geomspace(1e-4, 1e-1, n)
    else:
        frame["lr"] = 1e-3 * np.cos(epochs / n * np.pi / 2)
    for part, floor in (("train", 0.2), ("stop", 0.4)):
        for suffix in ["", *(f"_{name}" for name in class_names)]:
            decay = floor + 0.8 * np.exp(-epochs / 3) + rng.normal(0, 0.03, n) + 0.05 * len(suffix) / 10
            frame[f"{part}_loss{suffix}"] = decay
            frame[f"{part}_accuracy{suffix}"] = np.clip(1 - 0.5 * decay, 0, 1)
    return frame
