"""The ``README.md`` of an exported model: what a person must know who finds the folder alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from perikarya.predict.manifest import Format, ModelManifest

_SETS = {
    "external": "external cells, each network alone",
    "ensemble": "external cells, mean over all networks of the run",
    "cv": "cross-validation",
}
_SCORES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_auc": "AUC", "ece": "ECE"}
_EXTRAS: dict[Format, str] = {"onnx": "predict", "openvino": "openvino", "safetensors": "train"}
_SPECIAL = re.compile(r"([\\`*_<>|#&\[\]!])")


def card(manifest: ModelManifest, *, sha256: str) -> str:
    """Write the card of a model.

    Parameters
    ----------
    manifest
        Of the model.
    sha256
        Of its ``model.json``.
    """
    parts = [
        f"# {_plain(manifest.name)}",
        _what(manifest),
        "Research use only: not for diagnosis, nor for any decision about a patient or a single animal.",
        f"## Classes\n\n{_classes(manifest)}",
        f"## What it must be shown\n\n{_scale(manifest)}",
        f"## How good it is\n\n{_scores(manifest)}",
        f"## Licence\n\n{_licence(manifest)}",
        f"## Use\n\n{_use(manifest)}",
        f"## Identity\n\nSHA-256 of `model.json`, which holds those of all other files: `{sha256}`",
    ]
    return "\n\n".join(parts) + "\n"


def _what(manifest: ModelManifest) -> str:
    study, n = manifest.study, len(manifest.networks)
    animals = "" if study.n_subjects is None else f" of {study.n_subjects} animals"
    networks = "one network" if n == 1 else f"{n} networks whose probabilities are averaged"
    calibrated = sum(network.calibration is not None for network in manifest.networks)
    said = [
        f"Gives an outlined cell the probabilities of {manifest.n_classes} classes. It holds {networks} "
        f"({manifest.arch}, strategy '{manifest.strategy}'), as {manifest.format} in {manifest.precision}, trained on "
        f"the study '{_plain(study.name)}' ({study.n_cells} cells{animals}, data {study.data_hash}).",
        "Probabilities are calibrated on cells no network was trained on."
        if calibrated == n
        else "Probabilities are not calibrated.",
    ]
    if manifest.agreement is not None:
        found = manifest.agreement
        said.append(
            f"Beside torch in fp32, on {found.cells} {found.of}: probabilities differ by {found.max_abs_diff:.2g} at "
            f"most, the most probable class is the same on {100 * found.same_class:.4g} %."
        )
    return " ".join(said)


def _classes(manifest: ModelManifest) -> str:
    shown = next((name for name in ("external", "cv") if name in manifest.metrics), None)
    per_class = manifest.metrics[shown]["per_class"] if shown else {}
    head = ["class", "colour", *([f"recall ({_SETS[shown]})", "cells"] if shown else [])]
    rows = []
    for name, colour in zip(manifest.class_names, manifest.class_colours, strict=True):
        found = per_class.get(name, {})
        scores = [_value(found.get("recall")), str(found.get("n", ""))] if shown else []
        rows.append([_plain(name), f"`{colour}`", *scores])
    return _table(head, rows)


def _scale(manifest: ModelManifest) -> str:
    window = f"A square window of {manifest.window_px} px around the outline"
    if manifest.um_per_px is None:
        scale = f"{window}; the study's scale is not known, so nobody checks that cells appear in the same size."
    else:
        scale = (
            f"{window}, {manifest.window_um:.4g} µm at {manifest.um_per_px:.4g} µm per pixel. Other scales are refused."
        )
    views = f" Its run averaged over {manifest.tta_views} views of a cell (`--tta`)." if manifest.tta_views > 1 else ""
    return f"{scale} It is brought to {manifest.input_px} px; the network sees: {manifest.channels}.{views}"


def _scores(manifest: ModelManifest) -> str:
    rows = [
        [words, str(block["n_cells"]), *[_value(block.get(score)) for score in _SCORES]]
        for name, words in _SETS.items()
        if (block := manifest.metrics.get(name)) is not None
    ]
    if not rows:
        return "It was not measured."
    unit = next(iter(manifest.metrics.values())).get("unit") or "cell"
    note = f"Intervals in brackets are over the unit '{unit}', of networks in torch and fp32, before calibration."
    return f"{_table(['cells', 'n', *_SCORES.values()], rows)}\n\n{note}"


def _licence(manifest: ModelManifest) -> str:
    weights = manifest.weights
    if weights.source == "random":
        return "It was trained from random weights; whoever trained it decides."
    return (
        f"It started from {_plain(weights.source)}, licence: {_plain(weights.licence) or 'not stated'}. Their "
        "licence may bind this model too; pass it on with the folder."
    )


def _use(manifest: ModelManifest) -> str:
    return (
        f'```\npip install "perikarya[{_EXTRAS[manifest.format]}]"\n'
        "perikarya predict THIS_FOLDER field.tif --outlines field.geojson --out predicted\n```\n\n"
        "Describe where it came from by the hash below; the folder may be copied and renamed, its files may not change."
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def _value(value: Mapping[str, Any] | None) -> str:
    if value is None or value.get("mean") is None:
        return "–"
    interval = value.get("ci95")
    bounds = "" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})"
    return f"{value['mean']:.3f}{bounds}"


def _plain(text: str) -> str:
    """Return text that Markdown shows as itself, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
