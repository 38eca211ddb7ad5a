"""Exported tables hold the numbers of results.json, and whatever a model or class is called they stay tables."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import classification_report
from tests.fake_run import CLASSES, FakeRun

from perikarya.evaluate.collect import evaluate_run
from perikarya.evaluate.exports import classes_sheet, file_stems, sheets, write_exports
from perikarya.evaluate.metrics import OVERALL, PER_CLASS
from perikarya.evaluate.summary import spread_over
from perikarya.evaluate.tables import interval_text
from perikarya.evaluate.typeset import LINE_LETTERS, Sheet, escape_latex, escape_markdown, to_latex, to_markdown
from perikarya.runs import RunFolder
from perikarya.schema import read_table

NASTY = r"a_b & 50% $x^2$ {#1} \input{/etc/passwd} ~<b>|`*[x](y)"


@pytest.fixture(scope="module")
def results(fake: FakeRun) -> dict[str, Any]:
    return evaluate_run(fake.run, fake.opened.cells, fake.opened.study, fake.config, tasks=fake.tasks).results


@pytest.fixture(scope="module")
def written(results: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("exports")
    write_exports(RunFolder(root), results)
    return root


def markdown_rows(path: Path) -> list[list[str]]:
    lines = [line for line in path.read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in [lines[0], *lines[2:]]]


def test_both_tidy_tables_hold_every_number_of_the_results(written: Path, results: dict[str, Any]) -> None:
    frame, _ = read_table(written / "metrics.parquet", what="scores")
    csv = pd.read_csv(written / "metrics.csv")
    assert len(csv) == len(frame)
    np.testing.assert_allclose(csv["mean"], frame["mean"].astype(float))
    row = frame.query("model == 'alpha' and set == 'cv' and scope == 'region' and `class` == 'normal'").query(
        "scope_value == 'CA1' and metric == 'ap'"
    )
    assert len(row) == 1
    expected = results["models"]["alpha"]["regions"]["CA1"]["per_class"]["normal"]
    assert row["mean"].item() == expected["ap"]["mean"]
    assert [row["lo"].item(), row["hi"].item()] == expected["ap"]["ci95"]
    assert row["n_cells"].item() == expected["n"]
    for column in ("mean", "lo", "hi"):
        assert frame[column].dtype == np.float64, "a column of objects is no column of numbers"


def test_each_model_has_a_json_file_with_all_its_numbers(written: Path, results: dict[str, Any]) -> None:
    files = sorted((written / "models").glob("*.json"))
    assert len(files) == len(results["models"])
    for path in files:
        content = json.loads(path.read_text())
        model = results["models"][content["model"]]
        assert {k: content[k] for k in model} == json.loads(json.dumps(model))
        assert content["protocol"] == json.loads(json.dumps(results["protocol"]))
        assert content["study"]["class_names"] == list(CLASSES)


def test_the_table_of_models_shows_every_overall_metric_with_its_interval(
    written: Path, results: dict[str, Any]
) -> None:
    header, *rows = markdown_rows(written / "tables" / "models_external.md")
    assert len(header) == 1 + len(OVERALL)
    assert len(rows) == sum(m["external"] is not None for m in results["models"].values())
    alpha = next(row for row in rows if row[0] == "alpha")
    block = results["models"]["alpha"]["external"]
    assert alpha[1:] == [interval_text(block[name]) for name in OVERALL.names()]
    assert re.fullmatch(r"0\.\d{3} \(0\.\d{3}–0\.\d{3}\)", alpha[1])


def test_the_report_of_the_classes_averages_as_scikit_learn_does(fake: FakeRun, results: dict[str, Any]) -> None:
    paths = (fake.run.root / "tasks" / "alpha" / "seed0").glob("fold*/predictions.parquet")
    frame = pd.concat([pd.read_parquet(p) for p in paths])
    predicted = np.asarray(CLASSES)[frame[[f"prob_{c}" for c in CLASSES]].to_numpy().argmax(axis=1)]
    report = classification_report(frame["label"].to_numpy(str), predicted, output_dict=True)
    values = {c: {m: {"mean": 0.5, "ci95": None} for m in PER_CLASS.names()} for c in CLASSES}
    for c in CLASSES:
        for ours, theirs in (("recall", "recall"), ("precision", "precision"), ("f1", "f1-score")):
            values[c][ours] = {"mean": report[c][theirs], "ci95": None}
        values[c]["n"] = int(report[c]["support"])
    sheet = classes_sheet("alpha", {"per_class": values}, "cv", "")
    place = {name: 1 + i for i, name in enumerate(PER_CLASS.names())}
    for row, theirs in zip(sheet.rows[-2:], ("macro avg", "weighted avg"), strict=True):
        for ours, name in (("recall", "recall"), ("precision", "precision"), ("f1", "f1-score")):
            assert row[place[ours]] == f"{report[theirs][name]:.3f}"
        assert row[-1] == f"{report[theirs]['support']:.0f}"


def test_a_class_without_cells_leaves_no_plain_mean_but_a_weighted_one(results: dict[str, Any]) -> None:
    block = copy.deepcopy(results["models"]["alpha"]["cv"])
    block["per_class"]["pyknotic"]["recall"] = {"mean": None, "sd_folds": None, "ci95": None}
    block["per_class"]["pyknotic"]["n"] = 0
    *_, plain, weighted = classes_sheet("alpha", block, "cv", "").rows
    assert plain[1] == "–"
    assert float(weighted[1]) > 0


def test_regions_end_with_their_mean_and_standard_deviation(written: Path, results: dict[str, Any]) -> None:
    header, *rows = markdown_rows(written / "tables" / "regions_cv_alpha.md")
    regions = results["models"]["alpha"]["regions"]
    assert [r[0] for r in rows] == [*regions, "mean", "SD over regions"]
    at = header.index("Recall pyknotic")
    recalls = [b["per_class"]["pyknotic"]["recall"]["mean"] for b in regions.values()]
    assert rows[-2][at] == f"{np.mean(recalls):.3f}"
    assert rows[-1][at] == f"{np.std(recalls, ddof=1):.3f}"
    header, *rows = markdown_rows(written / "tables" / "regions_external_alpha.md")
    outside = results["models"]["alpha"]["external_regions"]
    assert [r[header.index("Accuracy")] for r in rows[:-2]] == [interval_text(b["accuracy"]) for b in outside.values()]


def test_the_spread_over_regions_is_the_sample_sd_of_every_metric(results: dict[str, Any]) -> None:
    regions = results["models"]["alpha"]["regions"]
    spread = spread_over(regions)
    assert spread["n"] == len(regions)
    for name in OVERALL.names():
        assert spread[name] == pytest.approx(pd.Series([b[name]["mean"] for b in regions.values()]).std())
    for c in CLASSES:
        for name in PER_CLASS.names():
            values = pd.Series([b["per_class"][c][name]["mean"] for b in regions.values()])
            assert spread["per_class"][c][name] == pytest.approx(values.std())
    one = spread_over(dict([next(iter(regions.items()))]))
    assert one["accuracy"] is None
    assert spread_over({}) == {"n": 0} | dict.fromkeys(OVERALL.names()) | {"per_class": {}}
    holes = copy.deepcopy(regions)
    next(iter(holes.values()))["accuracy"]["mean"] = None
    assert spread_over(holes)["accuracy"] == pytest.approx(
        pd.Series([b["accuracy"]["mean"] for b in list(regions.values())[1:]]).std()
    )


def test_the_confusion_table_holds_counts_and_row_percent(written: Path, results: dict[str, Any]) -> None:
    _, *rows = markdown_rows(written / "tables" / "confusion_external_alpha+ensemble.md")
    matrix = np.array(results["models"]["alpha (ensemble)"]["external"]["confusion"])
    np.testing.assert_array_equal(np.array([r[1:4] for r in rows], float), matrix)
    np.testing.assert_allclose(
        np.array([r[4:] for r in rows], float), 100 * matrix / matrix.sum(axis=1, keepdims=True), atol=0.051
    )


def test_names_of_users_stay_text_in_latex_and_markdown() -> None:
    sheet = Sheet(NASTY, ["Model", NASTY], [[NASTY + "\nnext line", "1"]])
    latex, markdown = to_latex(sheet, label=NASTY), to_markdown(sheet)
    assert r"\textbackslash{}input\{/etc/passwd\}" in latex
    assert latex.count(r" \\") == 2, "a line break inside a name would start a row"
    rest = re.sub(r"\\[a-zA-Z]+(\[htbp\]|\{\})?|\\[\\{}$&#%_^~]", "", latex.split("\n", 1)[1])
    rest = rest.replace(" & ", "", 2)  # the two separators of the two rows
    assert not re.search(r"[\\$#%_^~&]", rest), rest
    assert rest.count("{") == rest.count("}")
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [3, 3, 3]
    assert "<b>" not in markdown
    assert "](" not in markdown.replace(r"\](", "")


def test_special_letters_one_by_one() -> None:
    assert escape_latex("5 % – a_b") == r"5 \% -- a\_b"
    assert escape_latex("a\x00\tb\u2028c") == "a b c"
    assert escape_markdown("a|b_<c>") == r"a\|b\_&lt;c>"


def test_latex_parts_fit_on_a_line_and_hold_every_column_once() -> None:
    header = ["Model", *(f"column {i}" for i in range(13))]
    sheet = Sheet("c", header, [["a model", *(f"0.{i:03d} (0.800–0.900)" for i in range(13))]], n_footer=1)
    latex = to_latex(sheet, label="x")
    lines = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert all(len(line) <= LINE_LETTERS + 20 for line in lines)
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == latex.count(r"\bottomrule") >= 3
    for name in header[1:]:
        assert len(re.findall(rf"{name}\b", latex)) == 1
    columns = [len(x) for x in re.findall(r"\\begin\{tabular\}\{l(r+)\}", latex)]
    assert sum(columns) == 13
    for width, part in zip(columns, latex.split(r"\begin{tabular}")[1:], strict=True):
        assert all(x.count(" & ") == width for x in part.splitlines() if x.endswith(r"\\"))


def test_every_table_of_a_run_is_valid_and_has_its_own_file(written: Path, results: dict[str, Any]) -> None:
    stems = [stem for stem, _ in sheets(results)]
    assert len(stems) == len(set(stems))
    assert {p.stem for p in (written / "tables").glob("*.tex")} == set(stems)
    assert {p.stem for p in (written / "tables").glob("*.md")} == set(stems)
    for stem, sheet in sheets(results):
        assert all(len(row) == len(sheet.header) for row in sheet.rows), stem
        latex = (written / "tables" / f"{stem}.tex").read_text()
        for what in ("table", "tabular"):
            assert latex.count(rf"\begin{{{what}}}") == latex.count(rf"\end{{{what}}}") >= 1


def test_models_whose_names_look_alike_on_disk_keep_their_own_files() -> None:
    assert file_stems(["a@8", "a_8", "A_8"]) == {"a@8": "a_8", "a_8": "a_8~2", "A_8": "A_8~3"}
    assert file_stems(["a", "a (ensemble)"]) == {"a": "a", "a (ensemble)": "a+ensemble"}
