"""The strip below an overlay: what the colours mean, how many cells have each, and a scale bar."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
_INK: Colour = (30, 30, 30)
_GREY: Colour = (90, 90, 90)
_BAR_SHARE = 0.18  # of the width, at most, for the scale bar


@dataclass(frozen=True)
class LegendEntry:
    """A mark and what it means; ``line`` and ``dashed`` are drawn as a ring, ``dot`` filled."""

    text: str
    colour: Colour
    mark: Literal["line", "dashed", "dot"]


def draw_legend(entries: list[LegendEntry], *, width: int, um_per_px: float | None, title: str) -> NDArray[np.uint8]:
    """Draw a strip of ``width`` px, as high as the entries need, shape (height, width, 3), black on white.

    Parameters
    ----------
    entries
        Set one after the other, in as many lines as they take.
    width
        Of the picture it belongs to, in px; the size of the letters follows it.
    um_per_px
        Scale of the picture as drawn; None: no scale bar.
    title
        A line in grey below, shortened to the width.
    """
    size = min(44, max(13, width // 62))
    font, small = _font(size), _font(round(size * 0.8))
    pad, line = size, round(size * 1.7)
    bar = None if um_per_px is None else scale_bar(width * _BAR_SHARE * um_per_px)
    bar_px = 0 if bar is None or um_per_px is None else round(bar / um_per_px)
    room = width - 2 * pad - (bar_px + 2 * pad if bar_px else 0)
    rows = _rows([line * 0.9 + font.getlength(e.text) + 1.6 * size for e in entries], room)
    height = round(pad * 0.8) + line * (max(len(rows), 2 if bar_px else 1) + 1)
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    marks = []
    for r, row in enumerate(rows):
        middle = pad * 0.6 + (r + 0.4) * line
        for place, left in row:
            pen.text((pad + left + line * 0.9, middle), entries[place].text, font=font, fill=_INK, anchor="lm")
            marks.append((entries[place], (pad + left + line * 0.3, middle)))
    pen.text((pad, height - line), _shortened(title, small, width - 2 * pad), font=small, fill=_GREY)
    if bar_px:
        _bar(pen, (width - pad - bar_px, pad), bar_px, f"{bar:g} µm", font)
    strip = np.array(sheet, np.uint8)
    for entry, centre_xy in marks:
        _mark(strip, entry, centre_xy, line * 0.28)
    return strip


def scale_bar(longest_um: float) -> float:
    """Return the largest of 1, 2, 5, 10, 20, 50, ... (or tenths, hundredths ... of these) that is not too long."""
    power = 10.0 ** math.floor(math.log10(longest_um))
    return max(step * power for step in (1.0, 2.0, 5.0) if step * power <= longest_um * (1 + 1e-9))


@cache
def _font(size: int) -> Any:
    """Return the letters all figures have; matplotlib, which brings them, is looked up but not imported."""
    found = find_spec("matplotlib")
    for folder in (found.submodule_search_locations or []) if found else []:
        path = Path(folder) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size)


def _rows(widths: list[float], room: float) -> list[list[tuple[int, float]]]:
    """Set entries into rows: (which entry, its left edge) of each row."""
    rows: list[list[tuple[int, float]]] = [[]]
    left = 0.0
    for place, needed in enumerate(widths):
        if rows[-1] and left + needed > room:
            rows.append([])
            left = 0.0
        rows[-1].append((place, left))
        left += needed
    return rows


def _mark(strip: NDArray[np.uint8], entry: LegendEntry, centre_xy: tuple[float, float], radius: float) -> None:
    centre = (round(centre_xy[0] * 16), round(centre_xy[1] * 16))
    smooth = {"lineType": cv2.LINE_AA, "shift": 4}
    if entry.mark == "dot":
        cv2.circle(strip, centre, round(radius * 10), entry.colour, cv2.FILLED, **smooth)
        return
    axes, thick = (round(radius * 16), round(radius * 16)), max(2, round(radius * 0.35))
    arcs = [(0, 360)] if entry.mark == "line" else [(start, start + 36) for start in range(0, 360, 60)]
    for start, end in arcs:
        cv2.ellipse(strip, centre, axes, 0, start, end, entry.colour, thick, **smooth)


def _bar(pen: Any, at_xy: tuple[float, float], length: int, text: str, font: Any) -> None:
    x, y = at_xy
    thick = max(3, font.size // 5)
    pen.rectangle((x, y, x + length, y + thick), fill=_INK)
    pen.text((x + length / 2, y + thick * 2.4), text, font=font, fill=_INK, anchor="mt")


def _shortened(text: str, font: Any, room: float) -> str:
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"{text}…") > room:
        text = text[:-1]
    return f"{text}…"
