"""Predicted cells for ImageJ and Fiji: a zip of ROIs for the ROI Manager."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from perikarya.data.outlines.roi_write import RoiCell, write_rois
from perikarya.predict.fields import PredictedField
from perikarya.predict.manifest import ModelManifest
from perikarya.predict.outputs.marks import UNSURE_COLOUR, unsure_name

log = logging.getLogger(__name__)


def write_roi_zip(path: Path, field: PredictedField, manifest: ModelManifest) -> None:
    """Write the cells of a field, their line in the colour of the class; cells below the threshold are grey.

    ``class`` and ``p(<class>)`` are properties of each ROI; so is ``group``, the number of the class counted from 1,
    and for cells below the threshold the number after the last class.
    """
    for note in write_rois(path, list(_cells(field, manifest))):
        log.warning("%s: %s", path, note)


def _cells(field: PredictedField, manifest: ModelManifest) -> Iterator[RoiCell]:
    names = (*manifest.class_names, unsure_name(manifest.class_names))
    colours = (*manifest.class_colours, UNSURE_COLOUR)
    for i, outline in enumerate(field.outlines):
        k = len(manifest.class_names) if field.abstained_n[i] else int(field.code_n[i])
        prob_k = dict(zip(manifest.class_names, field.prob_nk[i].tolist(), strict=True))
        yield RoiCell(outline, outline.name or outline.key, colours[k], names[k], k + 1, prob_k)
