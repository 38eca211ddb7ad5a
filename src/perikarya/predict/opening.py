"""One field before it is predicted: its picture, its outlines, and at which scale windows are cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perikarya.data.images import ImageError, bits_needed
from perikarya.data.outlines import read_outlines
from perikarya.data.outlines.base import Outline, OutlineFile, Problem
from perikarya.data.pictures import open_picture
from perikarya.data.windows import SAME_SCALE, scale_of
from perikarya.errors import DataError

if TYPE_CHECKING:
    from perikarya.data.pictures import Picture
    from perikarya.predict.fields import PredictOptions
    from perikarya.predict.inputs import FieldInput
    from perikarya.predict.manifest import ModelManifest


class FieldError(DataError):
    """A field cannot be predicted; ``problems`` are (the object in its file of outlines or "", reason)."""

    def __init__(self, item: FieldInput, problems: Sequence[Problem]) -> None:
        self.item = item
        self.problems = tuple(problems)
        super().__init__(f"{item.image}: {'; '.join(reason for _, reason in problems)}")


@dataclass(frozen=True)
class OpenField:
    """A field that can be predicted.

    Attributes
    ----------
    picture
        Open; whoever has the field closes it.
    cells, regions
        Outlines that are cells and those that hold cells.
    um_per_px
        Scale of the image; None where nobody tells it.
    scale
        Pixels of the image per pixel of a window.
    bits
        How many bits of a 16-bit image count.
    problems, notes
        Of the file of outlines, and of how it was understood.
    """

    item: FieldInput
    picture: Picture
    cells: tuple[Outline, ...]
    regions: tuple[Outline, ...]
    um_per_px: float | None
    scale: float
    bits: int
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]


def open_field(item: FieldInput, manifest: ModelManifest, options: PredictOptions) -> OpenField:
    """Open a picture, read its outlines and settle its scale.

    Raises
    ------
    FieldError
        If the image or its outlines cannot be read, hold no cell, or do not fit the model's scale.
    """
    try:
        picture = open_picture(item.image)
    except ImageError as error:
        raise FieldError(item, [("", f"the image cannot be used: {error}")]) from None
    try:
        return _opened(item, picture, manifest, options)
    except ImageError as error:
        picture.close()
        raise FieldError(item, [("", f"the image cannot be used: {error}")]) from None
    except BaseException:
        picture.close()
        raise


def _opened(item: FieldInput, picture: Picture, manifest: ModelManifest, options: PredictOptions) -> OpenField:
    file = _outlines(item, picture, options)
    cells = tuple(outline for outline in file.outlines if outline.kind == "cell")
    if not cells:
        raise FieldError(item, [*file.problems, ("", f"{item.outlines.name} holds no outline of a cell")])
    um_per_px, notes = _scale(item, picture, manifest, options)
    bits = _bits(item, picture, manifest)
    _ = picture.sha256  # takes as long as reading the image: here it is done while the field before is predicted
    return OpenField(
        item=item,
        picture=picture,
        cells=cells,
        regions=tuple(outline for outline in file.outlines if outline.kind == "region"),
        um_per_px=um_per_px,
        scale=scale_of(um_per_px, manifest.um_per_px),
        bits=bits,
        problems=file.problems,
        notes=(*file.notes, *notes),
    )


def _outlines(item: FieldInput, picture: Picture, options: PredictOptions) -> OutlineFile:
    try:
        file = read_outlines(item.outlines, options=options.read, image=item.image)
        file.check_size(height=picture.height, width=picture.width)
    except DataError as error:
        raise FieldError(item, [("", f"{item.outlines.name} cannot be used: {error}")]) from None
    return file


def _scale(
    item: FieldInput, picture: Picture, manifest: ModelManifest, options: PredictOptions
) -> tuple[float | None, list[str]]:
    """Return the scale of a field: what a table says of it, else the image, else what holds for all images."""
    told = [scale for scale in (item.um_per_px, picture.um_per_px, options.um_per_px) if scale is not None]
    if not told:
        if manifest.um_per_px is None:
            return None, []
        reason = (
            f"the image does not tell its scale, and {manifest.name} was trained at {manifest.um_per_px:.4g} µm per "
            "pixel; a cell of another size would look like one of another class. Fix: --um-per-px"
        )
        raise FieldError(item, [("", reason)])
    notes = []
    if manifest.um_per_px is None:
        notes.append(
            f"{manifest.name} was trained without a scale; windows are {manifest.window_px} px, whatever the image's "
            f"{told[0]:.4g} µm per pixel."
        )
    others = [scale for scale in told[1:] if abs(scale / told[0] - 1) > SAME_SCALE]
    if others:
        notes.append(f"Taken as {told[0]:.4g} µm per pixel, though {others[0]:.4g} is also named for it.")
    return told[0], notes


def _bits(item: FieldInput, picture: Picture, manifest: ModelManifest) -> int:
    """Return how many bits of a 16-bit image count: as many as in training, else as many as it has."""
    needed = bits_needed(picture.max_16bit)
    if picture.max_16bit and manifest.bits is not None and needed > manifest.bits:
        reason = (
            f"its brightest pixel is {picture.max_16bit}, but {manifest.name} was trained on images of {manifest.bits} "
            f"bits; all above {2**manifest.bits - 1} would turn white. Fix: export it with {manifest.bits} bits"
        )
        raise FieldError(item, [("", reason)])
    return manifest.bits or needed
