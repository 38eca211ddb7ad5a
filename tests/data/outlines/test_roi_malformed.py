"""What is wrong with an ROI or an archive of them is said in a sentence, and the ROIs beside it are read."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest
from roifile import ROI_OPTIONS, ROI_SUBTYPE, ROI_TYPE, ImagejRoi
from tests.data.outlines.rois import archive, oval, polygon, shape, spline

from perikarya.data.outlines import roi_archive
from perikarya.data.outlines.base import OutlineError
from perikarya.data.outlines.raster import mask_of
from perikarya.data.outlines.roi import read_rois

WHOLE = polygon([(10, 10), (40, 12), (30, 44)])
FRACTIONS = polygon([(10.5, 10.25), (40, 12), (30, 44)])
NAMED = polygon([(10, 10), (40, 12), (30, 44)], name="cell", props="class: normal\n")
SQUARE = [0, 10, 10, 1, 30, 10, 1, 30, 30, 4]
NAN, INF = float("nan"), float("inf")


def patched(data: bytes, at: int, kind: str, *values: float) -> bytes:
    """The same bytes but for some big-endian numbers."""
    content = bytearray(data)
    struct.pack_into(f">{kind}", content, at, *values)
    return bytes(content)


def second(data: bytes) -> int:
    """Where the second header begins."""
    return int(struct.unpack_from(">i", data, 60)[0])


def box_between_pixels(*numbers: float, kind: ROI_TYPE = ROI_TYPE.OVAL) -> bytes:
    x, y, width, height = numbers
    return ImagejRoi(
        roitype=kind, options=ROI_OPTIONS.SUB_PIXEL_RESOLUTION, xd=x, yd=y, widthd=width, heightd=height
    ).tobytes()  # type: ignore[arg-type]


def turned(subtype: ROI_SUBTYPE, *numbers: float) -> bytes:
    x1, y1, x2, y2, parameter = numbers
    data = ImagejRoi(roitype=ROI_TYPE.FREEHAND, subtype=subtype, x1=x1, y1=y1, x2=x2, y2=y2).tobytes()
    return patched(data, 52, "f", parameter)


def of_type(number: int) -> bytes:
    return patched(WHOLE, 6, "B", number)


LONG = polygon([(i % 300, i % 7) for i in range(300_000)])
FLAT = polygon([(10, 10), (20, 10), (30, 10)])
ELLIPSE, ROTATED = ROI_SUBTYPE.ELLIPSE, ROI_SUBTYPE.ROTATED_RECT
MALFORMED: dict[str, tuple[bytes, str]] = {
    "no roi": (b"not a region of interest" * 9, "does not begin with 'Iout'"),
    "empty": (b"", "does not begin"),
    "magic only": (b"Iout", "cut off: it has"),
    "half a header": (WHOLE[:40], "cut off: it has"),
    "header without its last byte": (WHOLE[:63], "cut off: it has"),
    "magic in lower case": (b"iout" + WHOLE[4:], "does not begin"),
    "points cut off": (WHOLE[:70], "damaged or cut off"),
    "fractions cut off": (patched(FRACTIONS[:80], 60, "i", 0), "damaged or cut off"),
    "more points than bytes": (patched(WHOLE, 16, "H", 60_000), "damaged or cut off"),
    "billions of points": (patched(WHOLE, 16, "Hi", 0, 2**31 - 1), "damaged or cut off"),
    "a negative number of points": (patched(WHOLE, 16, "Hi", 0, -5), "damaged or cut off"),
    "no points": (patched(WHOLE, 16, "Hi", 0, 0), "no points"),
    "two points": (patched(WHOLE, 16, "H", 2), "a boundary needs 3"),
    "300,000 points": (LONG, "the limit is 200000"),
    "all points on one line": (FLAT, "encloses no area"),
    "a point that is not a number": (patched(FRACTIONS, 76, "f", NAN), "not a number"),
    "an endless point": (patched(FRACTIONS, 76, "f", INF), "not a number"),
    "a point beyond any slide": (patched(FRACTIONS, 76, "f", 1e30), "the limit is"),
    "outside of the image": (polygon([(900, 900), (940, 912), (930, 944)]), "outside of the image"),
    "second header beyond the end": (patched(WHOLE, 60, "i", 10_000), "damaged or cut off"),
    "second header before the beginning": (patched(WHOLE, 60, "i", -4), "beyond its end"),
    "second header at the last byte": (patched(WHOLE, 60, "i", len(WHOLE) - 1), "damaged or cut off"),
    "name beyond the end": (patched(NAMED, second(NAMED) + 20, "i", 5000), "beyond its end"),
    "name of negative length": (patched(NAMED, second(NAMED) + 20, "i", -1), "beyond its end"),
    "name at a negative place": (patched(NAMED, second(NAMED) + 16, "i", -70), "beyond its end"),
    "class beyond the end": (patched(NAMED, second(NAMED) + 44, "i", 5000), "beyond its end"),
    "file cut within the class": (NAMED[:-8], "beyond its end"),
    "name of half a letter pair": (patched(NAMED, second(NAMED) + 64, "H", 0xD800), "not text"),
    "type 11": (of_type(11), "type 11 is not known"),
    "type 255": (of_type(255), "type 255 is not known"),
    "a line": (of_type(3), "a line"),
    "a freehand line": (of_type(4), "a freehand line"),
    "a segmented line": (of_type(5), "a segmented line"),
    "nothing": (of_type(6), "empty"),
    "an angle": (of_type(9), "an angle"),
    "a point": (of_type(10), "a point"),
    "a picture": (patched(oval(), 48, "h", 4), "a picture"),
    "an arrow": (patched(WHOLE, 48, "h", 2), "an arrow"),
    "oval of no width": (oval(width=0), "encloses nothing"),
    "oval inside out": (oval(height=-5), "encloses nothing"),
    "oval that is not a number": (box_between_pixels(NAN, 1, 5, 5), "not a number"),
    "oval of endless width": (box_between_pixels(1, 1, INF, 5), "not a number"),
    "oval of the size of a country": (box_between_pixels(1, 1, 9e6, 9e6), "too large"),
    "rectangle of no height": (box_between_pixels(1, 1, 5, 0, kind=ROI_TYPE.RECT), "encloses nothing"),
    "rectangle of negative width": (box_between_pixels(1, 1, -5, 5, kind=ROI_TYPE.RECT), "encloses nothing"),
    "rectangle at nowhere": (box_between_pixels(INF, 1, 5, 5, kind=ROI_TYPE.RECT), "not a number"),
    "ellipse without an axis": (turned(ELLIPSE, 5, 5, 5, 5, 0.5), "encloses nothing"),
    "ellipse that is not a number": (turned(ELLIPSE, NAN, 5, 9, 5, 0.5), "not a number"),
    "ellipse of no breadth": (turned(ELLIPSE, 5, 5, 50, 5, 0), "encloses nothing"),
    "rotated rectangle of negative breadth": (turned(ROTATED, 5, 5, 50, 5, -3), "encloses nothing"),
    "rotated rectangle of endless breadth": (turned(ROTATED, 5, 5, 50, 5, INF), "not a number"),
    "spline through two places": (spline([(5, 5), (9, 9), (9, 9)]), "needs 3 points"),
    "spline through nowhere": (patched(patched(FRACTIONS, 76, "f", NAN), 50, "h", 129), "not a number"),
    "path of an unknown kind": (shape([0, 10, 10, 7, 1, 1]), "unknown kind"),
    "path of a kind that is not a number": (shape([0, 10, 10, NAN, 1, 1]), "unknown kind"),
    "path that begins with a line": (shape([1, 10, 10, 1, 3, 3, 4]), "does not begin with a point"),
    "path that begins with a close": (shape([4, 4, 4]), "does not begin with a point"),
    "path cut within a point": (shape([0, 10, 10, 1, 30]), "cut off"),
    "path cut within a curve": (shape([0, 10, 10, 3, 30, 30, 40]), "cut off"),
    "path of points without area": (shape([0, 10, 10, 0, 20, 20, 0, 30, 30]), "encloses no area"),
    "path to nowhere": (shape([0, 10, 10, 1, NAN, 10, 1, 30, 30, 4]), "not a number"),
    "curve to nowhere": (shape([0, 10, 10, 2, NAN, 10, 30, 30, 4]), "not a number"),
    "path longer than its file": (patched(shape(SQUARE), 36, "i", 5000), "damaged or cut off"),
    "path of billions of numbers": (patched(shape(SQUARE), 36, "i", 2**31 - 1), "damaged or cut off"),
    "path of a million points": (shape([0, 1, 1] + [1, 5, 5] * 250_000), "more than 200000 points"),
    "path of endless curves": (shape([0, 1, 1] + [3, 9e6, 0, 0, 9e6, 1, 1] * 300), "more than 200000 points"),
    "spline through 300,000 points": (patched(LONG, 50, "h", 1), "more than 200000 points"),
    "path in a polygon": (patched(WHOLE, 36, "i", 4), "not that of composites"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "said"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_damaged_roi_is_said_in_a_sentence_and_the_one_beside_it_is_read(
    tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / "x.zip").write_bytes(archive(("bad.roi", content), ("good.roi", oval())))
    file = read_rois(tmp_path / "x.zip")
    reasons = dict(file.problems)
    for outline in file.outlines:
        try:
            mask_of(outline, height=64, width=64)
        except OutlineError as error:
            reasons[outline.key] = str(error)
    assert list(reasons) == ["bad"]
    assert said in reasons["bad"]
    assert "\n" not in reasons["bad"]


def with_flag(content: bytes, flag: int) -> bytes:
    """The archive with a flag set on its members, in their own headers and in the directory."""
    changed = bytearray(content)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = changed.find(mark)
        while at >= 0:
            changed[at + offset] |= flag
            at = changed.find(mark, at + 4)
    return bytes(changed)


GOOD = archive(("a.roi", oval()), ("b.roi", WHOLE))
PACKED = archive(("a.roi", bytes(20 * 2**20)), compression=zipfile.ZIP_DEFLATED)
ARCHIVES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "empty (0 bytes)"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(99), "neither an ImageJ ROI nor an archive"),
    "text": (b"x,y\n1,2\n", "neither an ImageJ ROI nor an archive"),
    "an empty archive": (archive(), "holds no ROI"),
    "no ROI in it": (archive(("a.txt", b"x"), ("b.zip", GOOD)), "holds no ROI"),
    "folders only": (archive(("a.roi/", b"")), "holds no ROI"),
    "a name that is a suffix only": (archive((".roi", oval())), "holds no ROI"),
    "cut in the middle": (GOOD[: len(GOOD) // 2], "damaged"),
    "cut at the end": (GOOD[:-5], "damaged"),
    "directory overwritten": (GOOD[:-60] + bytes(60), "damaged"),
    "encrypted": (with_flag(GOOD, 1), "encrypted"),
    "packed a thousand times": (PACKED, "times its size"),
}


@pytest.mark.parametrize(("content", "said"), ARCHIVES.values(), ids=ARCHIVES.keys())
def test_a_file_that_is_no_use_as_a_whole_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(OutlineError) as caught:
        read_rois(tmp_path / "x.zip")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutlineError, match="does not exist"):
        read_rois(tmp_path / "x.zip")
    with pytest.raises(OutlineError, match="not a regular file"):
        read_rois(tmp_path)


@pytest.mark.parametrize(
    "name", ["../up.roi", "/etc/absolute.roi", "a/../../b.roi", "..\\up.roi", "C:\\x.roi", "c:x.roi"]
)
def test_names_that_lead_out_of_the_archive_are_problems(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.zip").write_bytes(archive((name, oval()), ("good.roi", oval())))
    file = read_rois(tmp_path / "in" / "x.zip")
    assert [outline.key for outline in file.outlines] == ["good"]
    assert file.problems == ((name, "its name leads out of the archive; save the ROIs again"),)
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "x.zip"]


def test_a_member_whose_bytes_changed_is_a_problem_of_its_own(tmp_path: Path) -> None:
    content = bytearray(GOOD)
    content[content.find(b"Iout") + 9] ^= 1
    (tmp_path / "x.zip").write_bytes(content)
    file = read_rois(tmp_path / "x.zip")
    assert [outline.key for outline in file.outlines] == ["b"]
    assert "damaged in the archive (Bad CRC-32" in dict(file.problems)["a.roi"]


def test_a_member_packed_in_an_unknown_way_is_a_problem_of_its_own(tmp_path: Path) -> None:
    content = bytearray(GOOD)
    content[content.find(b"PK\x01\x02") + 10] = 97
    content[8] = 97
    (tmp_path / "x.zip").write_bytes(content)
    assert "damaged in the archive" in dict(read_rois(tmp_path / "x.zip").problems)["a.roi"]


def test_a_member_larger_than_any_outline_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roi_archive, "MAX_MEMBER_BYTES", 200)
    (tmp_path / "x.zip").write_bytes(archive(("a.roi", oval()), ("large.roi", WHOLE + bytes(200))))
    file = read_rois(tmp_path / "x.zip")
    assert [outline.key for outline in file.outlines] == ["a"]
    assert "no outline is" in dict(file.problems)["large.roi"]


@pytest.mark.parametrize(
    ("limit", "value", "said"),
    [
        ("MAX_OUTLINES", 3, "more than 3 members"),
        ("MAX_FILE_BYTES", 400, "unpacks to more than"),
        ("MAX_RATIO", 0, "times its size"),
    ],
)
def test_archives_beyond_the_limits_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, said: str
) -> None:
    monkeypatch.setattr(roi_archive, limit, value)
    monkeypatch.setattr(roi_archive, "MAX_MEMBER_BYTES", 200)
    (tmp_path / "x.zip").write_bytes(archive(*((f"{i}.roi", oval()) for i in range(4))))
    with pytest.raises(OutlineError, match=said):
        read_rois(tmp_path / "x.zip")


def test_a_member_that_says_it_is_smaller_than_it_is_yields_no_more_than_it_says(tmp_path: Path) -> None:
    content = bytearray(archive(("a.roi", bytes(10**6)), compression=zipfile.ZIP_DEFLATED))
    struct.pack_into("<I", content, content.find(b"PK\x01\x02") + 24, 100)
    (tmp_path / "x.zip").write_bytes(content)
    ((_, reason),) = read_rois(tmp_path / "x.zip").problems
    assert "damaged in the archive" in reason


def test_a_thousand_names_alike_are_told_apart_in_no_time(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(archive(*[("a.roi", oval())] * 1000))
    keys = [outline.key for outline in read_rois(tmp_path / "x.zip").outlines]
    assert keys[:2] + keys[-1:] == ["a", "a-2", "a-1000"]
