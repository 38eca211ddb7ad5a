"""ImageJ's selections: read as ImageJ fills them, written so that ImageJ and other readers give them back."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import roifile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from roifile import ROI_TYPE
from tests.data.outlines.rois import archive, oval, polygon, shape

from perikarya.data.outlines import ClassMap, ReadOptions
from perikarya.data.outlines.base import CellMask, Outline, OutlineError, OutlineFile
from perikarya.data.outlines.raster import mask_of
from perikarya.data.outlines.roi import RoiCell, read_rois, write_rois
from perikarya.data.outlines.roi_shapes import oval_ring

HERE = Path(__file__).parent
HEIGHT, WIDTH = 90, 120  # of the field that ImageJ drew on
SELECTIONS = read_rois(HERE / "imagej_selections.zip")
AREAS = [outline for outline in SELECTIONS.outlines if not outline.key.startswith("told by")]


def full(mask: CellMask, hw: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """The pixels of a cell in its image."""
    pixels = np.zeros(hw, bool)
    height, width = mask.mask_hw.shape
    pixels[mask.y : mask.y + height, mask.x : mask.x + width] = mask.mask_hw
    return pixels


def pixels_of(outline: Outline, hw: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    return full(mask_of(outline, height=hw[0], width=hw[1]), hw)


def on_boundary(outline: Outline) -> np.ndarray:
    """Pixels whose centre lies on the boundary, or so close that rounding to 1/100 px decides."""
    centres = np.stack(np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5), axis=-1)
    near = np.zeros((HEIGHT, WIDTH), bool)
    for ring in outline.rings:
        for a, b in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            along = np.clip(((centres - a) @ (b - a)) / max(float((b - a) @ (b - a)), 1e-12), 0, 1)
            near |= np.hypot(*np.moveaxis(centres - a - along[..., None] * (b - a), -1, 0)) < 0.01
    return near


def read(tmp_path: Path, content: bytes, *, name: str = "x.zip", **options: object) -> OutlineFile:
    (tmp_path / name).write_bytes(content)
    return read_rois(tmp_path / name, ReadOptions(**options))  # type: ignore[arg-type]


def masks_of(path: Path) -> list[np.ndarray]:
    return [pixels_of(outline) for outline in read_rois(path).outlines]


# as ImageJ fills them


@pytest.mark.parametrize("number", range(len(AREAS)), ids=[outline.key for outline in AREAS])
def test_a_selection_has_the_pixels_of_imagejs_own_mask(number: int) -> None:
    montage = cv2.imread(str(HERE / "imagej_selections.png"), cv2.IMREAD_UNCHANGED)
    theirs = montage[HEIGHT * number : HEIGHT * (number + 1)] > 0
    ours = pixels_of(AREAS[number])
    if AREAS[number].key == "spline":
        assert np.count_nonzero(ours != theirs) <= 2
    else:
        assert not ((ours != theirs) & ~on_boundary(AREAS[number])).any()


def test_all_kinds_of_selections_were_compared() -> None:
    assert len(AREAS) == 24
    kinds = {roi.roitype.name for roi in roifile.roiread(HERE / "imagej_selections.zip")}
    assert {"POLYGON", "RECT", "OVAL", "FREEHAND", "TRACED"} <= kinds


@pytest.mark.parametrize(
    ("width", "height"), [(1, 1), (2, 2), (5, 5), (2, 90), (3, 7), (16, 16), (31, 24), (1, 50), (257, 64)]
)
def test_an_oval_holds_the_pixels_whose_centre_is_in_the_ellipse(width: int, height: int) -> None:
    y, x = np.mgrid[:height, :width]
    x, y = x - (width / 2 - 0.5), y - (height / 2 - 0.5)
    inside = x * x / (width / 2) ** 2 + y * y / (height / 2) ** 2 <= 1  # ij.gui.OvalRoi.getMask
    ring = oval_ring(4, 3, width, height)
    pixels = pixels_of(Outline("o", (ring,)), (height + 6, width + 8))
    assert (pixels[3 : 3 + height, 4 : 4 + width] == inside).all()
    assert pixels.sum() == inside.sum()


def test_an_oval_larger_than_any_image_takes_no_memory() -> None:
    assert len(oval_ring(0, 0, 60_000, 60_000)) < 200_000


@pytest.mark.parametrize(
    ("path", "area"),
    [
        ([0, 10, 10, 1, 30, 10, 1, 30, 30, 1, 10, 30, 4], 400.0),
        ([0, 10, 10, 1, 30, 10, 1, 30, 30, 1, 10, 30], 400.0),  # not closed: filled all the same
        ([0, 10, 10, 1, 30, 10, 1, 30, 30, 4, 1, 30, 30, 1, 10, 30, 4], 400.0),  # goes on from where it was closed
        ([0, 10, 10, 2, 50, 20, 10, 30, 4], 266.7),  # two thirds of the box of a parabola
        ([0, 10, 10, 3, 36.67, 10, 36.67, 30, 10, 30, 4], 320.0),  # 3/5 of box 26.67 x 20
        ([0, 10, 10, 1, 30, 10, 1, 30, 30, 1, 10, 30, 4, 0, 15, 15, 1, 15, 20, 1, 20, 20, 1, 20, 15, 4], 375.0),
    ],
    ids=["lines", "open", "goes on", "quadratic", "cubic", "hole"],
)
def test_a_composite_is_filled_along_its_path(tmp_path: Path, path: list[float], area: float) -> None:
    (outline,) = read(tmp_path, shape(path), name="x.roi").outlines
    assert pixels_of(outline).sum() == pytest.approx(area, abs=12)


def test_coordinates_are_places_between_pixels_whether_whole_or_not(tmp_path: Path) -> None:
    whole = read(tmp_path, polygon([(10, 20), (30, 20), (30, 50), (10, 50)]), name="a.roi").outlines[0]
    fractions = read(tmp_path, polygon([(9.6, 19.6), (30.4, 19.6), (30.4, 50.4), (9.6, 50.4)]), name="b.roi")
    assert pixels_of(whole).sum() == 20 * 30
    assert (pixels_of(whole) == pixels_of(fractions.outlines[0])).all()


# names, classes, notes


def test_lines_points_and_texts_are_problems_that_say_so() -> None:
    reasons = dict(SELECTIONS.problems)
    assert sorted(reasons) == ["angle", "arrow", "line", "point", "polyline", "text"]
    assert "segmented line" in reasons["polyline"]
    assert "text" in reasons["text"]


def test_the_key_is_the_name_in_the_archive() -> None:
    assert [outline.key for outline in AREAS[:2]] == ["oval", "oval between pixels"]


def test_a_file_of_one_roi_is_called_after_the_file() -> None:
    (outline,) = read_rois(HERE / "imagej_oval.roi").outlines
    assert outline.key == "imagej_oval"
    assert (pixels_of(outline) == pixels_of(AREAS[0])).all()


def test_names_that_occur_twice_are_numbered_and_noted(tmp_path: Path) -> None:
    content = archive(("a-2.roi", oval()), ("a.roi", oval()), ("a.roi", oval(left=40)), ("a.roi", oval(left=60)))
    file = read(tmp_path, content)
    keys = [outline.key for outline in file.outlines]
    assert len(set(keys)) == 4
    assert keys[:2] == ["a-2", "a"]
    assert file.notes == ("Several ROIs are called a; all but the first were numbered.",)


@pytest.mark.parametrize(
    ("rules", "labels"),
    [
        (None, ["pyknotic", None]),
        ("group:2=normal", ["pyknotic", "normal"]),
        ("name:colour=normal,name:group=intermediate", ["normal", "intermediate"]),
        ("colour:#D55E00=normal", ["normal", None]),
        ("pyknotic=dead", ["dead", None]),
    ],
)
def test_the_class_comes_from_property_group_name_or_colour(rules: str | None, labels: list[str | None]) -> None:
    file = read_rois(HERE / "imagej_selections.zip", ReadOptions(ClassMap.parse(rules)))
    assert [outline.label for outline in file.outlines[-2:]] == labels


def test_outlines_of_a_class_that_was_named_as_region_are_regions(tmp_path: Path) -> None:
    content = archive(("CA1.roi", oval()), ("cell.roi", oval()))
    file = read(tmp_path, content, class_map=ClassMap.parse("name:^CA1=CA1"), regions=frozenset({"CA1"}))
    assert [(outline.label, outline.kind) for outline in file.outlines] == [("CA1", "region"), (None, "cell")]


@pytest.mark.parametrize(("positions", "n_notes"), [((0, 0), 0), ((3, 3), 0), ((0, 3), 0), ((1, 2), 1)])
def test_rois_on_several_slices_are_noted(tmp_path: Path, positions: tuple[int, int], n_notes: int) -> None:
    file = read(tmp_path, archive(*((f"{i}.roi", oval(position=p)) for i, p in enumerate(positions))))
    assert len(file.outlines) == 2
    assert len(file.notes) == n_notes


def test_other_files_in_the_archive_are_named_and_those_of_a_mac_are_not(tmp_path: Path) -> None:
    content = archive(
        ("a.roi", oval()), ("b.csv", b"x"), ("nested.zip", b"PK"), ("__MACOSX/._a.roi", b"?"), ("d/", b"")
    )
    file = read(tmp_path, content)
    assert len(file.outlines) == 1
    assert not file.problems
    assert file.notes == ("Files in the archive that are no ROIs were not read: b.csv, nested.zip.",)


def test_archives_are_told_by_content_not_by_name(tmp_path: Path) -> None:
    assert len(read(tmp_path, archive(("a.roi", oval())), name="x.roi").outlines) == 1
    assert len(read(tmp_path, oval(), name="x.zip").outlines) == 1


def test_rois_in_folders_of_the_archive_keep_their_folder(tmp_path: Path) -> None:
    assert read(tmp_path, archive(("left/a.ROI", oval()))).outlines[0].key == "left/a"


# written


def cell(mask_hw: np.ndarray, name: str = "c", *, x: int = 5, y: int = 7, **words: object) -> RoiCell:
    return RoiCell(Outline(name, mask=CellMask(mask_hw.astype(np.uint8), x, y)), name, **words)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(mask_hw=arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 1)))
def test_any_mask_comes_back_pixel_by_pixel(mask_hw: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> None:
    mask_hw[0, 0] = mask_hw[-1, -1] = 1
    path = tmp_path_factory.getbasetemp() / "any.zip"
    write_rois(path, [cell(mask_hw)])
    (outline,) = read_rois(path).outlines
    mask = mask_of(outline, height=HEIGHT, width=WIDTH)
    assert (mask.x, mask.y) == (5, 7)
    assert (mask.mask_hw == mask_hw).all()


@settings(max_examples=60, deadline=None)
@given(
    points=arrays(np.float64, (7, 2), elements=st.floats(-20, 150, width=32)),
    far=st.sampled_from([0, 40_000, 60_500, 100_000]),
)
def test_any_polygon_comes_back_with_the_same_pixels(
    points: np.ndarray, far: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "polygon.zip"
    outline = Outline("p", (points + np.array([far, 0]),))
    write_rois(path, [RoiCell(outline, "p")])
    (again,) = read_rois(path).outlines
    try:
        mask = mask_of(outline, height=200, width=far + 200)
    except OutlineError:
        return
    theirs = mask_of(again, height=200, width=far + 200)
    assert (theirs.x, theirs.y) == (mask.x, mask.y)
    assert (theirs.mask_hw == mask.mask_hw).all()


def test_what_imagej_saved_is_written_again_as_it_was_but_for_name_class_and_colour(tmp_path: Path) -> None:
    cells = [
        RoiCell(outline, f"n{i}", colour="#010203", class_name="normal")
        for i, outline in enumerate(SELECTIONS.outlines)
    ]
    write_rois(tmp_path / "x.zip", cells)
    before = [
        roi for roi in roifile.roiread(HERE / "imagej_selections.zip") if roi.name not in dict(SELECTIONS.problems)
    ]
    after = roifile.roiread(tmp_path / "x.zip")
    assert [roi.roitype for roi in after] == [roi.roitype for roi in before]
    assert [roi.subtype for roi in after] == [roi.subtype for roi in before]
    assert [outline.label for outline in read_rois(tmp_path / "x.zip").outlines] == ["normal"] * len(after)
    assert {roi.hexcolor(roi.stroke_color) for roi in after} == {"#010203"}
    assert not any(roi.position for roi in after)
    for one, two in zip(SELECTIONS.outlines, read_rois(tmp_path / "x.zip").outlines, strict=True):
        assert (pixels_of(one) == pixels_of(two)).all()


@pytest.mark.parametrize("version", [217, 221, 222, 223, 229])
@pytest.mark.parametrize("data", [oval(), polygon([(10.5, 10.25), (40, 12), (30, 44)])], ids=["oval", "polygon"])
def test_rois_of_any_version_keep_their_pixels_when_written_again(tmp_path: Path, data: bytes, version: int) -> None:
    data = data[:4] + version.to_bytes(2, "big") + data[6:50] + (128).to_bytes(2, "big") + data[52:]
    if data[6] == ROI_TYPE.OVAL and version >= 223:
        data = data[:18] + np.array([10, 10, 12, 12], ">f4").tobytes() + data[34:]
    (before,) = read(tmp_path, data, name="x.roi").outlines
    write_rois(tmp_path / "x.zip", [RoiCell(before, "x")])
    assert (pixels_of(read_rois(tmp_path / "x.zip").outlines[0]) == pixels_of(before)).all()


def test_another_reader_finds_name_class_colour_and_probabilities(tmp_path: Path) -> None:
    words = {"class_name": "mild damage", "probabilities": {"mild damage": 0.93126, "normal": 0.07}}
    write_rois(tmp_path / "x.zip", [cell(np.ones((4, 3)), "N 1", colour="#d55e00", group=2, **words)])
    (roi,) = roifile.roiread(tmp_path / "x.zip")
    assert (roi.name, roi.hexcolor(roi.stroke_color)) == ("N 1", "#d55e00")
    assert roi.properties == {"class": "mild damage", "group": 2, r"p(mild\ damage)": 0.9313, "p(normal)": 0.07}
    assert (roi.left, roi.top, roi.right, roi.bottom) == (5, 7, 8, 11)
    assert roi.roitype == ROI_TYPE.TRACED
    assert roi.coordinates().tolist() == [[5, 7], [8, 7], [8, 11], [5, 11]]


def test_a_group_stands_in_the_header_only_where_there_is_no_colour_that_imagej_would_replace(tmp_path: Path) -> None:
    write_rois(
        tmp_path / "x.zip", [cell(np.ones((4, 3)), "a", group=2), cell(np.ones((4, 3)), "b", group=2, colour="#00ff00")]
    )
    assert [roi.group for roi in roifile.roiread(tmp_path / "x.zip")] == [2, 0]
    file = read_rois(tmp_path / "x.zip", ReadOptions(ClassMap.parse("group:2=normal")))
    assert [outline.label for outline in file.outlines] == ["normal", "normal"]


@pytest.mark.parametrize("name", ["geschädigt", r"back\slash", "emoji 🙂", "a: b = c", "two\nlines"])
def test_a_class_of_any_letters_comes_back(tmp_path: Path, name: str) -> None:
    write_rois(tmp_path / "x.zip", [cell(np.ones((4, 3)), class_name=name, probabilities={name: 0.5})])
    assert read_rois(tmp_path / "x.zip").outlines[0].label == name.replace("\n", " ")


def test_names_are_safe_and_unique_files_of_one_folder(tmp_path: Path) -> None:
    names = [
        "../../etc/passwd",
        "/root",
        "C:\\x",
        "a",
        "a",
        "A",
        "a-2",
        "",
        "  ",
        "x\x00y\n",
        "ö" * 300,
        "\ud800",
        "n.roi",
    ]
    write_rois(tmp_path / "x.zip", [cell(np.ones((4, 3)), name) for name in names])
    with zipfile.ZipFile(tmp_path / "x.zip") as opened:
        written = opened.namelist()
    assert len({name.casefold() for name in written}) == len(names)
    assert all(name.endswith(".roi") and not set(name) & set('/\\:*?"<>|\0\n') and name[0] != "." for name in written)
    file = read_rois(tmp_path / "x.zip")
    assert [f"{outline.key}.roi" for outline in file.outlines] == written
    assert not file.problems
    assert not file.notes


def test_the_same_cells_make_the_same_bytes(tmp_path: Path) -> None:
    cells = [cell(np.ones((4, 3)), str(i), colour="#00ff00", class_name="a") for i in range(5)]
    for name in "ab":
        write_rois(tmp_path / name, cells)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_nothing_is_left_behind_when_writing_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="concatenate"):
        write_rois(tmp_path / "x.zip", [cell(np.ones((4, 3))), RoiCell(Outline("none"), "none")])
    assert not list(tmp_path.iterdir())


def test_an_archive_without_cells_can_be_written(tmp_path: Path) -> None:
    write_rois(tmp_path / "x.zip", [])
    with pytest.raises(OutlineError, match="holds no ROI"):
        read_rois(tmp_path / "x.zip")


@pytest.mark.parametrize(
    ("x", "shift", "noted"),
    [
        (62_000, 0.0, False),
        (65_520, 0.0, False),
        (100_000, 0.0, False),
        (100_000, 0.25, False),
        (200_000, 0.0, False),
        (200_000, 0.3, True),
    ],
)
def test_places_far_out_on_a_slide_are_kept_or_a_note_says_how_well(
    tmp_path: Path, x: int, shift: float, noted: bool
) -> None:
    ring = np.array([[0, 0], [20, 0], [20, 30], [0, 30]]) + np.array([x + shift, 5.0])
    notes = write_rois(tmp_path / "x.zip", [RoiCell(Outline("far", (ring,)), "far")])
    assert bool(notes) == noted
    mask = mask_of(read_rois(tmp_path / "x.zip").outlines[0], height=60, width=x + 100)
    assert (mask.x, mask.y, mask.mask_hw.shape) == (x, 5, (30, 20))


def test_an_outline_of_more_points_than_a_polygon_can_have_becomes_a_composite(tmp_path: Path) -> None:
    turn = np.linspace(0, 2 * np.pi, 70_000, endpoint=False)
    ring = np.stack([60 + 40 * np.cos(turn), 45 + 30 * np.sin(turn)], axis=1)
    write_rois(tmp_path / "x.zip", [RoiCell(Outline("many", (ring,)), "many")])
    (roi,) = roifile.roiread(tmp_path / "x.zip")
    assert roi.composite
    assert (pixels_of(read_rois(tmp_path / "x.zip").outlines[0]) == pixels_of(Outline("many", (ring,)))).all()


def test_holes_and_parts_are_a_composite_that_another_reader_takes_apart(tmp_path: Path) -> None:
    mask_hw = np.ones((9, 9))
    mask_hw[3:5, 3:6] = 0
    mask_hw[:, 7] = 0
    write_rois(tmp_path / "x.zip", [cell(mask_hw)])
    (roi,) = roifile.roiread(tmp_path / "x.zip")
    assert sorted(len(part) for part in roi.coordinates(multi=True)) == [5, 5, 5]


# hostile


@settings(max_examples=150, deadline=None)
@given(tail=st.binary(max_size=300))
def test_any_bytes_behind_the_magic_are_outlines_or_a_reason(
    tail: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    _reads_or_says_why(tmp_path_factory.getbasetemp() / "any.roi", b"Iout" + tail)


SEEDS = [
    oval(),
    polygon([(10.5, 10.25), (40, 12), (30, 44)]),
    polygon([(10, 10), (40, 12), (30, 44)]),
    shape([0, 10, 10, 2, 50, 20, 10, 30, 4]),
    archive(("a.roi", oval()), ("b.roi", polygon([(10, 10), (40, 12), (30, 44)]))),
    (HERE / "imagej_selections.zip").read_bytes(),
    *(
        zipfile.ZipFile(HERE / "imagej_selections.zip").read(f"{name}.roi")
        for name in ("ellipse", "spline", "text", "ring")
    ),
]


@settings(max_examples=300, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
    keep=st.sampled_from([1.0, 1.0, 0.98, 0.5]),
)
def test_flipped_and_cut_files_are_outlines_or_a_reason(
    seed: bytes, flips: list[tuple[float, int]], keep: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(seed)
    for place, value in flips:
        content[int(place * len(content))] = value
    _reads_or_says_why(tmp_path_factory.getbasetemp() / "flipped", bytes(content[: int(len(content) * keep)]))


def _reads_or_says_why(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        file = read_rois(path)
    except OutlineError:
        return
    for outline in file.outlines:
        try:
            mask_of(outline, height=64, width=64)
        except OutlineError:
            continue
