"""Whole fields: every outlined cell of an image, classified.

A field is predicted in small batches, several at once: each thread rasterises, cuts, resizes and asks the network for
the cells of its batch, and keeps probabilities only. So memory does not grow with the picture, nor with its cells
beyond their outlines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from perikarya.data.identity import cell_digest
from perikarya.data.outlines import ReadOptions
from perikarya.data.outlines.base import CellMask, Outline, Problem
from perikarya.data.outlines.raster import mask_of
from perikarya.data.outlines.regions import region_names
from perikarya.data.windows import cut_from_picture
from perikarya.errors import DataError
from perikarya.predict.inputs import FieldInput
from perikarya.predict.networks import Networks
from perikarya.predict.opening import FieldError, OpenField, open_field

_PIECES = 8  # of a field with few cells, so that all cores have some
_BAND_PX = 512  # cells are cut band by band, for neighbours share the tiles of a large image

Advance = Callable[[float], object]  # called with the number of cells, or the share of all, that is done


@dataclass(frozen=True)
class PredictOptions:
    """How cells are predicted.

    Attributes
    ----------
    tta
        Average over flips and quarter turns of each cell.
    ensemble
        Average over all networks of the model; else its first one answers.
    calibrated
        Apply the calibration each network came with.
    threshold
        Abstain where the largest probability is below; None: the model's own threshold.
    batch_size
        Cells in a network at once; None: what suits the network.
    threads
        Of the network; None: all cores.
    backend
        ``auto``, ``onnxruntime``, ``openvino`` or ``torch``.
    features
        Keep the network's features of each cell, too.
    um_per_px
        Scale of images that do not tell theirs.
    read
        What names in the files of outlines mean.
    """

    tta: bool = False
    ensemble: bool = False
    calibrated: bool = True
    threshold: float | None = None
    batch_size: int | None = None
    threads: int | None = None
    backend: str = "auto"
    features: bool = False
    um_per_px: float | None = None
    read: ReadOptions = field(default_factory=ReadOptions)


@dataclass(frozen=True)
class PredictedField:
    """The cells of one field and what the model says of them; every array has one entry per cell, in file order.

    Attributes
    ----------
    item
        What was asked for.
    height, width, um_per_px, image_sha256
        Of the image; the scale is None where nobody tells it.
    outlines
        The outlined objects that were predicted.
    regions
        The annotated regions of the same file.
    cell_id
        Shape (n,); what ``study import`` of the same files gives.
    prob_nk, code_n, abstained_n
        Probabilities, shape (n, n_classes), float32; the most probable class; whether its probability is below the
        threshold.
    label_n, region_n
        The class the file already gives, the region the cell lies in; None where it has none.
    x_px, y_px, area_px
        Centroid and area of the outline, in pixels of the image.
    feature_nf
        Features of the first network, where they were asked for.
    problems
        (What the file calls the object, reason) of outlines that could not be predicted.
    notes
        Sentences for the log.
    """

    item: FieldInput
    height: int
    width: int
    um_per_px: float | None
    image_sha256: str
    outlines: tuple[Outline, ...]
    regions: tuple[Outline, ...]
    cell_id: NDArray[np.str_]
    prob_nk: NDArray[np.float32]
    code_n: NDArray[np.int64]
    abstained_n: NDArray[np.bool_]
    label_n: NDArray[np.object_]
    region_n: NDArray[np.object_]
    x_px: NDArray[np.float64]
    y_px: NDArray[np.float64]
    area_px: NDArray[np.int64]
    feature_nf: NDArray[np.float32] | None = None
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Piece:
    """Some cells of a field that were predicted; ``problems`` are (position of the outline, reason)."""

    position_m: NDArray[np.int64]
    digest_m: list[str]
    centre_m2: NDArray[np.float64]
    area_m: NDArray[np.int64]
    prob_mk: NDArray[np.float32]
    feature_mf: NDArray[np.float32] | None
    problems: list[tuple[int, str]]


def predict_field(item: FieldInput, networks: Networks, options: PredictOptions) -> PredictedField:
    """Predict the cells of one field.

    Raises
    ------
    FieldError
        If the image or its outlines cannot be used, or none of the outlines can.
    """
    opened = open_field(item, networks.manifest, options)
    with opened.picture, networks.workers() as pool:
        return predict_opened(opened, networks, pool, threshold=options.threshold)


def predict_opened(
    opened: OpenField,
    networks: Networks,
    pool: Executor,
    *,
    threshold: float | None = None,
    advance: Advance = lambda _: None,
) -> PredictedField:
    """Predict the cells of a field that is open, in the threads of ``pool``.

    Raises
    ------
    FieldError
        If none of its outlines can be used.
    """
    size = min(networks.batch_size, -(-len(opened.cells) // _PIECES))
    order = _by_place(opened.cells)
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    pieces = []
    for batch, piece in zip(batches, pool.map(partial(_predict_piece, opened, networks), batches), strict=True):
        pieces.append(piece)
        advance(len(batch))
    return _assembled(opened, networks, pieces, threshold)


def _by_place(outlines: Sequence[Outline]) -> NDArray[np.int64]:
    """Return the order in which cells are cut: by bands of rows, and from left to right in each."""
    corners = np.array([_corner(outline) for outline in outlines], np.float64)
    corners = np.nan_to_num(corners)  # refused when they are rasterised
    return np.lexsort((corners[:, 0], corners[:, 1] // _BAND_PX))


def _corner(outline: Outline) -> tuple[float, float]:
    if outline.mask is not None:
        return float(outline.mask.x), float(outline.mask.y)
    ring = outline.rings[0] if outline.rings else np.empty((0, 2))
    return (float(ring[0, 0]), float(ring[0, 1])) if len(ring) else (0.0, 0.0)


def _predict_piece(opened: OpenField, networks: Networks, positions: NDArray[np.int64]) -> _Piece:
    manifest = networks.manifest
    problems: list[tuple[int, str]] = []
    kept: list[int] = []
    masks: list[CellMask] = []
    crops = np.empty((len(positions), manifest.window_px, manifest.window_px, 4), np.uint8)
    for position in positions.tolist():
        try:
            mask = mask_of(opened.cells[position], height=opened.picture.height, width=opened.picture.width)
            crops[len(kept)] = cut_from_picture(
                opened.picture, mask, window_px=manifest.window_px, scale=opened.scale, bits=opened.bits
            )
        except DataError as error:  # of the outline, or of its place in the picture
            problems.append((position, str(error)))
            continue
        kept.append(position)
        masks.append(mask)
    sha256 = opened.picture.sha256
    prob_mk, feature_mf = np.empty((0, manifest.n_classes), np.float32), None
    if kept:
        prob_mk, feature_mf = networks.prob(crops[: len(kept)])
    return _Piece(
        position_m=np.array(kept, np.int64),
        digest_m=[cell_digest(sha256, mask.mask_hw, offset_xy=(mask.x, mask.y)) for mask in masks],
        centre_m2=np.array([_centroid(mask) for mask in masks], np.float64).reshape(-1, 2),
        area_m=np.array([np.count_nonzero(mask.mask_hw) for mask in masks], np.int64),
        prob_mk=prob_mk,
        feature_mf=feature_mf,
        problems=problems,
    )


def _centroid(mask: CellMask) -> tuple[float, float]:
    rows, columns = np.nonzero(mask.mask_hw)
    return mask.x + float(columns.mean()), mask.y + float(rows.mean())


def _assembled(
    opened: OpenField, networks: Networks, pieces: Sequence[_Piece], threshold: float | None
) -> PredictedField:
    """Bring the pieces into the order of the file, each cell once."""
    position = np.concatenate([piece.position_m for piece in pieces])
    digests = np.array([digest for piece in pieces for digest in piece.digest_m], dtype=str)
    order, twice = _each_once(opened.cells, position, digests)
    problems = sorted([*(problem for piece in pieces for problem in piece.problems), *twice])
    named = [*opened.problems, *((opened.cells[i].key, reason) for i, reason in problems)]
    if not len(order):
        raise FieldError(opened.item, [*named, ("", f"none of its {len(opened.cells)} outlines can be used")])
    position = position[order]
    centre_n2 = np.concatenate([piece.centre_m2 for piece in pieces])[order]
    prob_nk = np.concatenate([piece.prob_mk for piece in pieces])[order]
    features = [piece.feature_mf for piece in pieces if piece.feature_mf is not None]
    region_n, of_regions = region_names(opened.regions, centre_n2 + 0.5)  # centroids count from pixel centres
    least = networks.manifest.threshold if threshold is None else threshold
    outlines = tuple(opened.cells[i] for i in position.tolist())
    label_n = np.full(len(outlines), None, object)
    label_n[:] = [outline.label for outline in outlines]
    return PredictedField(
        item=opened.item,
        height=opened.picture.height,
        width=opened.picture.width,
        um_per_px=opened.um_per_px,
        image_sha256=opened.picture.sha256,
        outlines=outlines,
        regions=opened.regions,
        cell_id=digests[order],
        prob_nk=prob_nk,
        code_n=prob_nk.argmax(axis=1),
        abstained_n=prob_nk.max(axis=1) < least,
        label_n=label_n,
        region_n=region_n,
        x_px=centre_n2[:, 0],
        y_px=centre_n2[:, 1],
        area_px=np.concatenate([piece.area_m for piece in pieces])[order],
        feature_nf=np.concatenate(features)[order] if features else None,
        problems=(*named, *of_regions),
        notes=opened.notes,
    )


def _each_once(
    cells: Sequence[Outline], position: NDArray[np.int64], digests: NDArray[np.str_]
) -> tuple[NDArray[np.int64], list[tuple[int, str]]]:
    """Return the order of the file without cells that have the very pixels of an earlier one; and these as problems.

    Whoever counts cells would count them twice; an import refuses them, too.
    """
    first_of: dict[str, int] = {}
    kept, problems = [], []
    for i in np.argsort(position).tolist():
        first = first_of.setdefault(str(digests[i]), int(position[i]))
        if first == position[i]:
            kept.append(i)
        else:
            problems.append((int(position[i]), f"has the same outline as {cells[first].key}; a cell counts once"))
    return np.array(kept, np.int64), problems
