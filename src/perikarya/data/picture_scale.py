"""The size of a pixel in micrometres, from what microscopes and programs write into TIFF files.

Trusted is what speaks of micrometres or of another unit of length on purpose: OME-XML, ImageJ, Aperio, slides. The
resolution in dots per inch or centimetre, which every program fills in, counts only where it comes to a size that
microscopes have.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.parsers import expat

import tifffile

from perikarya.data.images import ImageError

SQUARE = 0.01  # how much the sides of a pixel may differ
_PLAUSIBLE_UM = (0.01, 10.0)  # from electron microscopes to flatbed scanners at 2540 dpi
_POSSIBLE_UM = (1e-4, 1e4)  # what is said on purpose may be any size, but not nonsense
_MAX_XML_BYTES = 32 * 2**20
_UM = {  # in lower case, where the micro sign is the Greek letter
    "pm": 1e-6, "å": 1e-4, "angstrom": 1e-4, "nm": 1e-3, "nanometer": 1e-3,
    "um": 1.0, "μm": 1.0, "\\u00b5m": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0,
    "mm": 1e3, "millimeter": 1e3, "cm": 1e4, "centimeter": 1e4, "m": 1e6, "meter": 1e6,
    "in": 25_400.0, "inch": 25_400.0,
}  # fmt: skip
_PER_UNIT_UM = {2: 25_400.0, 3: 10_000.0}  # TIFF ResolutionUnit: inch, centimetre


@dataclass
class OmeImage:
    """The first image of OME-XML: attributes of ``Pixels``, its channels, its planes, and the files these lie in."""

    pixels: Mapping[str, str] = field(default_factory=dict)
    channels: list[Mapping[str, str]] = field(default_factory=list)
    data: list[Mapping[str, str]] = field(default_factory=list)
    files: set[str] = field(default_factory=set)

    def number(self, name: str, default: int = 0) -> int:
        """Return a whole number of ``Pixels``; raise ``ImageError`` where it is none."""
        try:
            return int(self.pixels.get(name, default))
        except ValueError:
            raise ImageError(f"its OME metadata say {name} is '{self.pixels[name][:20]}'") from None


def scale_of_page(page: tifffile.TiffPage, ome: OmeImage | None) -> float | None:
    """Return the size of a pixel of a TIFF page in micrometres, or None where it is not known.

    Raises
    ------
    ImageError
        If the file says on purpose that pixels are not square: cells would be distorted.
    """
    if ome is not None:
        sides = [_ome_side(ome, axis) for axis in "XY"]
        return square_side(sides[0], sides[1])
    text = str(page.description)
    resolution = [_resolution(page, tag) for tag in (282, 283)]  # pixels per unit, x and y
    if text.startswith("ImageJ="):
        unit = re.search(r"^unit=(.*)$", text, re.MULTILINE)
        um = _UM.get(unit[1].strip().casefold()) if unit else None
        return square_side(*(um / value if um and value else None for value in resolution))
    aperio = re.search(r"\|\s*MPP\s*=\s*([0-9.eE+-]+)", text)
    if aperio:
        return square_side(number_or_none(aperio[1]), number_or_none(aperio[1]))
    tag = page.tags.get(296)
    um = _PER_UNIT_UM.get(int(tag.value) if tag is not None else 2)
    x_um, y_um = (um / value if um and value else None for value in resolution)
    if x_um is None or y_um is None or abs(x_um / y_um - 1) > SQUARE:
        return None
    return x_um if _PLAUSIBLE_UM[0] <= x_um <= _PLAUSIBLE_UM[1] else None


def square_side(x_um: float | None, y_um: float | None) -> float | None:
    """Return the side of a pixel, None where it is not known; raise ``ImageError`` when pixels are not square."""
    if x_um is None and y_um is None:
        return None
    x_um, y_um = x_um or y_um or 0.0, y_um or x_um or 0.0
    if not all(_POSSIBLE_UM[0] <= side <= _POSSIBLE_UM[1] for side in (x_um, y_um)):
        return None
    if abs(x_um / y_um - 1) > SQUARE:
        raise ImageError(
            f"its pixels are {x_um:.4g} x {y_um:.4g} µm, which are no squares: cells would be distorted; "
            "scale it in one direction, or correct its metadata"
        )
    return (x_um + y_um) / 2


def number_or_none(text: str | None) -> float | None:
    """Return a positive number, or None for anything else."""
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _ome_side(ome: OmeImage, axis: str) -> float | None:
    value = number_or_none(ome.pixels.get(f"PhysicalSize{axis}"))
    um = _UM.get(ome.pixels.get(f"PhysicalSize{axis}Unit", "µm").strip().casefold())
    return None if value is None or um is None else value * um


def _resolution(page: tifffile.TiffPage, tag_number: int) -> float | None:
    tag = page.tags.get(tag_number)
    try:
        numerator, denominator = tag.value
        return number_or_none(str(numerator / denominator))
    except (AttributeError, TypeError, ValueError, ZeroDivisionError):
        return None


def parse_ome(text: str) -> OmeImage:
    """Read the first image out of OME-XML (www.openmicroscopy.org/Schemas/OME/2016-06).

    Declarations of types and entities are refused, so nothing is expanded or fetched.

    Raises
    ------
    ImageError
        If it is too long, damaged, or describes no image.
    """
    if len(text) > _MAX_XML_BYTES:
        raise ImageError(f"its OME metadata are longer than {_MAX_XML_BYTES // 2**20} MiB")
    image = OmeImage()
    n_images = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal n_images
        name = name.rpartition(":")[2]
        n_images += name == "Image"
        if n_images != 1:
            return
        if name == "Pixels":
            image.pixels = attributes
        elif name == "Channel":
            image.channels.append(attributes)
        elif name == "TiffData":
            image.data.append(attributes)
        elif name == "UUID" and "FileName" in attributes:
            image.files.add(attributes["FileName"])

    def refuse(*_args: object) -> None:
        raise ImageError("its OME metadata declare types or entities, which no microscope writes")

    parser = expat.ParserCreate("utf-8")  # whatever the text says of itself
    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(text.encode("utf-8", "surrogatepass"), True)
    except expat.ExpatError as error:
        raise ImageError(f"its OME metadata are damaged ({error})") from None
    if not image.pixels:
        raise ImageError("its OME metadata describe no image")
    return image
