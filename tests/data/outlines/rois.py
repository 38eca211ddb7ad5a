"""Small ROIs and archives of them, by a writer that is not ours."""

from __future__ import annotations

import io
import warnings
import zipfile

import numpy as np
from roifile import ROI_OPTIONS, ROI_TYPE, ImagejRoi


def oval(*, left: int = 10, top: int = 10, width: int = 12, height: int = 12, position: int = 0) -> bytes:
    box = {"left": left, "top": top, "right": left + width, "bottom": top + height}
    return ImagejRoi(roitype=ROI_TYPE.OVAL, position=position, **box).tobytes()


def polygon(points: list[tuple[float, float]], **fields: object) -> bytes:
    """Whole points become whole numbers, others fractions."""
    whole = all(float(v).is_integer() for point in points for v in point)
    roi = ImagejRoi.frompoints(np.array(points, np.int32 if whole else np.float32), name="")
    roi.roitype = ROI_TYPE.POLYGON
    for name, value in fields.items():
        setattr(roi, name, value)
    return roi.tobytes()


def shape(path: list[float]) -> bytes:
    """A composite of moves (0), lines (1), curves (2, 3) and closes (4)."""
    numbers = np.array(path, np.float32)
    return ImagejRoi(roitype=ROI_TYPE.RECT, shape_roi_size=len(path), multi_coordinates=numbers).tobytes()


def spline(points: list[tuple[float, float]]) -> bytes:
    return polygon(points, options=ROI_OPTIONS.SPLINE_FIT)


def archive(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip with these members, in this order, twice the same name allowed."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", compression) as opened:
        warnings.simplefilter("ignore", UserWarning)  # about duplicate names
        for name, content in members:
            opened.writestr(name, content)
    return buffer.getvalue()
