"""Five kinds of sources, broken in more than two hundred ways: a sentence each time, and nothing is left behind."""

from __future__ import annotations

import io
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.outlined import CLASSES, HW, IMAGES, SOURCES, coco_content, feature, put_json, ring
from tests.sources import picture

from perikarya.data.importers import import_study
from perikarya.data.importers.base import ImportOptions
from perikarya.errors import PerikaryaError

Change = Callable[[Path], object]
Case = tuple[str, Change, dict[str, Any], str]  # layout, what breaks the source, options, what the message must say


def put(name: str, content: bytes | str) -> Change:
    def change(root: Path) -> None:
        path = root / name
        if path.is_file() or path.is_symlink():
            path.unlink()
        path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)

    return change


def cut(name: str, keep: float) -> Change:
    return lambda root: put(name, (root / name).read_bytes()[: int((root / name).stat().st_size * keep)])(root)


def remove(name: str) -> Change:
    return lambda root: (root / name).unlink()


def copy(old: str, new: str) -> Change:
    return lambda root: shutil.copyfile(root / old, root / new)


def as_folder(name: str) -> Change:
    return lambda root: ((root / name).unlink(), (root / name).mkdir())


def link_outside(name: str) -> Change:
    def change(root: Path) -> None:
        outside = root.parent / "elsewhere" / Path(name).name
        outside.parent.mkdir()
        shutil.move(root / name, outside)
        (root / name).symlink_to(outside)

    return change


def pil(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def tiff(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims a size."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (head, b"IDAT" + zlib.compress(b"\x00" * 100), b"IEND")
    packed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


PICTURE = picture(0, HW)
PNG = pil(Image.fromarray(PICTURE), "PNG")
JPEG = pil(Image.fromarray(PICTURE), "JPEG")

# content of an image -> why it cannot be used
BAD_IMAGES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "text": (b"hello", "not a PNG, JPEG"),
    "pickle": (b"\x80\x04N.", "not a PNG, JPEG"),
    "GIF": (pil(Image.fromarray(PICTURE), "GIF"), "not a PNG, JPEG"),
    "PNG cut": (PNG[: len(PNG) // 2], "truncated"),
    "PNG that claims a million by a million": (claiming(10**6, 10**6), "million"),
    "PNG that claims too much": (claiming(9_000, 9_000), "limit is 80 million"),
    "PNG without pixels": (claiming(0, 5), "damaged|no pixels"),
    "PNG of another size than it claims": (claiming(*HW[::-1]), "damaged|truncated"),
    "JPEG cut": (JPEG[: len(JPEG) // 2], "damaged or truncated"),
    "JPEG of inks": (pil(Image.new("CMYK", HW[::-1]), "JPEG"), "CMYK"),
    "TIFF of nonsense": (b"II*\x00" + b"\xff" * 60, "TIFF|damaged|0 pages"),
    "TIFF of floats": (tiff(PICTURE[..., 0].astype(np.float32)), "floating|float"),
    "TIFF of two pages": (tiff(np.stack([PICTURE, PICTURE[::-1]]), photometric="rgb"), "2 pages"),
    "BMP of nonsense": (b"BM" + b"\x00" * 60, "BMP|damaged"),
    "nothing to see": (pil(Image.new("RGBA", HW[::-1]), "PNG"), "transparent everywhere"),
}

ROWS = {layout: ["f0.png,S1", "f1.png,S2"] for layout in SOURCES} | {"folders": [f"c{i}.png,S" for i in range(4)]}
# lines of the metadata table (None: the good ones) -> why it cannot be used
BAD_TABLES: dict[str, tuple[Callable[[list[str]], str | bytes], str]] = {
    "empty": (lambda _: "\n", r"metadata\.csv is empty"),
    "null bytes": (lambda rows: "file,subject\n" + rows[0] + "\x00\n", r"metadata\.csv is not text \(it holds null"),
    "a workbook": (lambda _: b"PK\x03\x04\xff\xfe", r"metadata\.csv is not UTF-8"),
    "UTF-16": (lambda rows: ("file,subject\n" + "\n".join(rows)).encode("utf-16"), r"metadata\.csv is not"),
    "no column file": (lambda rows: "name,subject\n" + "\n".join(rows), r"metadata\.csv has no column 'file'"),
    "an open quote": (lambda rows: 'file,subject\n"' + "\n".join(rows), r"metadata\.csv is not a readable CSV"),
    "a quote inside": (lambda rows: 'file,subject\n"a"b,S\n' + "\n".join(rows), r"metadata\.csv is not a readable CSV"),
    "an entry without end": (lambda _: "file,subject\n" + "x" * 200_000, r"metadata\.csv is not a readable CSV"),
    "a path that leaves": (
        lambda rows: "file,subject\n../../etc/passwd,S\n" + "\n".join(rows), r"metadata\.csv line 2: .*leaves the fold",
    ),
    "an absolute path": (
        lambda rows: "file,subject\n/etc/passwd,S\n" + "\n".join(rows), r"metadata\.csv line 2: .*leaves the folder",
    ),
    "a path of Windows": (
        lambda rows: "file,subject\nC:\\f0.png,S\n" + "\n".join(rows), r"metadata\.csv line 2: .*leaves the folder",
    ),
    "a stranger": (
        lambda rows: "file,subject\nno.png,S\n" + "\n".join(rows), r"line 2: 'no\.png' is not among the images",
    ),
    "an image twice": (lambda rows: "\n".join(["file,subject", *rows, rows[0]]), r"was given in line 2 already"),
    "an image missing": (lambda rows: "file,subject\n" + rows[0], r"(f1|c1)\.png: has no row in"),
    "a row too long": (lambda rows: "\n".join(["file,subject", *rows, "a,b,c,d"]), r"has 4 entries, the header has 2"),
    "a header of a million columns": (
        lambda rows: "file,subject" + ",x" * 1_000_000 + "\n" + "\n".join(rows), r"metadata\.csv has 1000002 columns",
    ),
    "a million columns": (
        lambda rows: "\n".join(["file,subject", *rows, "a" + "," * 1_000_000]), r"has 1000001 entries, the header",
    ),
}  # fmt: skip


def table_case(layout: str, make: Callable[[list[str]], str | bytes], says: str) -> Case:
    def change(root: Path) -> None:
        content = make(ROWS[layout])
        (root / "metadata.csv").write_bytes(content if isinstance(content, bytes) else content.encode())

    return layout, change, {"metadata": "metadata.csv"}, says


LABELS = np.kron(np.arange(6, dtype=np.uint16).reshape(2, 3), np.ones((20, 16), np.uint16))
MAP = "f0_labels.tif"
BAD_LABELS: dict[str, tuple[Change, str]] = {
    "map missing": (remove(MAP), r"f0\.png: it has no label map"),
    "map empty": (put(MAP, b""), r"f0\.png: .*empty"),
    "map is text": (put(MAP, "1 2 3"), r"f0\.png: the label map is not a TIFF or PNG"),
    "map cut": (cut(MAP, 0.6), r"f0\.png: the label map is (damaged|truncated)"),
    "map of nonsense": (put(MAP, b"II*\x00" + b"\xff" * 90), r"f0\.png: .*label map"),
    "map of floats": (put(MAP, tiff(LABELS.astype(np.float32))), r"f0\.png: .*float32"),
    "map in colour": (put(MAP, tiff(PICTURE, photometric="rgb")), r"f0\.png: .*in colour"),
    "map of two pages": (put(MAP, tiff(np.stack([LABELS] * 2), photometric="minisblack")), r"f0\.png: .*2 pages"),
    "map of another size": (put(MAP, tiff(LABELS[:20])), r"label map is 48 x 20 px but the image is 48 x 40 px"),
    "map with negative numbers": (put(MAP, tiff(-LABELS.astype(np.int32))), r"f0\.png: .*negative"),
    "map of 64 bits": (put(MAP, tiff(LABELS.astype(np.uint64))), r"f0\.png: .*uint64"),
    "map that claims too much": (put(MAP, claiming(50_000, 50_000)), r"f0\.png: .*limit is 80 million"),
    "map of nothing": (put(MAP, tiff(np.zeros(HW, np.uint16))), r"label_id 1 does not occur in the label map"),
    "map is a folder": (as_folder(MAP), r"f0\.png: it has no label map"),
    "two maps": (copy(MAP, "f0_cp_masks.tif"), r"f0\.png: several files of outlines"),
    "table empty": (put("cells.csv", ""), r"cells\.csv is empty"),
    "table of a header only": (put("cells.csv", "image,label_id,class\n"), r"no cells in"),
    "table without a number": (put("cells.csv", "image,class\nf0.png,normal\n"), r"cells\.csv has no column 'label_id"),
    "table with null bytes": (put("cells.csv", "image,label_id\nf0\x00.png,1\n"), r"cells\.csv is not text"),
    "table with an open quote": (put("cells.csv", 'image,label_id\n"f0.png,1\n'), r"cells\.csv is not a readable CSV"),
    "table that leaves": (put("cells.csv", "image,label_id\n../f0.png,1\n"), r"\.\./f0\.png: the path leaves"),
    "table from the root": (put("cells.csv", "image,label_id\n/etc/passwd,1\n"), r"/etc/passwd: the path leaves"),
    "table of Windows": (put("cells.csv", "image,label_id\nC:\\f0.png,1\n"), r"C:/f0\.png: the path leaves the folder"),
    "table names no image": (put("cells.csv", "image,label_id\n,1\n"), r"cells\.csv line 2: names no image"),
    "table names a long name": (put("cells.csv", f"image,label_id\n{'a' * 300}.png,1\n"), r"there is no such image"),
    "table names a long path": (put("cells.csv", f"image,label_id\n{'a/' * 9000}b.png,1\n"), r"there is no such image"),
    "table names a folder": (put("cells.csv", "image,label_id\n.,1\n"), r"there is no such image"),
    "table names itself": (put("cells.csv", "image,label_id\ncells.csv,1\n"), r"'\.csv' is not a kind of image"),
    "number of many digits": (put("cells.csv", "image,label_id\nf0.png,1e999\n"), r"line 2: label_id is '1e999'"),
    "number beyond 64 bits": (put("cells.csv", "image,label_id\nf0.png,1e30\n"), r"line 2: label_id 1\d+ does not"),
    "a million columns": (
        put("cells.csv", "image,label_id\nf0.png,1" + "," * 1_000_000), r"line 2: has 1000002 entries",
    ),
    "unknown set": (put("cells.csv", "image,label_id,set\nf0.png,1,test\n"), r"line 2: set is 'test'"),
}  # fmt: skip

GEO = "f0.geojson"


def features(*entries: object) -> Change:
    return lambda root: put_json(root / GEO, {"type": "FeatureCollection", "features": [*entries, feature(2)]})


def shape(geometry: object) -> Change:
    return features(feature(0, geometry=geometry))


def polygon(*corners: list[Any]) -> Change:
    return shape({"type": "Polygon", "coordinates": [list(corners)]})


NAN, INF = float("nan"), float("inf")
BAD_GEOJSON: dict[str, tuple[Change, str]] = {
    "empty": (put(GEO, ""), r"f0\.geojson: .*empty"),
    "not JSON": (put(GEO, "hello"), r"f0\.geojson: "),
    "cut": (cut(GEO, 0.7), r"f0\.geojson: the file is truncated"),
    "two files in one": (lambda root: put(GEO, (root / GEO).read_bytes() * 2)(root), r"f0\.geojson: something follows"),
    "an archive": (put(GEO, b"PK\x03\x04" + b"\x00" * 30), r"f0\.geojson: "),
    "bytes": (put(GEO, bytes(range(256))), r"f0\.geojson: "),
    "UTF-16": (lambda root: put(GEO, (root / GEO).read_text().encode("utf-16"))(root), r"f0\.geojson: .*UTF-8"),
    "nested deep": (put(GEO, '{"features": ' + "[" * 50_000), r"f0\.geojson: .*(deep|truncated)"),
    "a number of many digits": (put(GEO, '{"features": [' + "9" * 10_000 + "]}"), r"f0\.geojson: .*digits"),
    "a number": (put(GEO, "5"), r"f0\.geojson: "),
    "no features": (put(GEO, "{}"), r"f0\.geojson: "),
    "features are a number": (put(GEO, '{"type": "FeatureCollection", "features": 5}'), r"f0\.geojson: "),
    "no image": (remove("f0.png"), r"f0\.geojson: has no image beside it"),
    "two files for an image": (copy(GEO, "f0.png.geojson"), r"f0\.png: several files of outlines"),
    "a link": (link_outside(GEO), r"f0\.geojson: is a link that leaves the folder"),
    "feature is a number": (features(5), r"f0\.png#object 1: it is not a feature"),
    "no geometry": (shape(None), r"f0\.png#0+-.*: "),
    "geometry is a text": (shape("POLYGON"), r"f0\.png#0+-.*: "),
    "a point": (shape({"type": "Point", "coordinates": [3, 4]}), r"f0\.png#0+-.*: .*Point|point"),
    "a line": (shape({"type": "LineString", "coordinates": [[3, 4], [9, 9]]}), r"f0\.png#0+-.*: .*(Line|line)"),
    "an unknown shape": (shape({"type": "Curve", "coordinates": []}), r"f0\.png#0+-.*: .*Curve"),
    "no coordinates": (shape({"type": "Polygon"}), r"f0\.png#0+-.*: "),
    "coordinates are nothing": (shape({"type": "Polygon", "coordinates": None}), r"f0\.png#0+-.*: "),
    "no ring": (shape({"type": "Polygon", "coordinates": []}), r"f0\.png#0+-.*: "),
    "an empty ring": (polygon(), r"f0\.png#0+-.*: "),
    "rings too shallow": (shape({"type": "Polygon", "coordinates": ring(0)}), r"f0\.png#0+-.*: "),
    "two corners": (polygon([1, 1], [9, 9], [1, 1]), r"f0\.png#0+-.*: "),
    "corners on a line": (polygon([1, 1], [5, 5], [9, 9], [1, 1]), r"f0\.png#0+-.*: .*(line|no pixel|area)"),
    "NaN": (polygon([NAN, 1], [9, 1], [9, 9]), r"f0\.png#0+-.*: .*number"),
    "infinite": (polygon([INF, 1], [9, 1], [9, 9]), r"f0\.png#0+-.*: .*inf"),
    "text as a number": (polygon(["1", 1], [9, 1], [9, 9]), r"f0\.png#0+-.*: .*number"),
    "one coordinate": (polygon([1], [9], [5]), r"f0\.png#0+-.*: "),
    "far away": (polygon([1e12, 1], [1e12 + 9, 1], [9, 9]), r"f0\.png#0+-.*: .*limit"),
    "a number of 400 digits": (polygon([10**400, 1], [9, 1], [9, 9]), r"f0\.png#0+-.*: "),
    "outside of the image": (polygon([100, 100], [120, 100], [120, 120]), r"f0\.png#0+-.*: .*outside of the image"),
    "between the pixels": (polygon([5, 5], [5.2, 5], [5.2, 5.2]), r"f0\.png#0+-.*: .*no pixel"),
    "drawn twice over": (
        shape({"type": "Polygon", "coordinates": [ring(0), ring(0)]}), r"f0\.png#0+-.*: .*(no pixel|twice)",
    ),
    "too many corners": (
        polygon(*[[i % 7, i % 11] for i in range(200_001)]), r"f0\.png#0+-.*: .*200001 points|limit is 200000",
    ),
    "the same cell twice": (features(feature(0), feature(0, id="x")), r"f0\.png#x: has the same outline as"),
    "the same id twice": (features(feature(0), feature(1, id=feature(0)["id"])), r"f0\.png#0+-.*: has the id of"),
    "class is a number": (
        features(feature(0, properties={"classification": {"name": [5]}})), r"f0\.png#0+-.*: ",
    ),
    "class is a list": (features(feature(0, properties={"classification": [1]})), r"f0\.png#0+-.*: "),
    "class of broken letters": (
        features(feature(0, properties={"classification": {"name": "\ud800"}})), r"f0\.png#0+-.*: ",
    ),
    "unknown class": (
        features(feature(0, properties={"classification": {"name": "necrotic"}})), r"class 'necrotic', which --classes",
    ),
}  # fmt: skip

ZIP = "f0.zip"


def roi_of(root: Path, member: int = 0) -> bytes:
    with zipfile.ZipFile(root / ZIP) as archive:
        return archive.read(archive.infolist()[member])


def members(*named: tuple[str, Callable[[bytes], bytes]], **options: Any) -> Change:
    """Replace the archive by one of the given members (made from the first ROI) and the last good ROI."""

    def change(root: Path) -> None:
        first, last = roi_of(root), roi_of(root, 2)
        with zipfile.ZipFile(root / ZIP, "w", **options) as archive:
            for name, make in named:
                archive.writestr(name, make(first))
            archive.writestr("good.roi", last)

    return change


def roi(make: Callable[[bytes], bytes]) -> Change:
    return members(("bad.roi", make))


def patched(*changes: tuple[int, bytes]) -> Callable[[bytes], bytes]:
    """Overwrite bytes of an ROI: 0 magic, 6 type, 8 box, 16 number of points, 60 second header, 64 points."""

    def make(data: bytes) -> bytes:
        buffer = bytearray(data)
        for at, new in changes:
            buffer[at : at + len(new)] = new
        return bytes(buffer)

    return make


def wrong_sum(root: Path) -> None:
    members(("bad.roi", bytes))(root)
    content = bytearray((root / ZIP).read_bytes())
    content[content.find(b"Iout") + 70] ^= 0xFF
    (root / ZIP).write_bytes(bytes(content))


def encrypted(root: Path) -> None:
    content = bytearray((root / ZIP).read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(mark)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(mark, at + 4)
    (root / ZIP).write_bytes(bytes(content))


SHORT = struct.Struct(">h").pack
SINGLE_ROI = r"f0\.png#bad(\.roi)?: "
BAD_ROIS: dict[str, tuple[Change, str]] = {
    "empty": (put(ZIP, b""), r"f0\.zip: .*empty"),
    "not an archive": (put(ZIP, "hello"), r"f0\.zip: "),
    "archive of nothing": (put(ZIP, b"PK\x05\x06" + b"\x00" * 18), r"f0\.zip: "),
    "cut": (cut(ZIP, 0.7), r"f0\.zip: .*damaged"),
    "cut to its head": (put(ZIP, b"PK\x03\x04"), r"f0\.zip: .*damaged"),
    "of nonsense": (put(ZIP, b"PK\x03\x04" + bytes(range(256))), r"f0\.zip: .*damaged"),
    "encrypted": (encrypted, r"f0\.zip: .*encrypted"),
    "wrong sum": (wrong_sum, r"f0\.png#bad\.roi: .*damaged"),
    "a bomb": (
        members(("bad.roi", lambda _: b"\x00" * 17_000_000), compression=zipfile.ZIP_DEFLATED),
        r"f0\.(zip|png#bad\.roi): .*(times its size|larger than)",
    ),
    "no image": (remove("f0.png"), r"f0\.zip: has no image beside it"),
    "two archives": (copy(ZIP, "f0_rois.zip"), r"f0\.png: several files of outlines"),
    "a link": (link_outside(ZIP), r"f0\.zip: is a link that leaves the folder"),
    "member that leaves": (members(("../../bad.roi", bytes)), r"leads out of the archive"),
    "member of the root": (members(("/tmp/bad.roi", bytes)), r"leads out of the archive"),
    "member of Windows": (members(("C:\\bad.roi", bytes)), r"leads out of the archive"),
    "empty ROI": (roi(lambda _: b""), SINGLE_ROI),
    "ROI of text": (roi(lambda _: b"hello"), SINGLE_ROI),
    "ROI without its mark": (roi(patched((0, b"iOut"))), SINGLE_ROI),
    "ROI cut in the head": (roi(lambda d: d[:30]), SINGLE_ROI),
    "ROI cut in the points": (roi(lambda d: d[:70]), SINGLE_ROI),
    "ROI is a line": (roi(patched((6, b"\x03"))), SINGLE_ROI),
    "ROI is an angle": (roi(patched((6, b"\x09"))), SINGLE_ROI),
    "ROI is points": (roi(patched((6, b"\x0a"))), SINGLE_ROI),
    "ROI is nothing": (roi(patched((6, b"\x06"))), SINGLE_ROI),
    "ROI of an unknown kind": (roi(patched((6, b"\x7f"))), SINGLE_ROI),
    "ROI without points": (roi(patched((16, SHORT(0)))), SINGLE_ROI),
    "ROI of two points": (roi(patched((16, SHORT(2)))), SINGLE_ROI),
    "ROI that claims points": (roi(patched((16, SHORT(20_000)))), SINGLE_ROI),
    "box turned over": (roi(patched((6, b"\x01"), (8, SHORT(30)), (12, SHORT(3)))), SINGLE_ROI),
    "box without area": (roi(patched((6, b"\x01"), (12, SHORT(5)), (8, SHORT(5)))), SINGLE_ROI),
    "outside of the image": (
        roi(patched((6, b"\x01"), (8, SHORT(900)), (10, SHORT(900)), (12, SHORT(950)), (14, SHORT(950)))), SINGLE_ROI,
    ),
    "the same cell twice": (members(("a.roi", bytes), ("b.roi", bytes)), r"f0\.png#b: has the same outline"),
    "unknown class": (lambda _: None, r"class 'normal', which --classes"),
}  # fmt: skip

JSON = "annotations.json"


def edited(change: Callable[[dict[str, Any]], object]) -> Change:
    def apply(root: Path) -> None:
        content = coco_content()
        change(content)
        put_json(root / JSON, content)

    return apply


def annotation(**changes: Any) -> Change:
    return edited(lambda content: content["annotations"][0].update(changes))


def image(**changes: Any) -> Change:
    return edited(lambda content: content["images"][0].update(changes))


def runs(counts: object, size: tuple[int, int] = HW) -> Change:
    return annotation(segmentation={"size": list(size), "counts": counts})


BAD_COCO: dict[str, tuple[Change, str]] = {
    "empty": (put(JSON, ""), r"holds no COCO file .* is empty or of another kind \(annotations\.json\)"),
    "cut": (cut(JSON, 0.8), r"annotations\.json: the file is truncated"),
    "two files in one": (
        lambda root: put(JSON, (root / JSON).read_bytes() * 2)(root), r"annotations\.json: something follows",
    ),
    "a number of many digits": (
        put(JSON, '{"images": [], "annotations": [' + "9" * 10_000 + "]}"), r"annotations\.json: .*digits",
    ),
    "nested deep": (put(JSON, '{"images": [], "annotations": [' + "[" * 50_000), r"annotations\.json: .*deep"),
    "UTF-16": (
        lambda root: put(JSON, (root / JSON).read_text().encode("utf-16"))(root),
        r"of another kind \(annotations\.json\)",
    ),
    "a list": (put(JSON, '[{"images": [], "annotations": []}]'), r"of another kind \(annotations\.json\)"),
    "no images": (edited(lambda content: content.update(images=[])), r"image_id 0 is not among"),
    "categories without names": (edited(lambda c: c.update(categories=[{"id": 0}])), r"\.json: categories\[0\]"),
    "category twice": (
        edited(lambda c: c["categories"].append({"id": 0, "name": "other"})), r"category 0 is 'normal' and 'other'",
    ),
    "image missing": (remove("f0.png"), r"f0\.png: there is no such image"),
    "image without a name": (image(file_name=None), r"annotations\.json#images\[0\]: .*file_name"),
    "image of a path that leaves": (image(file_name="../secret.png"), r"secret\.png: there is no such image"),
    "image of the root": (image(file_name="/etc/passwd"), r"passwd: there is no such image"),
    "image of nothing but dots": (image(file_name=".."), r"images\[0\]: .*leaves the folder"),
    "image of a long name": (image(file_name="a" * 300 + ".png"), r"images\[0\]: .*longer than names of files"),
    "image of a long path": (image(file_name="a/" * 3000 + "b.png"), r"images\[0\]: .*no file_name"),
    "image with a null byte": (image(file_name="f0.png\x00"), r"images\[0\]: .*unprintable"),
    "image of another kind": (image(file_name=JSON), r"annotations\.json: is not a kind of image"),
    "image without a size": (image(width=None), r"images\[0\]: .*no width and height"),
    "image of a negative size": (image(height=-40), r"images\[0\]: .*no width and height"),
    "image of another size": (image(width=50), r"annotations\.json: .*50 x 40 px but the image is 48 x 40 px"),
    "image is a link": (link_outside("f0.png"), r"f0\.png: (leaves the folder|is a link)"),
    "annotation is a number": (edited(lambda c: c["annotations"].insert(0, 5)), r"#annotations\[0\]: has no id"),
    "no id": (annotation(id=None), r"#annotations\[0\]: has no id"),
    "the same id": (annotation(id=12), r"annotation 12: its id 12 was given before"),
    "unknown image": (annotation(image_id=9), r"annotation 0: its image_id 9"),
    "unknown category": (annotation(category_id=9), r"annotation 0: its category_id 9"),
    "box only": (annotation(segmentation=[]), r"annotation 0: it has no outline"),
    "two corners": (annotation(segmentation=[[1, 1, 5, 5]]), r"annotation 0: its polygon has 4 numbers"),
    "odd numbers": (annotation(segmentation=[[1, 1, 5, 5, 9, 1, 3]]), r"annotation 0: its polygon has 7 numbers"),
    "NaN": (annotation(segmentation=[[NAN, 1, 5, 5, 9, 1]]), r"annotation 0: .*no places in an image"),
    "infinite": (annotation(segmentation=[[INF, 1, 5, 5, 9, 1]]), r"annotation 0: .*no places in an image"),
    "text": (annotation(segmentation=[["1", 1, 5, 5, 9, 1]]), r"annotation 0: .*no list of numbers"),
    "outside": (annotation(segmentation=[[90, 90, 95, 90, 95, 95]]), r"f0\.png#0: it lies outside of the image"),
    "on a line": (annotation(segmentation=[[1, 1, 5, 5, 9, 9]]), r"f0\.png#0: .*(no pixel|line)"),
    "runs too few": (runs([5, 10]), r"annotation 0: .*do not add up"),
    "runs too many": (runs([5, 10, 10_000]), r"annotation 0: .*do not add up"),
    "runs negative": (runs([1930, -20, 10]), r"annotation 0: .*do not add up"),
    "runs absurd": (runs([2**39] * 3), r"annotation 0: .*do not add up"),
    "runs of text": (runs(["a"]), r"annotation 0: .*neither whole numbers"),
    "runs of nothing": (runs([HW[0] * HW[1]]), r"annotation 0: its mask is empty"),
    "packed nonsense": (runs("~~~~"), r"annotation 0: .*damaged"),
    "packed without end": (runs("PPPP"), r"annotation 0: .*damaged"),
    "runs of another size": (runs([9], (3, 3)), r"annotation 0: its mask is for 3 x 3 px"),
    "runs that claim an ocean": (runs([10**12], (10**6, 10**6)), r"annotation 0: its mask is for 1000000 x 1000000 px"),
    "the same cell twice": (annotation(segmentation=[np.ravel(ring(1)).tolist()]), r"has the same outline as"),
    "unknown class": (lambda _: None, r"class 'normal', which --classes"),
}  # fmt: skip

OTHERS = {"labels": BAD_LABELS, "geojson": BAD_GEOJSON, "imagej": BAD_ROIS, "coco": BAD_COCO}
CASES: dict[str, Case] = {
    **{
        f"{layout}: image {name}": (layout, put(IMAGES[layout], content), {}, rf"[fc]0\.png: .*({says})")
        for layout in SOURCES
        for name, (content, says) in BAD_IMAGES.items()
    },
    **{
        f"{layout}: table with {name}": table_case(layout, make, says)
        for layout in ("folders", "labels", "geojson")  # the others read it as GeoJSON does
        for name, (make, says) in BAD_TABLES.items()
    },
    **{
        f"{layout}: {name}": (
            layout,
            change,
            {"classes": CLASSES[1:]} if "--classes" in says else {},
            says,
        )
        for layout, cases in OTHERS.items()
        for name, (change, says) in cases.items()
    },
}


def test_there_are_more_than_two_hundred_ways() -> None:
    assert len(CASES) >= 200
    assert {case[0] for case in CASES.values()} == set(SOURCES)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One good source of each kind."""
    root = tmp_path_factory.mktemp("good")
    for layout, make in SOURCES.items():
        make(root / layout)
    return root


@pytest.mark.parametrize("name", CASES)
def test_a_sentence_says_what_is_wrong_and_nothing_is_left_behind(tmp_path: Path, good: Path, name: str) -> None:
    layout, change, told, says = CASES[name]
    source = tmp_path / "source"
    shutil.copytree(good / layout, source)
    change(source)
    before = contents(tmp_path)
    options = {key: source / value if key == "metadata" else value for key, value in told.items()}
    out = tmp_path / "place" / "study"
    with pytest.raises(PerikaryaError) as caught:
        import_study(source, out, options=ImportOptions(layout=layout, window=24, **options))
    assert re.search(says, str(caught.value)), str(caught.value)[:400]
    assert contents(tmp_path) == before
    try:
        opened = import_study(source, out, options=ImportOptions(layout=layout, window=24, skip_bad=True, **options))
    except PerikaryaError:
        assert contents(tmp_path) == before
    else:
        assert 0 < len(opened.cells) <= 6
        assert opened.study.provenance["n_refused"] > 0


def contents(root: Path) -> dict[str, int]:
    """All files below a folder, with their sizes."""
    return {str(p.relative_to(root)): p.lstat().st_size for p in sorted(root.rglob("*")) if not p.is_dir()}


@pytest.mark.parametrize("layout", SOURCES)
def test_the_same_source_unbroken_is_taken(good: Path, tmp_path: Path, layout: str) -> None:
    opened = import_study(good / layout, tmp_path / "study", options=ImportOptions(layout=layout, window=24))
    assert len(opened.cells) == (4 if layout == "folders" else 6)
    (tmp_path / "metadata.csv").write_text("\n".join(["file,subject", *ROWS[layout]]))
    options = ImportOptions(layout=layout, window=24, metadata=tmp_path / "metadata.csv")
    assert import_study(good / layout, tmp_path / "again", options=options).cells["subject"].notna().all()
