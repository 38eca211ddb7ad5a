"""One look for all figures: sizes of a printed page, one palette for classes, files a journal accepts."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from perikarya.palette import class_colours as class_colours  # figures find all they need here
from perikarya.runs import replacing, write_bytes

P = ParamSpec("P")
R = TypeVar("R")

PAGE_IN = 7.2  # two columns of a journal page, 183 mm
DPI = 300
INK, FAINT, GRID = "#1f2933", "#6b7785", "#dfe4ea"

_LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.2, 1.2, 1.2)))
_MARKERS = "osD^vPX<>ph*"

_RC = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so every machine draws the same
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "lines.linewidth": 1.4,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.parse_math": False,  # names of classes come from users; a dollar sign is a dollar sign
    "pdf.fonttype": 42,  # text stays text in a vector editor
    "figure.facecolor": "white",
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.w_pad": 0.06,
}
# all of matplotlib's own settings but the choice of a window system, which would load one
_SETTINGS: Any = {k: v for k, v in dict.items(mpl.rcParamsDefault) if "backend" not in k} | _RC


def class_line(index: int) -> Any:
    """Return the dash pattern of a class, so that colour is never the only difference."""
    return _LINES[index % len(_LINES)]


def class_marker(index: int) -> str:
    """Return the marker of a class."""
    return _MARKERS[index % len(_MARKERS)]


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Let a function draw in the style of this package, whatever the settings around it."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        with mpl.rc_context(_SETTINGS):
            return draw(*args, **kwargs)

    return drawn


def panels(
    n_rows: int, n_cols: int, *, height_in: float, width_in: float = PAGE_IN, **options: Any
) -> tuple[Figure, NDArray[Any]]:
    """Return a new figure and its axes, shape (n_rows, n_cols); ``options`` go to ``Figure.subplots``."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(n_rows, n_cols, squeeze=False, **options)


def readable_on(colour: str) -> str:
    """Return black or white, whichever is read better on a colour."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 140 else "black"  # Rec. 601 luma


def shorten(text: str, length: int = 28) -> str:
    """Cut a long name for an axis, keeping its ends, and put it on one line."""
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 9]}…{text[-8:]}"


def legend_columns(labels: Sequence[str], *, width_in: float = PAGE_IN) -> int:
    """Return how many entries of a legend fit side by side."""
    entry_in = 0.75 + 0.068 * max((len(x) for x in labels), default=0)  # line, gap and letters at 7.5 pt
    return max(1, min(len(labels), int(width_in / entry_in)))


def light_grid(axes: Axes, *, axis: str = "both") -> None:
    """Draw faint lines behind the data."""
    axes.grid(visible=True, axis=axis)  # type: ignore[arg-type]
    axes.tick_params(length=2.5)


@styled
def save_figure(
    figure: Figure, folder: Path, stem: str, *, photos: bool = False, vectors: bool = True, dpi: int = DPI
) -> Path:
    """Write ``stem.png`` and, where ``vectors`` says so, ``stem.pdf``; return the path of the PNG.

    Parameters
    ----------
    figure
        Made by ``panels``.
    folder
        Where the files go; made when absent.
    stem
        The file name without ending.
    photos
        The figure holds photographs: keep all colours. Otherwise 128 colours make the file a third as large.
    vectors
        Write the PDF.
    dpi
        Pixels of the PNG per inch.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="raw", dpi=dpi)
    figure.set_layout_engine("none")  # the vector file keeps the places just found; finding them takes a while
    if vectors:
        with replacing(folder / f"{stem}.pdf") as temporary:
            # no date inside, so that equal numbers give equal files
            figure.savefig(temporary, format="pdf", dpi=dpi, metadata={"CreationDate": None})
    width, height = (round(inches * dpi) for inches in figure.get_size_inches())
    image = Image.frombytes("RGBA", _canvas_size(buffer, width, height), buffer.getvalue()).convert("RGB")
    if not photos:
        image = image.quantize(128, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    encoded = io.BytesIO()
    image.save(encoded, format="PNG", compress_level=4, dpi=(dpi, dpi))
    path = folder / f"{stem}.png"
    write_bytes(path, encoded.getvalue())
    return path


def _canvas_size(buffer: io.BytesIO, width: int, height: int) -> tuple[int, int]:
    # matplotlib truncates where we round; the number of bytes tells
    n_pixels = len(buffer.getvalue()) // 4
    for w in (width, width - 1, width + 1):
        if n_pixels % w == 0 and abs(n_pixels // w - height) <= 1:
            return w, n_pixels // w
    raise ValueError(f"{n_pixels} pixels do not fit {width} x {height}")
