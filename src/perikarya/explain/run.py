"""Explain the networks of a finished run: numbers, maps and figures in its folder, model after model."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from perikarya.config import ExperimentConfig, ModelConfig
from perikarya.data.augment import resize_batch
from perikarya.data.store import OpenStudy
from perikarya.errors import PerikaryaError, RunError, UnknownNameError
from perikarya.evaluate.metrics import Floats, Ints
from perikarya.evaluate.outputs import Scored, TaskOutput, load_outputs
from perikarya.evaluate.saliency import (
    CellShares,
    DrawnMaps,
    explained_path,
    load_explained,
    maps_path,
    summarise_shares,
)
from perikarya.experiment.plan import task_keys
from perikarya.explain.cells import Choice, choose_cells
from perikarya.figures.saliency import SaliencyFigure, inside_figure, model_figure
from perikarya.figures.style import save_figure
from perikarya.models.build import CellNetwork
from perikarya.models.explain import METHODS, Method, advised_method, class_maps, map_sources, share_inside
from perikarya.models.trained import trained_network
from perikarya.runs import RunFolder, TaskKey, write_json
from perikarya.schema import EXTERNAL, SCHEMA_VERSION, safe_name

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]  # (model, maps done, maps in all)
ADVISED = "advised"
_CHUNK = 2  # cells; models.explain takes no more at once, and a Score-CAM of one can take a minute
_MOST_DIFFERENCE = 0.2  # of the probabilities on file; float16 features make 0.01, averages over views 0.1


def explain_run(
    run: RunFolder,
    opened: OpenStudy,
    config: ExperimentConfig,
    *,
    models: Sequence[str] | None = None,
    method: Method | Literal["advised"] | None = None,
    n_per_class: int = 40,
    fold: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Explain one network of each model and write ``RUN/explain`` and its figures.

    Each model is written when it is done; models that are not asked for keep what is there from earlier calls.

    Parameters
    ----------
    run
        The run folder.
    opened
        The study it was trained on.
    config
        The run's resolved configuration.
    models
        Names; None: all but the points of a learning curve.
    method
        A method of ``models.explain``; ``advised`` or None: the one to trust for each network.
    n_per_class
        How many held-out cells of each class are measured; fewer where a class has no more.
    fold
        Whose network is explained; None: the first finished one.
    seed
        Decides which cells are taken.
    progress
        Called with (model, maps done, maps in all).

    Returns
    -------
    The models explained now, by name: their part of ``explain.json``. Where all models were asked for, one that
    cannot be explained has ``{"reason": sentence}``.

    Raises
    ------
    ConfigError
        If there is no such model or method.
    PerikaryaError
        If a model that was named cannot be explained: not finished, weights missing, a method that does not suit.
    """
    if method not in (None, ADVISED, *METHODS):
        raise UnknownNameError("method of explanation", str(method), (ADVISED, *METHODS))
    chosen = [config.model(name) for name in models or [m.name for m in config.models if m.train_subjects is None]]
    asked = _Asked(None if method == ADVISED else method, n_per_class, fold, seed, progress or (lambda *_: None))  # type: ignore[arg-type]
    found: dict[str, Any] = {}
    for model in chosen:
        try:
            entry, maps = _explain_model(run, opened, config, model, asked)
        except PerikaryaError as error:
            if models:
                raise
            log.warning("%s cannot be explained: %s", model.name, error)
            entry, maps = {"reason": str(error)}, None
        found[model.name] = entry
        if maps is not None:
            maps.save(maps_path(run, model.name))
        _write(run, config, opened, {model.name: entry})
        if maps is not None:
            _save(run, model_figure(model.name, entry, maps, opened))
    together = inside_figure(load_explained(run))
    if together is not None:
        _save(run, together)
    return found


@dataclass(frozen=True)
class _Asked:
    method: Method | None
    n_per_class: int
    fold: int | None
    seed: int
    progress: Progress


def _write(run: RunFolder, config: ExperimentConfig, opened: OpenStudy, new: dict[str, Any]) -> None:
    known = {**load_explained(run), **new}
    content = {
        "schema_version": SCHEMA_VERSION,
        "data_hash": opened.data_hash,
        "confidence": config.evaluate.confidence,
        "models": {m.name: known[m.name] for m in config.models if m.name in known},
    }
    write_json(explained_path(run), content)


def _save(run: RunFolder, drawn: SaliencyFigure) -> None:
    stem = f"{drawn.kind}_{safe_name(drawn.model)}" if drawn.model else drawn.kind
    save_figure(drawn.figure, run.figures, stem, photos=bool(drawn.model))


def _explain_model(
    run: RunFolder, opened: OpenStudy, config: ExperimentConfig, model: ModelConfig, asked: _Asked
) -> tuple[dict[str, Any], DrawnMaps]:
    names = opened.study.class_names
    output = load_outputs(run, [_finished_task(run, config, model, asked.fold)], opened.cells, names)[0]
    scored = _held_out(run, output, opened)
    sha256 = str((output.result.get("weights") or {}).get("sha256", ""))
    network = trained_network(run, output.key, config, n_classes=len(names), weights_sha256=sha256)
    network.to("cuda" if torch.cuda.is_available() else "cpu")
    side = int(model.input_px or 0)
    method = asked.method or advised_method(network)
    sources = map_sources(network, model.arch, input_hw=(side, side), method=method)
    choice = choose_cells(scored, n_per_class=asked.n_per_class, seed=asked.seed)
    difference = _difference(network, opened, scored, choice, side=side, where=str(output.key))
    made = _Maps(network, model, opened, scored, method, side).make(choice, asked.progress)
    measured = np.isin(choice.all, choice.measured)
    own = choice.all[measured]
    shares = CellShares(scored.row_n[own], scored.label_n[own], made.inside_n[measured], made.even_n[measured])
    entry = {
        **{key: getattr(model, key) for key in ("arch", "strategy", "channels", "input_px")},
        "seed": output.key.seed,
        "fold": output.key.fold,
        "set": EXTERNAL if output.external is not None else "cv",
        "method": method,
        "layers": [{"layer": s.layer, "grid": list(s.grid_hw)} for s in sources],
        "n_per_class": asked.n_per_class,
        "cells_seed": asked.seed,
        **summarise_shares(shares, opened.cells, names, config=config.evaluate),
        "difference_from_file": difference,
        "s_per_map": made.s_per_map,
    }
    return entry, made.drawn


def _finished_task(run: RunFolder, config: ExperimentConfig, model: ModelConfig, fold: int | None) -> TaskKey:
    own = [key for key in task_keys(config) if key.model == model.name and fold in (None, key.fold)]
    done = [key for key in own if run.task_is_done(key)]
    if not done:
        which = "has no finished training" if fold is None else f"has no finished training of fold {fold}"
        raise RunError(
            f"{model.name} {which}, so there is no network to explain.\n"
            "Fix: finish the run with the command that started it; 'perikarya status' shows how far it is."
        )
    return done[0]


def _held_out(run: RunFolder, output: TaskOutput, opened: OpenStudy) -> Scored:
    if output.result["data_hash"] != opened.data_hash:
        raise RunError(
            f"{output.key} was trained on other data than {opened.root} holds now.\n"
            "Its held-out cells may not be held out any more. Fix: name the study it was trained on with --study."
        )
    scored = output.external if output.external is not None else output.test
    if scored is None:
        raise RunError(
            f"{run.task(output.key)} holds no predictions of labelled held-out cells.\n"
            "Maps of cells a network was trained on say little of how it sees new ones. "
            "Fix: train with cv.scheme 'kfold', or import an external set."
        )
    return scored


@dataclass(frozen=True)
class _Made:
    """Per cell of a choice, in the order of ``Choice.all``; and the maps to draw."""

    inside_n: Floats
    even_n: Floats
    drawn: DrawnMaps
    s_per_map: float


@dataclass(frozen=True)
class _Maps:
    """Makes the maps of one network, a few cells at a time, and keeps those that are drawn."""

    network: CellNetwork
    model: ModelConfig
    opened: OpenStudy
    scored: Scored
    method: Method
    side: int

    def make(self, choice: Choice, progress: Progress) -> _Made:
        predicted_n = self.scored.prob_nk.argmax(axis=1)
        label_n = self.scored.label_n
        wrong = choice.drawn[predicted_n[choice.drawn] != label_n[choice.drawn]]
        # the map of the predicted class for all; of the true class too for those that are drawn beside it
        where = np.concatenate([choice.all, wrong])
        about = np.concatenate([predicted_n[choice.all], label_n[wrong]])
        keep = np.isin(where, choice.drawn)
        inside, even, kept = [], [], []
        started = time.perf_counter()
        for start in range(0, len(where), _CHUNK):
            part = slice(start, start + _CHUNK)
            maps_nhw, masks_nhw = self._of(where[part], about[part])
            inside.append(share_inside(maps_nhw, masks_nhw))
            even.append((masks_nhw > 0).mean(axis=(1, 2)))
            kept.append(np.round(255 * maps_nhw[keep[part]]).astype(np.uint8))
            progress(self.model.name, min(start + _CHUNK, len(where)), len(where))
        seconds = (time.perf_counter() - started) / len(where)
        drawn = DrawnMaps(
            cell_id_m=self.opened.cells["cell_id"].to_numpy(dtype=str)[self.scored.row_n[where[keep]]],
            label_m=label_n[where[keep]],
            predicted_m=predicted_n[where[keep]],
            about_m=about[keep],
            prob_m=self.scored.prob_nk[where[keep], about[keep]],
            map_mhw=np.concatenate(kept),
        )
        n = len(choice.all)
        return _Made(np.concatenate(inside)[:n], np.concatenate(even)[:n], drawn, round(seconds, 4))

    def _of(self, where: Ints, about: Ints) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        x_nhwc = _pixels(self.opened, self.scored, where, self.side)
        x_nchw = torch.from_numpy(x_nhwc).permute(0, 3, 1, 2)
        return class_maps(self.network, self.model.arch, x_nchw, about, method=self.method), x_nhwc[..., 3]


def _pixels(opened: OpenStudy, scored: Scored, where: Ints, side: int) -> NDArray[np.uint8]:
    return resize_batch(opened.read_crops(scored.row_n[where]), side)


def _difference(
    network: CellNetwork, opened: OpenStudy, scored: Scored, choice: Choice, *, side: int, where: str
) -> float:
    """Return how far the network's probabilities of the predicted classes are from those on file, on average."""
    device = next(network.parameters()).device
    gaps = []
    for position in np.array_split(choice.all, -(-len(choice.all) // 16)):
        x_nchw = torch.from_numpy(_pixels(opened, scored, position, side)).permute(0, 3, 1, 2).to(device)
        with torch.inference_mode():
            prob_nk = torch.softmax(network(x_nchw).double(), dim=1).cpu().numpy()
        predicted = scored.prob_nk[position].argmax(axis=1)
        gaps.append(np.abs(prob_nk - scored.prob_nk[position])[np.arange(len(position)), predicted])
    difference = float(np.concatenate(gaps).mean())
    if difference > _MOST_DIFFERENCE:
        raise RunError(
            f"{where}: the network in model.safetensors gives other probabilities than its predictions on file (by "
            f"{difference:.2f} on average).\nIts maps would explain another network's answers. "
            "Fix: delete the task's folder and train it again."
        )
    return round(difference, 6)
