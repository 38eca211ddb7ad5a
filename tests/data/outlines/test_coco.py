from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_masks
from tests.sources import disc

from perikarya.data.outlines import ClassMap, OutlineError, ReadOptions, read_outlines
from perikarya.data.outlines.base import CellMask
from perikarya.data.outlines.coco import read_coco, read_coco_file
from perikarya.data.outlines.raster import mask_of
from perikarya.data.outlines.rle import decode_rle

HW = (40, 60)
SQUARE = [10, 5, 20, 5, 20, 15, 10, 15]


def coco(*annotations: dict[str, Any], **changes: object) -> dict[str, Any]:
    """A COCO file of two images, two categories and the given annotations."""
    image = {"width": HW[1], "height": HW[0]}
    return {
        "info": {"description": "made by a test"},
        "images": [{"id": 0, "file_name": "a.png"} | image, {"id": 1, "file_name": "sub/b.png"} | image],
        "annotations": [
            {"id": i, "image_id": 0, "category_id": 1, "segmentation": [SQUARE], "iscrowd": 0} | annotation
            for i, annotation in enumerate(annotations)
        ],
        "categories": [{"id": 1, "name": "normal"}, {"id": 2, "name": "pyknotic", "supercategory": "cell"}],
    } | changes


def read(tmp_path: Path, content: object, options: ReadOptions = ReadOptions()):  # noqa: B008
    path = tmp_path / "annotations.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return read_coco_file(path, options)


def lengths_of(mask_hw: np.ndarray) -> list[int]:
    """Runs of background and cell in turn, down the columns."""
    flat = np.append(0, mask_hw.T.ravel() > 0)
    changes = np.flatnonzero(np.diff(flat))
    return np.diff(np.concatenate([[0], changes, [mask_hw.size]])).tolist()


def unfolded(mask: CellMask, hw: tuple[int, int]) -> np.ndarray:
    whole = np.zeros(hw, np.uint8)
    rows, columns = mask.mask_hw.shape
    whole[mask.y : mask.y + rows, mask.x : mask.x + columns] = mask.mask_hw
    return whole


def random_masks(n: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    masks = []
    for i in range(n):
        hw = tuple(rng.integers(1, 50, 2))
        specks = rng.random(hw) < rng.choice([0.05, 0.5, 0.95, 1])
        mask = specks if i % 2 else disc(hw, radius=1 + min(hw) / 3) > 0
        if mask.any():
            masks.append(mask.astype(np.uint8))
    return masks


def test_masks_are_unfolded_as_the_coco_api_does() -> None:
    masks = random_masks(120)
    assert len(masks) > 100
    for mask in masks:
        height, width = mask.shape
        packed = coco_masks.encode(np.asfortranarray(mask))["counts"].decode()
        for counts in (packed, lengths_of(mask)):
            decoded = decode_rle({"size": [height, width], "counts": counts}, height=height, width=width)
            assert (unfolded(decoded, mask.shape) == mask).all()
            assert decoded.mask_hw.any(axis=0)[[0, -1]].all()  # the box is tight: it is part of the identity
            assert decoded.mask_hw.any(axis=1)[[0, -1]].all()


def test_a_small_mask_of_a_huge_image_takes_little_memory() -> None:
    height, width = 400_000, 300_000
    before = 150_000 * height + 5
    counts = [before, 3, height - 3, 3, width * height - before - height - 3]
    mask = decode_rle({"size": [height, width], "counts": counts}, height=height, width=width)
    assert (mask.x, mask.y, mask.mask_hw.tolist()) == (150_000, 5, [[1, 1]] * 3)


@pytest.mark.parametrize(
    ("segmentation", "says"),
    [
        ({"size": [40, 60]}, "has no 'counts'"),
        ({"size": [60, 40], "counts": [2400]}, "is for 40 x 60 px but the image is 60 x 40 px"),
        ({"counts": [2400]}, "is for the size None"),
        ({"size": ["40", 60], "counts": [2400]}, "is for the size"),
        ({"size": [40, 60], "counts": [2400]}, "is empty"),
        ({"size": [40, 60], "counts": []}, "do not add up to the 2400 pixels"),
        ({"size": [40, 60], "counts": [5, 10]}, "do not add up"),
        ({"size": [40, 60], "counts": [5, 10, 2386]}, "do not add up"),
        ({"size": [40, 60], "counts": [2410, -20, 10]}, "do not add up"),
        ({"size": [40, 60], "counts": [2**39] * 9}, "do not add up"),
        ({"size": [40, 60], "counts": [10**30]}, "neither whole numbers nor"),
        ({"size": [40, 60], "counts": [1.5, 2398.5]}, "neither whole numbers nor"),
        ({"size": [40, 60], "counts": [True, 2399]}, "neither whole numbers nor"),
        ({"size": [40, 60], "counts": None}, "neither whole numbers nor"),
        ({"size": [40, 60], "counts": ""}, "are damaged"),
        ({"size": [40, 60], "counts": "a b"}, "are damaged"),
        ({"size": [40, 60], "counts": "éé"}, "are damaged"),
        ({"size": [40, 60], "counts": "PPP"}, "are damaged"),  # the last number never ends
        ({"size": [40, 60], "counts": "o" * 20 + "0"}, "a number beyond all images"),
    ],
)
def test_a_mask_that_cannot_be_unfolded_says_why(segmentation: dict[str, Any], says: str) -> None:
    with pytest.raises(OutlineError, match=says):
        decode_rle(segmentation, height=40, width=60)


def test_outlines_come_by_image_with_class_and_key(tmp_path: Path) -> None:
    second = {"id": 77, "image_id": 1, "category_id": 2, "segmentation": [[*SQUARE, 10, 5]], "attributes": {"a": 1}}
    file = read(tmp_path, coco({}, second))
    assert not file.problems
    assert list(file.images) == ["a.png", "sub/b.png"]
    assert [(o.key, o.label, o.kind) for o in file.images["a.png"].outlines] == [("0", "normal", "cell")]
    outline = file.images["sub/b.png"].outlines[0]
    assert (outline.key, outline.label) == ("77", "pyknotic")
    assert outline.rings[0].tolist() == [[10, 5], [20, 5], [20, 15], [10, 15]]  # the repeated point is gone
    assert file.images["a.png"].image_hw == HW


def test_lists_may_come_in_any_order(tmp_path: Path) -> None:
    content = coco({}, {"image_id": 1})
    turned = {key: content[key] for key in ("annotations", "categories", "images", "info")}
    assert [len(image.outlines) for image in read(tmp_path, turned).images.values()] == [1, 1]


def test_categories_become_classes_and_regions_by_the_options(tmp_path: Path) -> None:
    options = ReadOptions(ClassMap.parse("normal=healthy"), frozenset({"pyknotic"}))
    file = read(tmp_path, coco({}, {"category_id": 2}, {"category_id": None}), options)
    found = [(o.label, o.kind) for o in file.images["a.png"].outlines]
    assert found == [("healthy", "cell"), ("pyknotic", "region"), (None, "cell")]


def test_separate_parts_are_one_cell_and_parts_that_overlap_are_united(tmp_path: Path) -> None:
    apart, inner = [30, 20, 34, 20, 34, 24, 30, 24], [12, 7, 14, 7, 14, 9, 12, 9]
    beside = [20, 5, 25, 5, 25, 15, 20, 15]
    file = read(tmp_path, coco(*({"segmentation": [SQUARE, part]} for part in (apart, inner, beside))))
    two, hole, neighbour = (mask_of(o, height=40, width=60).mask_hw for o in file.images["a.png"].outlines)
    assert two.sum() == 100 + 16
    assert hole.all()  # COCO has no holes
    assert hole.shape == (10, 10)
    assert neighbour.shape == (10, 15)
    assert neighbour.all()


def test_overlapping_parts_give_the_pixels_of_their_union(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        parts = [np.round(rng.uniform(2, 38, 8), 2).tolist() for _ in range(3)]
        file = read(tmp_path, coco({"segmentation": parts}))
        found = unfolded(mask_of(file.images["a.png"].outlines[0], height=40, width=60), HW)
        expected = np.zeros(HW, np.uint8)
        for part in parts:
            single = read(tmp_path, coco({"segmentation": [part]})).images["a.png"].outlines[0]
            expected |= unfolded(mask_of(single, height=40, width=60), HW)
        assert (found == expected).all()


def test_a_painted_cell_that_is_marked_as_a_crowd_is_taken_but_a_true_crowd_is_not(tmp_path: Path) -> None:
    one, two = np.zeros(HW, np.uint8), np.zeros(HW, np.uint8)
    one[4:9, 5:11] = two[4:9, 5:11] = two[20:25, 30:33] = 1
    segmentations = [{"size": list(HW), "counts": lengths_of(mask)} for mask in (one, two)]
    crowds = [{"segmentation": s, "iscrowd": 1} for s in (*segmentations, [SQUARE], [SQUARE, [30, 20, 34, 20, 34, 24]])]
    image = read(tmp_path, coco(*crowds)).images["a.png"]
    assert [outline.key for outline in image.outlines] == ["0", "2"]
    assert [where for where, _ in image.problems] == ["annotation 1", "annotation 3"]
    assert all("a crowd (iscrowd) of 2 pieces" in reason for _, reason in image.problems)


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("a.png", "a.png"),
        ("images\\a.png", "images/a.png"),  # Label Studio
        ("./a.png", "a.png"),
        ("default/a b(1).png", "default/a b(1).png"),
        ("..\\..\\label-studio\\media\\upload\\4\\a.png", "a.png"),  # Label Studio 1.16
        ("/data/local-files/a.png", "a.png"),
        ("C:\\images\\a.png", "a.png"),
    ],
)
def test_paths_are_taken_as_tools_write_them_but_never_lead_out(tmp_path: Path, written: str, read_as: str) -> None:
    file = read(tmp_path, coco({}, images=[{"id": 0, "file_name": written, "width": 60, "height": 40}]))
    assert list(file.images) == [read_as]
    led_out = written.startswith(("..\\", "/", "C:"))
    assert [f"only {read_as} was looked for" in note for note in file.images[read_as].notes] == [True] * led_out


def bad_image(**changes: object) -> dict[str, Any]:
    return coco({}, {"image_id": 1}, images=[{"id": 0, "file_name": "a.png", "width": 60, "height": 40} | changes])


UNUSABLE_ANNOTATIONS: dict[str, tuple[dict[str, Any], str]] = {
    "box only": ({"segmentation": []}, "it has no outline"),
    "no segmentation": ({"segmentation": None}, "it has no outline"),
    "a number": ({"segmentation": 5}, "its mask has no 'counts'"),
    "a text": ({"segmentation": "rle"}, "its mask has no 'counts'"),
    "bare numbers": ({"segmentation": SQUARE}, "is no list of numbers"),
    "pairs": ({"segmentation": [[[1, 2], [3, 4], [5, 6]]]}, "is no list of numbers"),
    "texts": ({"segmentation": [["1", "2", "3", "4", "5", "6"]]}, "is no list of numbers"),
    "two points": ({"segmentation": [[1, 2, 3, 4]]}, "has 4 numbers"),
    "odd numbers": ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "has 7 numbers"),
    "NaN": ({"segmentation": [[float("nan"), 2, 3, 4, 5, 6]]}, "no places in an image"),
    "infinite": ({"segmentation": [[float("inf"), 2, 3, 4, 5, 6]]}, "no places in an image"),
    "absurd": ({"segmentation": [[10**400, 2, 3, 4, 5, 6]]}, "no places in an image"),
    "mask of another image": ({"segmentation": {"size": [4, 4], "counts": [16]}}, "is for 4 x 4 px"),
    "unknown category": ({"category_id": 9}, "category_id 9 is not among"),
    "category of another kind": ({"category_id": [1]}, "is not among the categories"),
    "unknown image": ({"image_id": 9}, "image_id 9 is not among"),
    "image of another kind": ({"image_id": {}}, "is not among the usable images"),
    "no id": ({"id": None}, "has no id"),
    "id of another kind": ({"id": 1.5}, "has no id"),
    "id of thousands of digits": ({"id": 10**4000}, "has no id"),
    "id given twice": ({"id": 0}, "its id 0 was given before"),
    "id given twice as a text": ({"id": "0"}, "its id '0' was given before"),
}


@pytest.mark.parametrize("name", UNUSABLE_ANNOTATIONS)
def test_an_annotation_that_cannot_be_used_is_listed_and_the_others_are_read(tmp_path: Path, name: str) -> None:
    change, says = UNUSABLE_ANNOTATIONS[name]
    file = read(tmp_path, coco({}, change, {}))
    problems = [*file.problems, *file.images["a.png"].problems]
    assert len(problems) == 1
    assert says in problems[0][1]
    assert [outline.key for outline in file.images["a.png"].outlines] == ["0", "2"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"file_name": None}, "has no file_name"),
        ({"file_name": " "}, "has no file_name"),
        ({"file_name": "a\x00.png"}, "unprintable"),
        ({"file_name": "a/.."}, "leaves the folder"),
        ({"file_name": "."}, "leaves the folder"),
        ({"file_name": "/"}, "leaves the folder"),
        ({"file_name": "C:"}, "leaves the folder"),
        ({"file_name": "x" * 1001}, "has no file_name"),
        ({"width": 0}, "no width and height"),
        ({"width": 60.5}, "no width and height"),
        ({"height": None}, "no width and height"),
        ({"height": 10**9}, "no width and height"),
        ({"id": None}, "has no id"),
    ],
)
def test_an_image_that_cannot_be_used_takes_its_annotations_with_it(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    file = read(tmp_path, bad_image(**changes))
    assert not file.images
    assert says in dict(file.problems)["images[0]"]
    assert len(file.problems) == 3


def test_images_that_are_listed_twice_are_refused(tmp_path: Path) -> None:
    images = coco()["images"]
    same_id = read(tmp_path, coco(images=[images[0], images[1] | {"id": 0}]))
    assert same_id.problems == (("images[1]", "its id 0 was given before"),)
    same_path = read(tmp_path, coco(images=[images[0], images[0] | {"id": 5}]))
    assert same_path.problems == (("images[1]", "the image a.png was listed before"),)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "empty"),
        ("{", "truncated"),
        ("[]", "a bare list"),
        ("5", "not JSON"),
        ("{}", "no list 'images'"),
        ('{"images": []}', "no list 'annotations'"),
        ('{"images": {}, "annotations": []}', "no list 'images'"),
        ('{"images": [], "annotations": []} x', "follows after the end"),
        ("[" * 100_000, "a bare list"),
        ('{"images": ' + "[" * 100_000, "nested too deeply"),
        (coco(categories=[{"id": 1}]), "no id and printable name"),
        (coco(categories=[5]), "no id and printable name"),
        (coco(categories=[{"id": 1, "name": "\ud800"}]), "no id and printable name"),
        (coco(categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]), "category 1 is 'a' and 'b'"),
    ],
)
def test_a_file_that_is_no_coco_file_is_refused(tmp_path: Path, content: object, says: str) -> None:
    with pytest.raises(OutlineError, match=says):
        read(tmp_path, content)


def test_a_file_may_hold_only_so_many_annotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perikarya.data.outlines.coco.MAX_OUTLINES", 2)
    assert read(tmp_path, coco({}, {}))
    with pytest.raises(OutlineError, match="more than 2 annotations"):
        read(tmp_path, coco({}, {}, {}))


def test_one_image_is_read_by_its_name_with_what_is_wrong_in_the_file(tmp_path: Path) -> None:
    read(tmp_path, coco({}, {"image_id": 1}, {"image_id": 9}))
    path = tmp_path / "annotations.json"
    file = read_outlines(path, image=tmp_path / "sub" / "b.png")
    assert [outline.key for outline in file.outlines] == ["1"]
    assert [where for where, _ in file.problems] == ["annotation 2"]
    assert list(read_coco(path)) == ["a.png", "sub/b.png"]
    with pytest.raises(OutlineError, match=r"does not speak of c\.png"):
        read_outlines(path, image=tmp_path / "c.png")
