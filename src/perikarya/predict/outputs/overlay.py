"""A picture for people: the field with every cell's outline in the colour of its class, and a legend below it.

Drawn with OpenCV and Pillow, which are loaded anyway; matplotlib alone would take longer to start than a field takes
to predict.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from perikarya.data.images import bits_needed
from perikarya.data.outlines.base import Ring
from perikarya.data.outlines.trace import rings_of
from perikarya.data.picture_base import Picture
from perikarya.data.pictures import open_picture
from perikarya.palette import rgb
from perikarya.predict.fields import PredictedField
from perikarya.predict.manifest import ModelManifest
from perikarya.predict.outputs.legend import LegendEntry, draw_legend
from perikarya.predict.outputs.marks import disagreeing
from perikarya.runs import write_bytes

MAX_SIDE = 4000  # px of the drawing; larger pictures are shrunk to it
MIN_SIDE = 1200  # smaller ones are enlarged to it, or the lines would be as coarse as the cells
_MAX_ENLARGED = 4
_MARGIN = 0.05  # around the outlined cells of a large picture, as a share of what they span
_STRIP_PIXELS = 16_000_000  # read at once from a large picture
_LINE, _HALO = 2, 4  # px
_DASH, _GAP = 7.0, 5.0  # px
_UNSEEN = 0.4  # px; deviations of a drawn line that nobody sees
_SHIFT = 4  # OpenCV takes coordinates as whole 1/16 px
_WHITE = (255, 255, 255)
# quicker by a quarter than what OpenCV does unasked, and no larger on stained tissue
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class View:
    """The part of a picture that is drawn, in its pixels, and how many pixels of the drawing one of them becomes."""

    x: int
    y: int
    width: int
    height: int
    scale: float

    def place(self, points_xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Bring coordinates of the picture, shape (n, 2), to those of the drawing (both from the corner)."""
        return (points_xy - (self.x, self.y)) * self.scale


def write_overlay(path: Path, field: PredictedField, manifest: ModelManifest) -> None:
    """Draw the outlines of a field on its image and write a PNG.

    A class is a colour; a cell below the threshold has a dashed line. Where the file of outlines gives a class the
    network disagrees with, a dot in the colour of the file's class marks the cell.
    Of a picture larger than ``MAX_SIDE`` the part that holds the cells is drawn, shrunk where that is too large, too.
    It is read in strips, so memory does not grow with the picture.

    Raises
    ------
    ImageError
        If the image cannot be read; the message is the bare reason.
    """
    rings = [rings_of(outline) for outline in field.outlines]
    with open_picture(field.item.image) as picture:
        view = view_of(rings, height=picture.height, width=picture.width)
        drawing = read_view(picture, view)
    draw_cells(drawing, rings, field, manifest, view)
    legend = draw_legend(
        legend_entries(field, manifest),
        width=drawing.shape[1],
        um_per_px=None if field.um_per_px is None else field.um_per_px / view.scale,
        title=_title(field, manifest, view),
    )
    whole = np.concatenate([drawing, legend])
    done, content = cv2.imencode(".png", whole[..., ::-1], _PNG)
    if not done:
        raise OSError(f"The overlay {path} cannot be encoded as PNG.")
    write_bytes(path, content.tobytes())


def view_of(rings: list[tuple[Ring, ...]], *, height: int, width: int) -> View:
    """Choose what to draw of a picture of ``height`` x ``width`` px, and at which scale."""
    x, y, side = 0, 0, max(width, height)
    if side > MAX_SIDE and any(rings):
        points = np.concatenate([ring for of_cell in rings for ring in of_cell])
        low, high = points.min(axis=0), points.max(axis=0)
        margin = _MARGIN * (high - low).max() + 50
        x, y = (int(v) for v in np.maximum(low - margin, 0))
        width, height = (int(v) for v in np.minimum(high + margin, (width, height)) - (x, y))
        side = max(width, height)
    if side > MAX_SIDE:
        return View(x, y, width, height, 1 / -(-side // MAX_SIDE))
    return View(x, y, width, height, float(np.clip(-(-MIN_SIDE // side), 1, _MAX_ENLARGED)))


def read_view(picture: Picture, view: View) -> Image:
    """Read a part of a picture at the scale of the view, shape (height, width, 3), RGB."""
    bits = bits_needed(picture.max_16bit)
    if view.scale >= 1:
        pixels = picture.read8(view.x, view.y, view.width, view.height, bits=bits)
        factor = int(view.scale)
        return pixels if factor == 1 else _resized(pixels, view.width * factor, view.height * factor)
    block = round(1 / view.scale)
    rows = max(1, _STRIP_PIXELS // (view.width * block)) * block
    strips = []
    for top in range(0, view.height, rows):
        height = min(rows, view.height - top)
        strip = picture.read8(view.x, view.y + top, view.width, height, bits=bits)
        padded = np.pad(strip, ((0, -height % block), (0, -view.width % block), (0, 0)), mode="edge")
        strips.append(_resized(padded, padded.shape[1] // block, padded.shape[0] // block))
    return np.concatenate(strips)


def _resized(pixels: Image, width: int, height: int) -> Image:
    how = cv2.INTER_CUBIC if width > pixels.shape[1] else cv2.INTER_AREA
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=how), np.uint8)


def draw_cells(
    drawing: Image, rings: list[tuple[Ring, ...]], field: PredictedField, manifest: ModelManifest, view: View
) -> None:
    """Draw the outlines of all cells into an image, white below the colours so that they stand out on dark tissue."""
    lines = [[_plain(view.place(ring), view.scale) for ring in of_cell] for of_cell in rings]
    _polylines(drawing, [line for of_cell in lines for line in of_cell], _WHITE, _HALO)
    for k, colour in enumerate(manifest.class_colours):
        of_class = np.flatnonzero(field.code_n == k)
        sure = [line for i in of_class if not field.abstained_n[i] for line in lines[i]]
        _polylines(drawing, sure, rgb(colour), _LINE)
        unsure = [dash for i in of_class if field.abstained_n[i] for line in lines[i] for dash in dashes(line)]
        _polylines(drawing, unsure, rgb(colour), _LINE, closed=False)
    for i in disagreeing(field, manifest.class_names):
        centre = view.place(np.array([[field.x_px[i] + 0.5, field.y_px[i] + 0.5]]))  # they count from pixel centres
        colour = manifest.class_colours[manifest.class_names.index(str(field.label_n[i]))]
        _dot(drawing, _points(centre)[0], rgb(colour))


def dashes(points_xy: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Cut a closed line, shape (n, 2), into dashes of equal length; each is an open line."""
    closed = np.concatenate([points_xy, points_xy[:1]])
    along = np.concatenate([[0.0], np.hypot(*np.diff(closed, axis=0).T).cumsum()])
    n = max(2, round(along[-1] / (_DASH + _GAP)))
    step = along[-1] / n
    share = _DASH / (_DASH + _GAP)
    places = step * (np.arange(n)[:, None] + np.linspace(0, share, 5))
    return list(np.stack([np.interp(places, along, closed[:, axis]) for axis in (0, 1)], axis=2))


def legend_entries(field: PredictedField, manifest: ModelManifest) -> list[LegendEntry]:
    """Return what the colours and marks mean, with counts; marks that do not occur are left out."""
    n = len(field.code_n)
    entries = []
    for k, (name, colour) in enumerate(zip(manifest.class_names, manifest.class_colours, strict=True)):
        count = int((field.code_n == k).sum())
        entries.append(LegendEntry(f"{name}  {count:,} ({100 * count / max(n, 1):.0f} %)", rgb(colour), "line"))
    if field.abstained_n.any():
        entries.append(LegendEntry(f"unsure  {int(field.abstained_n.sum()):,}", (90, 90, 90), "dashed"))
    if differing := len(disagreeing(field, manifest.class_names)):
        entries.append(LegendEntry(f"class in the file, where it differs  {differing:,}", (90, 90, 90), "dot"))
    return entries


def _title(field: PredictedField, manifest: ModelManifest, view: View) -> str:
    n = len(field.code_n)
    title = f"{field.item.image.name}: {n:,} cell{'' if n == 1 else 's'}, classified by {manifest.name}"
    if (view.width, view.height) != (field.width, field.height):
        title += f"; x {view.x} to {view.x + view.width}, y {view.y} to {view.y + view.height} px of the image"
    return title


def _points(points_xy: NDArray[np.float64]) -> NDArray[np.int32]:
    """Bring coordinates counted from the corner to OpenCV's, counted from the centre of the first pixel."""
    return np.asarray(np.rint((points_xy - 0.5) * 2**_SHIFT), np.int32)


def _plain(points_xy: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """Leave out points that nobody sees: the steps of outlines along pixels, and several on one pixel."""
    kept = cv2.approxPolyDP(np.asarray(points_xy, np.float32), _UNSEEN * max(scale, 1.0), True)
    return np.asarray(kept[:, 0], np.float64)


def _polylines(
    drawing: Image, lines: list[NDArray[np.float64]], colour: tuple[int, int, int], width: int, *, closed: bool = True
) -> None:
    if lines:
        cv2.polylines(drawing, [_points(line) for line in lines], closed, colour, width, cv2.LINE_AA, _SHIFT)


def _dot(drawing: Image, centre: NDArray[np.int32], colour: tuple[int, int, int]) -> None:
    for radius, shade in ((6, _WHITE), (4, colour)):
        cv2.circle(drawing, centre.tolist(), radius << _SHIFT, shade, cv2.FILLED, cv2.LINE_AA, _SHIFT)
