"""Which images are predicted, with which outlines; what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from perikarya.errors import DataError
from perikarya.predict.inputs import FieldInput, FoundFields, find_fields, image_ids


def field(folder: Path, name: str, *, outlines: str | None = "{stem}.geojson") -> Path:
    """An image and, beside it, an empty file of outlines."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"an image")
    if outlines:
        collection(path.with_name(outlines.format(stem=path.stem)))
    return path


def collection(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"type": "FeatureCollection", "features": []}')
    return path


def names(found: FoundFields) -> list[str]:
    return [item.image.name for item in found.fields]


def reasons(found: FoundFields) -> str:
    return "\n".join(f"{where}: {reason}" for where, reason in found.problems)


def table(path: Path, *rows: str, header: str = "image,outlines,subject,region,group,set,um_per_px") -> Path:
    path.write_text("\n".join([header, *rows]))
    return path


def test_an_image_finds_the_outlines_beside_it(tmp_path: Path) -> None:
    image = field(tmp_path, "a.jpg")
    found = find_fields([str(image)])
    assert found.fields == (FieldInput(image, tmp_path / "a.geojson", "a"),)
    assert not found.problems


def test_a_folder_gives_its_images_with_outlines_and_says_how_many_have_none(tmp_path: Path) -> None:
    field(tmp_path, "b.png")
    field(tmp_path, "a.tif", outlines="{stem}_labels.tif")
    field(tmp_path, "slide.SVS")
    field(tmp_path, "._b.png")
    field(tmp_path, "bare.jpg", outlines=None)
    found = find_fields([str(tmp_path)])
    assert names(found) == ["a.tif", "b.png", "slide.SVS"]
    assert not found.problems
    assert found.notes == (f"1 image(s) in {tmp_path} have no outlines and are left out, such as bare.jpg.",)


def test_a_folder_without_any_outlines_is_a_problem(tmp_path: Path) -> None:
    field(tmp_path, "bare.jpg", outlines=None)
    found = find_fields([str(tmp_path)])
    assert not found.fields
    assert "no image in this folder has outlines beside it" in reasons(found)


def test_a_pattern_is_expanded_sorted_and_leaves_label_maps_out(tmp_path: Path) -> None:
    for name in ("s2/b.tif", "s1/c.tif", "s1/a.tif"):
        field(tmp_path, name, outlines="{stem}_labels.tif")
    found = find_fields([str(tmp_path / "**" / "*.tif")])
    assert names(found) == ["a.tif", "c.tif", "b.tif"]
    assert not found.problems


def test_a_name_with_brackets_is_a_file_when_there_is_one(tmp_path: Path) -> None:
    image = field(tmp_path, "a[1].png")
    assert names(find_fields([str(image)])) == ["a[1].png"]


def test_one_bad_image_among_many_is_a_problem_and_the_rest_is_kept(tmp_path: Path) -> None:
    good = field(tmp_path, "good.png")
    bare = field(tmp_path, "bare.png", outlines=None)
    twice = field(tmp_path, "twice.png")
    field(tmp_path, "twice.jpg", outlines="{stem}.zip")
    found = find_fields([str(good), str(bare), str(twice), str(tmp_path / "gone.png"), str(tmp_path / "no*.png")])
    assert names(found) == ["good.png"]
    said = reasons(found)
    assert "bare.png: it has no outlines beside it" in said
    assert "twice.png: several files of outlines lie beside it" in said
    assert "gone.png: there is no such image" in said
    assert "no*.png: no file fits this pattern" in said


def test_an_image_named_twice_is_predicted_once(tmp_path: Path) -> None:
    image = field(tmp_path, "a.png")
    assert names(find_fields([str(image), str(tmp_path / "*.png"), str(tmp_path)])) == ["a.png"]


def test_nothing_named_is_an_error() -> None:
    with pytest.raises(DataError, match="No image is named"):
        find_fields([])


def test_outlines_may_be_one_file_a_folder_or_a_pattern(tmp_path: Path) -> None:
    image = field(tmp_path / "i", "a.png", outlines=None)
    one = collection(tmp_path / "o" / "a.geojson")
    other = collection(tmp_path / "o" / "a.png.outlines.json")
    beside = collection(tmp_path / "i" / "a_mine.geojson")
    for given, expected in (
        (str(one), one),
        (str(tmp_path / "o"), one),
        (str(tmp_path / "o" / "{stem}.geojson"), one),
        (str(tmp_path / "o" / "{name}.outlines.json"), other),
        ("{stem}_mine.geojson", beside),  # without a folder: beside the image
    ):
        (item,) = find_fields([str(image)], outlines=given).fields
        assert item.outlines == expected, given


def test_a_pattern_without_a_file_says_where_it_looked(tmp_path: Path) -> None:
    image = field(tmp_path, "a.png")
    found = find_fields([str(image)], outlines=str(tmp_path / "x" / "{stem}.zip"))
    assert "it has no outlines at" in reasons(found)
    assert "{stem}.zip" in reasons(found)


def test_one_file_of_outlines_is_not_laid_over_several_images(tmp_path: Path) -> None:
    images = [str(field(tmp_path, name)) for name in ("a.png", "b.png")]
    with pytest.raises(DataError, match="is one file, but 2 images are named"):
        find_fields(images, outlines=str(tmp_path / "a.geojson"))
    (tmp_path / "empty.geojson").write_bytes(b"")
    with pytest.raises(DataError, match="is one file, but 2 images are named"):
        find_fields(images, outlines=str(tmp_path / "empty.geojson"))
    coco = tmp_path / "coco.json"
    coco.write_text('{"images": [], "annotations": [], "categories": []}')
    assert [item.outlines for item in find_fields(images, outlines=str(coco)).fields] == [coco, coco]


def test_outlines_that_are_nowhere_are_an_error(tmp_path: Path) -> None:
    image = field(tmp_path, "a.png")
    with pytest.raises(DataError, match="is neither a file nor a folder"):
        find_fields([str(image)], outlines=str(tmp_path / "gone.geojson"))


def test_a_table_names_images_and_tells_words_and_scale(tmp_path: Path) -> None:
    field(tmp_path, "s1/a.png", outlines=None)
    collection(tmp_path / "o" / "first.geojson")
    field(tmp_path, "b.png")
    path = table(
        tmp_path / "t.csv",
        "s1\\a.png,o/first.geojson,sheep1,CA1,sham,external,0.5",
        'b.png,,sheep2,,,,"0,25"',
    )
    found = find_fields([], table=path)
    assert not found.problems
    a, b = found.fields
    assert (a.image, a.outlines, a.um_per_px) == (tmp_path / "s1/a.png", tmp_path / "o/first.geojson", 0.5)
    assert a.words == {"subject": "sheep1", "region": "CA1", "group": "sham", "set": "external"}
    assert (b.outlines, b.um_per_px, b.words["region"]) == (tmp_path / "b.geojson", 0.25, None)


def test_rows_tell_of_the_images_named_on_the_command_line(tmp_path: Path) -> None:
    images = [str(field(tmp_path / "i", name)) for name in ("a.png", "b.png")]
    path = table(tmp_path / "t.csv", "a,sheep1", header="image,animal")
    found = find_fields(images, table=path)
    assert names(found) == ["a.png", "b.png"]
    assert found.fields[0].words["subject"] == "sheep1"
    assert not found.fields[1].words
    assert any("1 of the images have no row in t.csv" in note for note in found.notes)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("../out.png,,,,,,", "leaves the folder of the table"),
        ("/etc/passwd,,,,,,", "leaves the folder of the table"),
        ("C:\\x.png,,,,,,", "leaves the folder of the table"),
        ("a.png,../o.geojson,,,,,", "leaves the folder of the table"),
        ("gone.png,,,,,,", "there is no file"),
        ("a.png,gone.geojson,,,,,", "there is no file"),
        (",,sheep1,,,,", "names no image"),
        ("a.png,,,,,,zero", "um_per_px is 'zero'"),
        ("a.png,,,,,,-1", "um_per_px is '-1'"),
        ("a.png,,,,,,nan1", "must be a number above 0"),
        ("a.png,,,,,,inf", "must be a number above 0"),
        ("a.png,,", "has 3 entries"),
    ],
)
def test_a_row_that_cannot_be_is_a_problem_and_the_others_are_kept(tmp_path: Path, row: str, reason: str) -> None:
    field(tmp_path / "t", "a.png")
    field(tmp_path / "t", "good.png")
    (tmp_path / "out.png").write_bytes(b"x")
    (tmp_path / "o.geojson").write_bytes(b"x")
    found = find_fields([], table=table(tmp_path / "t" / "t.csv", row, "good.png,,,,,,"))
    assert names(found) == ["good.png"]
    assert reason in reasons(found)
    assert "t.csv line 2" in reasons(found)


def test_a_row_that_fits_two_images_or_comes_twice_is_a_problem(tmp_path: Path) -> None:
    images = [str(field(tmp_path, name)) for name in ("s1/a.png", "s2/a.png", "b.png")]
    found = find_fields(images, table=table(tmp_path / "t.csv", "a.png,x", "b.png,y", "b,z", header="image,subject"))
    assert "'a.png' could be" in reasons(found)
    assert "the image was given in line 3 already" in reasons(found)
    assert found.fields[2].words["subject"] == "y"


def test_a_missing_table_names_its_option(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--table"):
        find_fields([], table=tmp_path / "gone.csv")
    with pytest.raises(DataError, match="no column 'image'"):
        find_fields([], table=table(tmp_path / "t.csv", "x", header="subject"))


def test_images_are_called_by_their_stems_told_apart_by_folders_endings_and_numbers() -> None:
    def ids(*paths: str) -> list[str]:
        return image_ids([Path(path) for path in paths])

    assert ids("x/a.png", "x/b.png") == ["a", "b"]
    assert ids("/x/s1/a.png", "/x/s2/a.png", "/x/b.png") == ["s1_a", "s2_a", "b"]
    assert ids("/x/s1/f/a.png", "/x/s2/f/a.png") == ["s1_f_a", "s2_f_a"]
    assert ids("/x/a.png", "/x/a.tif") == ["a_png", "a_tif"]
    assert ids("/x/A.png", "/y/a.png") == ["x_A", "y_a"]  # one file on a Mac
    assert ids("/x/s1/a.png", "/x/s2/a.png", "/x/s1_a.png") == ["s1_a", "s2_a", "s1_a-2"]


def test_names_of_images_can_be_names_of_files_anywhere() -> None:
    assert image_ids([Path("a:b?.png")]) == ["a_b_"]
    assert image_ids([Path("Schaf 7 – CA1 é.png")]) == ["Schaf 7 – CA1 é"]
    assert len(image_ids([Path("a" * 200 + ".png")])[0]) == 120


def test_a_real_image_keeps_its_place_in_the_order_given(tmp_path: Path) -> None:
    images = [str(field(tmp_path, name)) for name in ("z.png", "a.png")]
    assert names(find_fields(images)) == ["z.png", "a.png"]
