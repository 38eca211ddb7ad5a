"""A model of a run: its description and its trained networks, as they lie in the run folder."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perikarya.config import ExperimentConfig, ModelConfig
from perikarya.errors import RunError, UnknownNameError
from perikarya.evaluate.calibration import NONE
from perikarya.evaluate.calibrators import Calibration, fit_calibration
from perikarya.evaluate.conformal import fit_conformal
from perikarya.evaluate.outputs import load_predictions, load_result
from perikarya.experiment.plan import load_run_config, run_hashes, task_keys
from perikarya.models.trained import trained_network
from perikarya.palette import class_colours
from perikarya.predict.manifest import ModelManifest, ModelStudy, NetworkFile, PretrainedWeights
from perikarya.runs import RunFolder, TaskKey, file_sha256, read_json
from perikarya.schema import NO_LABEL, Predictions, Study

if TYPE_CHECKING:
    from perikarya.models.build import CellNetwork

log = logging.getLogger(__name__)

_SCORES = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc", "loss", "ece", "qwk")
_COUNTS = ("n_cells", "n_subjects", "n_images", "unit")
_OF_CLASS = ("recall", "precision", "f1", "auc", "n")


@dataclass(frozen=True)
class RunModel:
    """A model as it lies in a run folder, with the same manifest as an exported one.

    Attributes
    ----------
    manifest
        Of format ``safetensors``; ``networks[i].sha256`` is of the file with what was trained, in its task's folder.
    keys
        The task of each network.
    build
        Builds the network at a position of ``manifest.networks``, ready for inference: pixels (n, 4, side, side) in,
        logits out. The last one built is kept.
    """

    manifest: ModelManifest
    keys: tuple[TaskKey, ...]
    build: Callable[[int], CellNetwork] = field(compare=False)

    @cached_property
    def sha256(self) -> str:
        """Hash of the manifest, which names the hashes of all that was trained."""
        return hashlib.sha256(self.manifest.model_dump_json().encode()).hexdigest()


def model_of_run(
    run: RunFolder,
    name: str | None = None,
    *,
    seed: int | None = None,
    folds: Sequence[int] | None = None,
) -> RunModel:
    """Describe one model of an evaluated run.

    Parameters
    ----------
    run
        The run folder.
    name
        A model, or its entry in ``results.json`` (such as ``lite0 (ensemble)``); None: the leading one.
    seed
        The networks of this seed; None: the first that has any.
    folds
        The networks of these test folds; None: all that are finished.

    Raises
    ------
    ConfigError
        If there is no such model.
    RunError
        If the run was not evaluated, or no such network is finished.
    """
    config = load_run_config(run)
    results = read_json(run.results, what="the results of a run (made by 'perikarya evaluate RUN')")
    model = config.model(_base_name(results, config, name))
    entry = results["models"].get(model.name)
    if entry is None:
        raise RunError(
            f"{run.results} has no scores of {model.name}, so nobody could say how good it is.\n"
            "Fix: let the run finish, then 'perikarya evaluate RUN'."
        )
    keys = _finished(run, config, model, seed=seed, folds=folds)
    names = tuple(results["study"]["class_names"])
    outcome = {key: load_result(run, key) for key in keys}

    def build(i: int) -> CellNetwork:
        sha256 = str((outcome[keys[i]].get("weights") or {}).get("sha256", ""))
        return trained_network(run, keys[i], config, n_classes=len(names), weights_sha256=sha256)

    build = lru_cache(maxsize=1)(build)
    weights = outcome[keys[0]].get("weights") or {}
    train = config.train_of(model)
    is_head = model.strategy == "head"
    method = ((entry.get("calibration") or {}).get("advised") or {}).get("method") or NONE
    networks = _networks(run, keys, names, method=method, coverage=config.evaluate.conformal)
    manifest = ModelManifest(
        name=model.name,
        arch=model.arch,
        strategy=model.strategy,
        class_names=names,
        class_colours=tuple(class_colours(len(names))),
        window_px=results["study"]["window_px"],
        um_per_px=results["study"]["um_per_px"],
        bits=_bits(Path(config.study)),
        input_px=model.input_px or 0,
        channels=model.channels,
        ordinal=train.loss == "ordinal" and not is_head,
        tta_views=1 if is_head else train.tta_views,
        format="safetensors",
        networks=networks,
        threshold=config.evaluate.threshold,
        n_features=build(0).n_features,
        weights=PretrainedWeights(**{k: str(weights.get(k) or "") for k in ("source", "sha256", "licence")}),
        metrics=_metrics(results["models"], model.name),
        study=_study(results["study"], run),
        provenance={
            "run": run.root.resolve().name,
            "config_hash": run_hashes(run)[0],
            "trained_with": outcome[keys[0]].get("versions") or {},
            "evaluated": (results.get("provenance") or {}).get("created"),
        },
    )
    return RunModel(manifest, tuple(keys), build)


def _base_name(results: Mapping[str, Any], config: ExperimentConfig, name: str | None) -> str:
    """Return the model behind an entry of the results; without a name, that of the best entry which is one model."""
    known = {model.name for model in config.models}
    if name in known:
        return str(name)
    entries = results["models"]
    if name is not None:
        base = (entries.get(name) or {}).get("base")
        if base is None:
            raise UnknownNameError("model", name, known)
        if base not in known:
            raise RunError(
                f"'{name}' averages networks of several models; one folder holds the networks of one.\n"
                f"Fix: export each of them ({', '.join(sorted(known))})."
            )
        return str(base)
    leading = [str(entries[r["model"]].get("base", r["model"])) for r in results["ranking"] if r["model"] in entries]
    return next((base for base in leading if base in known), config.models[0].name)


def _finished(
    run: RunFolder, config: ExperimentConfig, model: ModelConfig, *, seed: int | None, folds: Sequence[int] | None
) -> list[TaskKey]:
    own = [key for key in task_keys(config) if key.model == model.name]
    done = [key for key in own if run.task_is_done(key) and seed in (None, key.seed)]
    done = [key for key in done if key.seed == done[0].seed]
    missing = sorted(set(folds or ()) - {key.fold for key in done})
    if not done or missing:
        which = f" of fold {missing[0]}" if missing else ""
        which += f" with seed {seed}" if seed is not None else ""
        raise RunError(
            f"{model.name} has no finished training{which}, so there is no network to predict with.\n"
            "Fix: finish the run with the command that started it; 'perikarya status' shows how far it is."
        )
    if len(done) < len([key for key in own if key.seed == done[0].seed]):
        log.warning("%s: only %d of its networks are finished; the others are left out.", model.name, len(done))
    return [key for key in done if folds is None or key.fold in folds]


def _networks(
    run: RunFolder, keys: Sequence[TaskKey], names: tuple[str, ...], *, method: str, coverage: float
) -> tuple[NetworkFile, ...]:
    """Describe each network, with what is fitted to the cells that stopped its training."""
    validation = load_predictions(run, keys, names, which="validation")
    made = []
    for key in keys:
        calibration, conformal = _fits(validation.get(key), method=method, coverage=coverage)
        path = run.task(key) / "model.safetensors"
        made.append(
            NetworkFile(
                file=f"fold{key.fold}.safetensors",
                sha256=file_sha256(path) if path.is_file() else "",
                seed=key.seed,
                fold=key.fold,
                calibration=calibration,
                conformal=conformal,
            )
        )
    return tuple(made)


def _fits(
    validation: Predictions | None, *, method: str, coverage: float
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Fit the advised calibration, and conformal sets to what it makes of the same cells."""
    if validation is None:
        return None, None
    known = validation.label_n != NO_LABEL
    prob_nk, label_n = validation.prob_nk[known].astype(np.float64), validation.label_n[known]
    calibration: Calibration | None = None
    if method != NONE:
        calibration = fit_calibration(method, prob_nk, label_n)
        prob_nk = calibration.apply(prob_nk)
    sets = fit_conformal(prob_nk, label_n, coverage=coverage)
    return None if calibration is None else calibration.to_dict(), sets.to_dict()


def _bits(study: Path) -> int | None:
    """Return how many bits of 16-bit images the study kept; None where all had 8, or the study is not here."""
    if not (study / "study.yaml").is_file():
        log.warning("%s is not here; how it brought 16-bit images to 8 bits is not known, all bits are taken.", study)
        return None
    found = Study.load(study / "study.yaml").provenance.get("bits_of_16bit_images")
    return None if found is None else int(found)


def _study(described: Mapping[str, Any], run: RunFolder) -> ModelStudy:
    sets = described["sets"].values()
    animals = [part["n_subjects"] for part in sets]
    return ModelStudy(
        name=described["name"],
        data_hash=run_hashes(run)[1],
        n_cells=sum(part["n_cells"] for part in sets),
        n_subjects=None if None in animals else sum(animals),
    )


def _metrics(entries: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Keep the scores of one view of a cell: of single networks, and of the mean over them on external cells."""
    kept = {set_name: _trimmed(entries[name].get(set_name)) for set_name in ("cv", "external")}
    together = next(
        (e for e in entries.values() if e.get("base") == name and e["kind"] == "ensemble" and not e.get("tta")), None
    )
    if together is not None:
        kept["ensemble"] = _trimmed(together.get("external"))
    return {set_name: block for set_name, block in kept.items() if block is not None}


def _trimmed(block: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if block is None:
        return None
    per_class = {k: {s: values.get(s) for s in _OF_CLASS} for k, values in block["per_class"].items()}
    return {key: block.get(key) for key in (*_COUNTS, *_SCORES)} | {
        "per_class": per_class,
        "confusion": block["confusion"],
    }
