"""``predict.json``: which model predicted what, with which options and software."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perikarya.predict.manifest import ModelManifest
from perikarya.predict.outputs.summary import Summary, agreement
from perikarya.runs import provenance, write_json

PREDICT_SCHEMA_VERSION = 1


def write_record(
    path: Path,
    *,
    manifest: ModelManifest,
    model_sha256: str,
    options: Mapping[str, Any],
    images: Sequence[Mapping[str, Any]],
    summary: Summary,
    n_problems: int,
    shards: Mapping[str, Any] | None = None,
) -> None:
    """Write what a prediction was made from and what it came to.

    Parameters
    ----------
    path
        Of ``predict.json``.
    manifest, model_sha256
        Of the model.
    options
        As they took effect, ready for JSON.
    images
        Per image its id, files and hashes.
    summary
        The counts.
    n_problems
        Rows of ``problems.csv``.
    shards
        Of a prediction in shards its parts, whose metadata name their images.
    """
    everything = summary.of("all").get(())
    n_k = [0] * manifest.n_classes if everything is None else everything.n_k.tolist()
    content = {
        "schema_version": PREDICT_SCHEMA_VERSION,
        "model": {
            "name": manifest.name,
            "sha256": model_sha256,
            "arch": manifest.arch,
            "format": manifest.format,
            "precision": manifest.precision,
            "class_names": manifest.class_names,
            "study": manifest.study.model_dump(mode="json"),
        },
        "options": dict(options),
        "n_images": len(images) or (shards or {}).get("n_images", 0),
        "n_cells": sum(n_k),
        "n_abstained": 0 if everything is None else everything.n_abstained,
        "classes": dict(zip(manifest.class_names, n_k, strict=True)),
        "with_class_in_file": {"n_cells": summary.n_labelled, "agreement": agreement(summary.confusion_kk)},
        "n_problems": n_problems,
        "images": [dict(image) for image in images],
        **({} if shards is None else {"shards": dict(shards)}),
        "provenance": provenance(),
    }
    write_json(path, content)
