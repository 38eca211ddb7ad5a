"""Predicted cells for QuPath: the objects of the file, classified and measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from perikarya.data.outlines.geojson_read import OURS
from perikarya.data.outlines.geojson_write import GeoCell, write_geojson
from perikarya.predict.fields import PredictedField
from perikarya.predict.manifest import ModelManifest
from perikarya.predict.outputs.marks import UNSURE_COLOUR, unsure_name


def write_geo(path: Path, field: PredictedField, manifest: ModelManifest) -> None:
    """Write the cells and regions of a field as GeoJSON.

    A cell below the threshold gets the class ``Unsure`` in grey, so that one click in QuPath selects all cells a person
    should look at; its probabilities tell which class it would have had. Measurements: ``Perikarya: p(<class>)``,
    ``Perikarya: confidence`` (the largest of them) and, where the file gave a class of the model,
    ``Perikarya: differs from file`` (1 or 0).
    """
    write_geojson(path, _cells(field, manifest), regions=field.regions)


def _cells(field: PredictedField, manifest: ModelManifest) -> Iterator[GeoCell]:
    unsure = unsure_name(manifest.class_names)
    for i, outline in enumerate(field.outlines):
        code = int(field.code_n[i])
        class_name, colour = manifest.class_names[code], manifest.class_colours[code]
        prob_k = [round(p, 6) for p in field.prob_nk[i].tolist()]
        measurements = {f"{OURS}p({name})": p for name, p in zip(manifest.class_names, prob_k, strict=True)}
        measurements[f"{OURS}confidence"] = max(prob_k)
        if field.label_n[i] in manifest.class_names:
            measurements[f"{OURS}differs from file"] = float(field.label_n[i] != class_name)
        if field.abstained_n[i]:
            class_name, colour = unsure, UNSURE_COLOUR
        yield GeoCell(outline, class_name, colour, measurements, str(field.cell_id[i]))
