from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from tests.sources import class_folders, disc, picture, write

from perikarya.data.importers import import_study
from perikarya.data.importers.base import ImportOptions
from perikarya.data.integrity import CheckReport, check_lines, check_study, render_check
from perikarya.data.splits import FoldPlan
from perikarya.data.store import OpenStudy
from perikarya.schema import write_table

CLASSES = ("normal", "pyknotic")
N = 6  # cells per class; subject s0 … s5, one of each class


def make_source(root: Path, *, seed: int = 0, prefix: str = "s") -> Path:
    class_folders(root, classes=CLASSES, n=N, seed=seed)
    rows = [f"c{i}.png,{prefix}{i % N},{prefix}f{i % N},CA1,sham" for i in range(2 * N)]
    (root / "metadata.csv").write_text("\n".join(["file,subject,image_id,region,group", *rows]))
    return root


def imported(tmp_path: Path, change: Callable[[Path, Path], object] | None = None) -> OpenStudy:
    """Development and external cells, all well, then changed."""
    source, external = make_source(tmp_path / "dev"), make_source(tmp_path / "ext", seed=1, prefix="e")
    if change:
        change(source, external)
    return import_study(source, tmp_path / "study", options=ImportOptions(external=external))


def codes(report: CheckReport, severity: str) -> set[str]:
    return {finding.code for finding in report.findings if finding.severity == severity}


def altered(pixels: np.ndarray) -> np.ndarray:
    """A copy that no hash of bytes finds: turned, darker, recompressed."""
    turned = np.clip(np.rot90(pixels) * 0.92 + 3, 0, 255).astype(np.uint8)
    return cv2.imdecode(cv2.imencode(".jpg", turned, [cv2.IMWRITE_JPEG_QUALITY, 80])[1], cv2.IMREAD_COLOR)


def plant(root: Path, name: str, pixels: np.ndarray) -> None:
    write(root / "images" / name, pixels)


def test_a_clean_study_passes_without_a_word(tmp_path: Path) -> None:
    report = check_study(imported(tmp_path))
    assert report.ok
    assert report.findings == ()
    assert report.counts["set"].loc["normal"].tolist() == [N, N]
    assert report.counts["region"].to_numpy().tolist() == [[2 * N], [2 * N]]
    assert len(report.counts["subject"].columns) == 2 * N


@pytest.mark.parametrize("alter", [lambda pixels: pixels, altered])
def test_a_copy_in_development_and_external_must_be_fixed(tmp_path: Path, alter: Callable) -> None:
    report = check_study(imported(tmp_path, lambda dev, ext: plant(ext, "normal/c2.png", alter(picture(4)))))
    assert not report.ok
    (finding,) = (f for f in report.findings if f.code == "leak-sets")
    assert "images/normal/c4.png (development)" in finding.sentence
    assert "images/normal/c2.png (external)" in finding.sentence
    assert len(finding.cells) == 2


@pytest.mark.parametrize("alter", [lambda pixels: pixels, altered])
def test_a_copy_in_two_subjects_must_be_fixed(tmp_path: Path, alter: Callable) -> None:
    report = check_study(imported(tmp_path, lambda dev, ext: plant(dev, "normal/c2.png", alter(picture(4)))))
    assert not report.ok
    (finding,) = (f for f in report.findings if f.severity == "error")
    assert finding.code == "duplicate-subjects"
    for part in ("images/normal/c2.png", "images/normal/c4.png", "s2", "s4"):
        assert part in finding.sentence


def test_a_copy_within_one_subject_is_a_warning(tmp_path: Path) -> None:
    def change(dev: Path, ext: Path) -> None:
        plant(dev, "normal/c2.png", altered(picture(4)))
        text = (dev / "metadata.csv").read_text()
        (dev / "metadata.csv").write_text(text.replace("c2.png,s2,sf2", "c2.png,s4,sf4"))

    report = check_study(imported(tmp_path, change))
    assert report.ok
    assert codes(report, "warning") == {"duplicate"}


def test_one_cell_with_two_labels_must_be_fixed(tmp_path: Path) -> None:
    report = check_study(imported(tmp_path, lambda dev, ext: plant(dev, "pyknotic/c10.png", altered(picture(4)))))
    (finding,) = (f for f in report.findings if f.code == "two-labels")
    assert finding.severity == "error"
    assert "labelled normal, the other pyknotic" in finding.sentence


def test_two_outlines_in_one_picture_are_two_cells(tmp_path: Path) -> None:
    def change(dev: Path, ext: Path) -> None:
        for i, x in ((2, 12), (4, 28)):
            plant(dev, f"normal/c{i}.png", picture(4))
            write(dev / f"masks/normal/c{i}.png", disc(radius=7, centre_xy=(x, 20)))
        text = (dev / "metadata.csv").read_text()
        (dev / "metadata.csv").write_text(text.replace("c2.png,s2,sf2", "c2.png,s4,sf4"))

    report = check_study(imported(tmp_path, change))
    assert report.ok
    assert codes(report, "warning") == set()
    assert codes(report, "info") == {"shared-picture"}


def test_a_subject_in_both_sets_must_be_fixed(tmp_path: Path) -> None:
    def change(dev: Path, ext: Path) -> None:
        (ext / "metadata.csv").write_text((ext / "metadata.csv").read_text().replace(",e3,", ",s3,"))

    report = check_study(imported(tmp_path, change))
    assert codes(report, "error") == {"subject-in-both-sets"}
    assert "Subject s3" in report.findings[0].sentence
    assert len(report.findings[0].cells) == 4


def plan(opened: OpenStudy, fold_of: Callable[[pd.Series], int], group_by: str = "subject") -> FoldPlan:
    development = opened.cells[opened.cells["set"] == "development"]
    frame = pd.DataFrame({"cell_id": development["cell_id"], "fold": development.apply(fold_of, axis=1)})
    return FoldPlan(frame.sort_values("cell_id"), group_by, 3, 0)


def test_folds_that_divide_a_subject_must_be_fixed(tmp_path: Path) -> None:
    opened = imported(tmp_path)
    assert check_study(opened, folds=plan(opened, lambda cell: int(cell["subject"][1:]) % 3)).ok
    by_class = plan(opened, lambda cell: CLASSES.index(cell["label"]))
    assert codes(check_study(opened, folds=by_class), "error") == {"subject-in-several-folds"}
    asked = plan(opened, lambda cell: CLASSES.index(cell["label"]), group_by="cell")
    assert codes(check_study(opened, folds=asked), "warning") == {"subject-in-several-folds"}


def test_copies_of_unknown_subjects_in_two_images_must_be_fixed(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "dev", n=N)
    plant(source, "normal/c2.png", altered(picture(4)))
    report = check_study(import_study(source, tmp_path / "study"))
    assert codes(report, "error") == {"duplicate-images"}
    assert codes(report, "warning") == {"no-subject", "no-image"}
    assert codes(report, "info") == {"no-region", "no-group"}


def test_names_of_files_are_not_taken_for_shared_images(tmp_path: Path) -> None:
    """Both sets number their crops from 0; that says nothing."""
    dev, ext = class_folders(tmp_path / "dev", n=N), class_folders(tmp_path / "ext", n=N, seed=1)
    opened = import_study(dev, tmp_path / "study", options=ImportOptions(external=ext))
    assert opened.cells["image_id"].duplicated().any()
    assert check_study(opened).ok


def two_discs() -> np.ndarray:
    return np.maximum(disc(radius=5, centre_xy=(10, 10)), disc(radius=5, centre_xy=(28, 28)))


@pytest.mark.parametrize(
    ("mask", "code", "says"),
    [
        (two_discs(), "several-parts", "several parts"),
        (disc(radius=9, centre_xy=(3, 20)), "at-border", "touch the edge"),
        (disc(radius=2), "odd-area", "far smaller or larger"),
    ],
)
def test_an_odd_mask_is_named(tmp_path: Path, mask: np.ndarray, code: str, says: str) -> None:
    report = check_study(imported(tmp_path, lambda dev, ext: write(dev / "masks/normal/c3.png", mask)))
    assert report.ok
    assert code in codes(report, "warning")
    (finding,) = (f for f in report.findings if f.code == code)
    assert says in finding.sentence
    assert "images/normal/c3.png" in finding.sentence


def test_cells_cut_by_the_window_are_named(tmp_path: Path) -> None:
    source = make_source(tmp_path / "dev")
    report = check_study(import_study(source, tmp_path / "study", options=ImportOptions(window=12)))
    assert "cut-mask" in codes(report, "warning")


def test_an_empty_mask_must_be_fixed(tmp_path: Path) -> None:
    opened = imported(tmp_path)
    crops = np.load(opened.root / "crops.npy")
    crops[3, ..., 3] = 0
    report = check_study(OpenStudy(opened.root, opened.study, opened.cells, crops))
    assert codes(report, "error") == {"empty-mask"}


def test_a_class_of_few_subjects_is_named(tmp_path: Path) -> None:
    def change(dev: Path, ext: Path) -> None:
        for i in range(2, N):
            for kind in ("images", "masks"):
                (dev / kind / f"normal/c{i}.png").unlink()
        rows = (dev / "metadata.csv").read_text().splitlines()
        (dev / "metadata.csv").write_text("\n".join(r for r in rows if not r.startswith(("c2.", "c3.", "c4.", "c5."))))

    report = check_study(imported(tmp_path, change))
    assert codes(report, "warning") == {"few-groups"}
    assert "Class normal has cells of 2 subjects only" in report.findings[0].sentence


def test_a_subject_in_two_groups_is_named(tmp_path: Path) -> None:
    def change(dev: Path, ext: Path) -> None:
        text = (dev / "metadata.csv").read_text()
        (dev / "metadata.csv").write_text(text.replace("c3.png,s3,sf3,CA1,sham", "c3.png,s3,sf3,CA1,ischemia"))

    report = check_study(imported(tmp_path, change))
    assert codes(report, "warning") == {"several-groups"}


def test_the_report_can_be_read_on_a_terminal(tmp_path: Path) -> None:
    opened = imported(tmp_path, lambda dev, ext: plant(dev, "normal/c2.png", picture(4)))
    report = check_study(opened)
    console = Console(width=400, record=True, quiet=False, file=(tmp_path / "out").open("w"))
    console.print(render_check(report))
    text = console.export_text()
    assert "development" in text
    assert re.search(rf"pyknotic\W+{N}\b", text)
    assert "error: images/normal/c2.png" in text
    assert check_lines(report)[-1] == "study: 1 error(s), 0 warning(s); must be fixed."
    console.file.close()


def test_names_with_brackets_are_printed_as_they_are(tmp_path: Path) -> None:
    opened = imported(tmp_path)
    frame = opened.cells.assign(region="[red]CA1[/red]")
    write_table(opened.root / "cells.parquet", frame)
    console = Console(width=200, record=True, file=(tmp_path / "out").open("w"))
    console.print(render_check(check_study(OpenStudy(opened.root, opened.study, frame, opened.crops))))
    assert "[red]CA1[/red]" in console.export_text()
    console.file.close()


def test_real_cells_photographed_twice_are_found(tmp_path: Path, rbc: Path) -> None:
    """The smears overlap: all 26 pairs were looked at, and each shows one cell; six are equal to the last bit."""
    options = ImportOptions(external=rbc / "cells/external")
    report = check_study(import_study(rbc / "cells/development", tmp_path / "study", options=options))
    pairs = [f for f in report.findings if f.code in ("leak-sets", "duplicate-subjects")]
    assert len(pairs) == 26
    assert sum(f.code == "leak-sets" for f in pairs) == 7
    assert sum("show the same picture" in f.sentence for f in pairs) == 6
    assert sum(f.code == "two-labels" for f in report.findings) == 3
    assert codes(report, "error") == {"leak-sets", "duplicate-subjects", "two-labels"}
