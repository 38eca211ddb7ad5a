from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sources import class_folders, disc, picture, write

from perikarya.data.images import read_mask, read_rgb
from perikarya.data.importers import import_study
from perikarya.data.importers.base import ImportOptions
from perikarya.data.store import OpenStudy
from perikarya.errors import DataError, ImportRefusedError

LAYOUTS = {
    "kinds first": ("images/{label}/{name}{suffix}", "masks/{label}/{name}.png"),
    "classes first": ("{label}/images/{name}{suffix}", "{label}/masks/{name}.png"),
    "marked names": ("{label}/{name}{suffix}", "{label}/{name}_mask.png"),
    "marked masks in their folder": ("images/{label}/{name}{suffix}", "masks/{label}/{name}-seg.png"),
    "subfolders": ("images/{label}/deep/{name}{suffix}", "masks/{label}/deep/{name}.png"),
}
ONE_CELL = st.tuples(
    st.sampled_from(["normal", "intermediate", "pyknotic", "a class"]),
    st.sampled_from([".png", ".jpg", ".tif", ".BMP", ".jpeg"]),
    st.integers(24, 70),  # height
    st.integers(24, 70),  # width
    st.integers(2, 9),  # radius
    st.floats(0.2, 0.8),  # where the cell lies
)


def check_window(opened: OpenStudy, row: int, image: np.ndarray, mask: np.ndarray) -> None:
    """Where the outline lies in the crop tells where the crop lies in the image; there, all pixels must agree."""
    crop = opened.crops[row]
    side = opened.study.window_px
    assert (crop[..., 3] > 0).sum() == (mask > 0).sum()
    in_crop, in_image = (cv2.boundingRect((m > 0).astype(np.uint8)) for m in (crop[..., 3], mask))
    left, top = in_image[0] - in_crop[0], in_image[1] - in_crop[1]
    ys, xs = np.arange(top, top + side), np.arange(left, left + side)
    inside = np.ix_((ys >= 0) & (ys < image.shape[0]), (xs >= 0) & (xs < image.shape[1]))
    shown = image[max(top, 0) : top + side, max(left, 0) : left + side]
    np.testing.assert_array_equal(crop[..., :3][inside], shown)
    np.testing.assert_array_equal(crop[..., 3][inside] > 0, mask[max(top, 0) : top + side, max(left, 0) : left + side])


@settings(max_examples=25, deadline=None)
@given(st.lists(ONE_CELL, min_size=1, max_size=7), st.sampled_from(sorted(LAYOUTS)), st.integers(0, 99))
def test_whatever_goes_in_comes_out(cells: list, layout: str, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "source"
        image_at, mask_at = LAYOUTS[layout]
        for i, (label, suffix, height, width, radius, share) in enumerate(cells):
            words = {"label": label, "name": f"c{i}", "suffix": suffix}
            centre = (radius + share * (width - 2 * radius), radius + share * (height - 2 * radius))
            write(root / image_at.format(**words), picture(seed * 100 + i, (height, width)))
            write(root / mask_at.format(**words), disc((height, width), radius=radius, centre_xy=centre))
        opened = import_study(root, Path(folder) / "one", options=ImportOptions(window=32))
        table = opened.cells
        assert len(table) == len(cells)
        assert table["cell_id"].is_unique
        for row, (source, label, area) in enumerate(
            zip(table["source"], table["label"], table["area_px"], strict=True)
        ):
            i = int(Path(source).stem[1:])
            assert label == cells[i][0]
            words = {"label": label, "name": f"c{i}", "suffix": cells[i][1]}
            image, mask = read_rgb(root / source), read_mask(root / mask_at.format(**words))
            assert area == mask.sum()
            check_window(opened, row, image, mask)
        again = import_study(
            root.rename(Path(folder) / "elsewhere"), Path(folder) / "two", options=ImportOptions(window=32)
        )
        assert again.cells.equals(table)
        assert again.data_hash == opened.data_hash
        np.testing.assert_array_equal(again.crops, opened.crops)


def test_files_are_kept_as_they_were(tmp_path: Path) -> None:
    opened = import_study(class_folders(tmp_path / "source"), tmp_path / "study")
    for cell in opened.cells.itertuples():
        kept = opened.root / "files" / "development" / cell.label / f"{cell.cell_id}.png"
        assert kept.read_bytes() == (tmp_path / "source" / cell.source).read_bytes()
        mask = (tmp_path / "source" / cell.source.replace("images", "masks")).read_bytes()
        assert kept.with_name(f"{cell.cell_id}_mask.png").read_bytes() == mask
    assert len(list((opened.root / "files").rglob("*.*"))) == 2 * len(opened.cells)


def test_the_centre_and_the_identity_come_from_pixels_and_outline(tmp_path: Path) -> None:
    root = tmp_path / "source"
    for name, centre in (("a", (15, 12)), ("b", (25, 12))):
        write(root / "images/normal" / f"{name}.png", picture(0))
        write(root / "masks/normal" / f"{name}.png", disc(radius=5, centre_xy=centre))
    table = import_study(root, tmp_path / "study").cells
    assert table[["x_px", "y_px"]].to_numpy().tolist() == [[15, 12], [25, 12]]
    assert table["image_sha256"].nunique() == 1
    assert table["cell_id"].str.fullmatch("[0-9a-f]{16}").all()
    assert table["cell_id"].is_unique


def test_exact_copies_get_numbers_in_order(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "source", n=1)
    for name in ("z", "m"):
        for kind in ("images", "masks"):
            (root / kind / f"normal/{name}.png").write_bytes((root / kind / "normal/c0.png").read_bytes())
    table = import_study(root, tmp_path / "study").cells.set_index("source")["cell_id"]
    first = table["images/normal/c0.png"]
    assert table["images/normal/m.png"] == f"{first}-2"
    assert table["images/normal/z.png"] == f"{first}-3"


@pytest.mark.parametrize(
    ("classes", "wanted", "expected"),
    [
        (("pyknotic", "normal", "intermediate"), None, ("normal", "intermediate", "pyknotic")),
        (("pyknotic", "normal"), None, ("normal", "pyknotic")),
        (("b", "normal", "a"), None, ("a", "b", "normal")),
        (("b", "a"), ("b", "a", "c"), ("b", "a", "c")),
    ],
)
def test_classes_are_in_order_of_severity_else_as_asked_else_by_name(
    tmp_path: Path, classes: tuple[str, ...], wanted: tuple[str, ...] | None, expected: tuple[str, ...]
) -> None:
    root = class_folders(tmp_path / "source", classes=classes, n=1)
    assert import_study(root, tmp_path / "study", options=ImportOptions(classes=wanted)).study.class_names == expected


def test_skipping_is_deliberate_and_remembered(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "source")
    (root / "masks/normal/c0.png").unlink()
    with pytest.raises(ImportRefusedError):
        import_study(root, tmp_path / "study")
    opened = import_study(root, tmp_path / "study", options=ImportOptions(skip_bad=True))
    assert len(opened.cells) == 3
    assert opened.study.provenance["n_refused"] == 1
    assert opened.study.provenance["refused"][0][0] == "images/normal/c0.png"
    assert "images/normal/c0.png" in (opened.root / "refused.csv").read_text()


def test_system_files_are_not_cells(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "source")
    for name in (".DS_Store", "Thumbs.db", "images/.DS_Store", "images/normal/._c0.png", "masks/normal/Thumbs.db"):
        (root / name).write_bytes(b"x")
    (root / "images/normal/notes.txt").write_text("dark")
    opened = import_study(root, tmp_path / "study")
    assert len(opened.cells) == 4
    assert opened.study.provenance["notes"][0].startswith("1 text file(s)")


TABLES = {
    "path in the images folder": "file,animal,image,region,group\nnormal/c{0}.png,s{0},i{0},CA1,sham\n",
    "bare name": "file,animal,image,region,group\nc{0}.png,s{0},i{0},CA1,sham\n",
    "path in the source": "file,animal,image,region,group\nimages/normal/c{0}.png,s{0},i{0},CA1,sham\n",
    "backslashes and semicolons": "file;animal;image;region;group\nnormal\\c{0}.png;s{0};i{0};CA1;sham\n",
}


@pytest.mark.parametrize("kind", TABLES)
def test_the_table_beside_the_images_is_found_and_joined(tmp_path: Path, kind: str) -> None:
    root = class_folders(tmp_path / "source", classes=("normal",), n=3)
    head, row = TABLES[kind].splitlines()
    (root / "metadata.csv").write_text("\ufeff" + "\r\n".join([head, *(row.format(i) for i in (2, 0, 1))]), "utf-8")
    opened = import_study(root, tmp_path / "study")
    assert opened.cells["subject"].tolist() == ["s0", "s1", "s2"]
    assert opened.cells["image_id"].tolist() == ["i0", "i1", "i2"]
    assert opened.study.regions == ("CA1",)
    assert opened.study.groups == ("sham",)
    assert any("metadata.csv, found in the source" in note for note in opened.study.provenance["notes"])


def test_words_are_read_from_names(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "source", classes=("normal",), n=1)
    for kind in ("images", "masks"):
        (root / kind / "normal/c0.png").rename(root / kind / "normal/sheep07_CA3_f2_11.png")
    pattern = r"(?P<subject>sheep\d+)_(?P<region>[A-Z0-9]+)_(?P<image_id>f\d+)"
    table = import_study(root, tmp_path / "study", options=ImportOptions(name_pattern=pattern)).cells
    assert table.loc[0, ["subject", "region", "image_id"]].tolist() == ["sheep07", "CA3", "f2"]


def test_development_and_external_share_classes_and_shift(tmp_path: Path) -> None:
    root, external = class_folders(tmp_path / "a", n=1), tmp_path / "b"
    for i, top in ((0, 1000), (1, 4000)):  # 10 and 12 bits
        pixels = (picture(50 + i) / 255 * top).astype(np.uint16)
        pixels[0, 0] = top
        (external / "images/normal").mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(external / f"images/normal/{i}.tif", pixels, photometric="rgb")
        write(external / f"masks/normal/{i}.png", disc())
    opened = import_study(root, tmp_path / "study", options=ImportOptions(external=external))
    assert opened.cells["set"].tolist() == ["development", "development", "external", "external"]
    assert opened.study.provenance["bits_of_16bit_images"] == 12
    wide = tifffile.imread(external / "images/normal/0.tif")
    np.testing.assert_array_equal(opened.crops[2, ..., :3], wide >> 4)


@pytest.mark.parametrize(
    ("sizes", "options", "expected"),
    [
        ([(40, 40)] * 3, {}, 40),
        ([(36, 40)] * 3, {}, 40),
        ([(20, 60)] * 3, {}, 24),  # a disc of radius 9 is 19 px wide; with 25 % margin 23.75
        ([(40, 40), (60, 60)], {}, 24),
        ([(40, 40)], {"window": 64}, 64),
        ([(40, 40)], {"window": "30um", "um_per_px": 0.5}, 60),
    ],
)
def test_the_window_is_the_images_size_else_holds_the_cells(
    tmp_path: Path, sizes: list, options: dict, expected: int
) -> None:
    for i, hw in enumerate(sizes):
        write(tmp_path / f"source/images/normal/{i}.png", picture(i, hw))
        write(tmp_path / f"source/masks/normal/{i}.png", disc(hw, radius=9))
    opened = import_study(tmp_path / "source", tmp_path / "study", options=ImportOptions(**options))
    assert opened.study.window_px == expected
    assert (opened.crops[..., 3] > 0).sum(axis=(1, 2)).tolist() == opened.cells["area_px"].tolist()


def test_a_study_is_replaced_only_when_asked(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "source")
    import_study(root, tmp_path / "study")
    with pytest.raises(DataError, match="exists already"):
        import_study(root, tmp_path / "study")
    assert len(import_study(root, tmp_path / "study", options=ImportOptions(overwrite=True)).cells) == 4


def test_a_failed_replacement_leaves_the_old_study(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "source")
    before = import_study(root, tmp_path / "study").data_hash
    (root / "images/normal/c0.png").write_bytes(b"")
    with pytest.raises(ImportRefusedError):
        import_study(root, tmp_path / "study", options=ImportOptions(overwrite=True))
    assert import_study(class_folders(tmp_path / "again"), tmp_path / "other").data_hash == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "other", "source", "study"]


def test_real_cells_come_in_whole(tmp_path: Path, rbc: Path) -> None:
    opened = import_study(rbc / "cells/external", tmp_path / "study")
    assert len(opened.cells) == 420
    assert opened.study.window_px == 80
    assert opened.cells["label"].value_counts().to_dict() == {
        "normal": 104, "target": 102, "ovalocyte": 87, "spherocyte": 86, "teardrop": 41,
    }  # fmt: skip
    assert opened.cells["subject"].str.fullmatch(r"smear\d{3}").all()
    source = opened.cells.loc[0, "source"]
    np.testing.assert_array_equal(opened.crops[0, ..., :3], read_rgb(rbc / "cells/external" / source))
