from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from tests.sources import disc

from perikarya.data.outlines import ClassMap, OutlineError, ReadOptions, read_outlines
from perikarya.data.outlines.labels import count_pieces, read_labels
from perikarya.errors import DataError

HW = (50, 70)
TABLE = "image,label_id,x_px,y_px,class,subject\nf.png,3,15,20,normal,S1\nf.png,7,50,30,pyknotic,S1\n"


def numbered() -> np.ndarray:
    """Cells 3, 7 and 9; the last is of two pieces."""
    labels = np.zeros(HW, np.uint16)
    labels[disc(HW, radius=8, centre_xy=(15, 20)) > 0] = 3
    labels[disc(HW, radius=5, centre_xy=(50, 30)) > 0] = 7
    labels[2:5, 40:44] = labels[40:46, 60:70] = 9
    return labels


def label_map(folder: Path, name: str = "f_labels.tif") -> Path:
    path = folder / name
    if path.suffix == ".png":
        assert cv2.imwrite(str(path), numbered())
    else:
        tifffile.imwrite(path, numbered(), compression="zlib")
    return path


@pytest.mark.parametrize("name", ["f_labels.tif", "f_labels.png", "f_cp_masks.png", "f_cp_masks.tif", "anything.tiff"])
def test_every_number_is_an_outline_of_its_pixels(tmp_path: Path, name: str) -> None:
    file = read_outlines(label_map(tmp_path, name))
    assert [(o.key, o.label, o.kind) for o in file.outlines] == [(n, None, "cell") for n in ("3", "7", "9")]
    assert not file.problems
    for outline in file.outlines:
        mask = outline.mask
        assert mask is not None
        rows, columns = np.nonzero(numbered() == int(outline.key))
        assert (mask.y, mask.x) == (rows.min(), columns.min())
        found_rows, found_columns = np.nonzero(mask.mask_hw)
        assert (found_rows + mask.y == rows).all()
        assert (found_columns + mask.x == columns).all()


def test_a_number_in_pieces_stays_one_cell_and_is_said(tmp_path: Path) -> None:
    (note,) = read_labels(label_map(tmp_path)).notes
    assert note == "1 cell(s) consist of several separate pieces (9); each is kept as one cell."
    assert count_pieces(np.eye(4, dtype=np.uint8)) == 1  # pixels that touch by a corner are one piece


@pytest.mark.parametrize("image", ["f.png", "./f.png", "f.ome.tif"])
def test_the_table_beside_tells_classes_and_which_numbers_are_cells(tmp_path: Path, image: str) -> None:
    (tmp_path / "cells.csv").write_text(TABLE.replace("f.png", image))
    file = read_labels(label_map(tmp_path), ReadOptions(ClassMap.parse("normal=healthy")))
    assert [(o.key, o.label, dict(o.words)) for o in file.outlines] == [
        ("3", "healthy", {"subject": "S1"}),
        ("7", "pyknotic", {"subject": "S1"}),
    ]
    assert file.notes == ("1 numbers have no row in cells.csv; they are not cells here.",)


@pytest.mark.parametrize("image", ["g.png", "sub/f.png", "f_labels.png"])
def test_a_table_of_other_images_plays_no_role(tmp_path: Path, image: str) -> None:
    (tmp_path / "cells.csv").write_text(TABLE.replace("f.png", image))
    file = read_labels(label_map(tmp_path))
    assert [(o.key, o.label) for o in file.outlines] == [("3", None), ("7", None), ("9", None)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("f.png,4,15,20,normal,S1", "label_id 4 does not occur"),
        ("f.png,3,15,20,normal,S1", "label_id 3 was given in line 2 already"),
        ("f.png,x,15,20,normal,S1", "label_id is 'x'"),
        ("f.png,9,1,1,normal,S1", "x_px is 1 but outline 9 spans 40 to 70"),
        ("f.png,9,50,,normal,S1", "y_px is ''"),
        ("f.png,9", "has 2 entries"),
    ],
)
def test_a_row_that_does_not_fit_is_listed_and_the_others_are_read(tmp_path: Path, row: str, reason: str) -> None:
    (tmp_path / "cells.csv").write_text(f"{TABLE}{row}\n")
    file = read_labels(label_map(tmp_path))
    assert [outline.key for outline in file.outlines] == ["3", "7"]
    ((where, said),) = file.problems
    assert where == "cells.csv line 4"
    assert reason in said


def test_a_table_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cells.csv").write_text("image,class\nf.png,normal\n")
    with pytest.raises(DataError, match="label_id"):
        read_labels(label_map(tmp_path))


class Explosive:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("exploded"),))


def test_an_archive_of_cellpose_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "f_seg.npy"
    with path.open("wb") as handle:
        np.save(handle, np.array({"masks": Explosive()}, object), allow_pickle=True)
    for read in (read_labels, read_outlines):
        with pytest.raises(OutlineError, match=r"is a pickle, .* save the masks as PNG or TIFF"):
            read(path)
    assert not Path("exploded").exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n broken", b"II*\x00" + b"\xff" * 30])
def test_what_is_no_label_map_says_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "f_labels.tif"
    path.write_bytes(content)
    with pytest.raises(OutlineError) as caught:
        read_labels(path)
    assert str(path) not in str(caught.value)  # the bare reason: whoever asked knows the file


@pytest.mark.parametrize("chunk", [b"IDAT", b"IEND"])
def test_a_png_whose_chunk_claims_gigabytes_is_refused_before_it_is_decoded(tmp_path: Path, chunk: bytes) -> None:
    """Found by libFuzzer: a hundred bytes, for which OpenCV asked for 4 GiB."""
    path = label_map(tmp_path, "f_labels.png")
    content = bytearray(path.read_bytes())
    at = content.find(chunk) - 4
    content[at : at + 4] = b"\xff\xff\xff\xca"
    path.write_bytes(content)
    with pytest.raises(OutlineError, match="truncated"):
        read_labels(path)


@pytest.mark.parametrize(
    ("tags", "says"), [(("SamplesPerPixel",), "in colour"), (("TileWidth", "TileLength"), "limit")]
)
def test_a_tiff_of_many_channels_or_enormous_tiles_is_refused_before_it_is_decoded(
    tmp_path: Path, tags: tuple[str, ...], says: str
) -> None:
    path = tmp_path / "f_labels.tif"
    tifffile.imwrite(path, np.ones((16, 16), np.uint16), tile=(16, 16), compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        places = [tiff.pages.first.tags[name].valueoffset for name in tags]
    content = bytearray(path.read_bytes())
    for at in places:
        content[at : at + 2] = (65_520).to_bytes(2, "little")
    path.write_bytes(content)
    with pytest.raises(OutlineError, match=says):
        read_labels(path)


def test_a_map_of_zeros_holds_no_cells(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "f_labels.tif", np.zeros(HW, np.uint8))
    assert read_labels(tmp_path / "f_labels.tif").outlines == ()
