"""One page per region and group, linked both ways, safe with hostile names."""

from __future__ import annotations

from typing import Any

import pytest
from tests.report.conftest import parse

from perikarya.report.scope_pages import _file_names, confusion_table
from perikarya.report.words import interval, number

PAGES = ("region_CA1", "region_CA3", "region_DG", "group_ischemia", "group_ischemia_hypothermia", "group_sham")


def test_every_region_and_group_has_a_page(built: Any) -> None:
    folder = built[1].parent / "report"
    assert {p.stem for p in folder.glob("*.html")} == set(PAGES)


def test_the_main_page_links_to_each_and_each_links_back(built: Any) -> None:
    main = built[1]
    links = {a["href"] for a in parse(main).all("a")}
    for name in PAGES:
        assert f"report/{name}.html" in links
        page = main.parent / "report" / f"{name}.html"
        for a in parse(page).all("a"):
            assert (page.parent / str(a["href"])).resolve().is_file()
        assert "../report.html" in {a["href"] for a in parse(page).all("a")}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_light_well_formed_and_loads_nothing(built: Any, name: str) -> None:
    path = built[1].parent / "report" / f"{name}.html"
    page = parse(path)
    assert path.stat().st_size < 600_000
    assert len(page.all("h1")) == 1
    assert len(page.all("img")) == 3
    assert all(len(i["alt"] or "") > 20 and str(i["src"]).startswith("data:image/") for i in page.all("img"))
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_a_region_shows_the_scores_of_all_models_and_each_class_of_the_leading_one(built: Any) -> None:
    _, main, results = built
    text = parse(main.parent / "report" / "region_CA3.html").text
    external, cross_validated = text.split("Cross-validation: ")
    lead = results["ranking"][0]["model"]
    for name, entry in results["models"].items():
        first = {"cv": cross_validated, "external": external}[entry["scopes_of"]]
        for key, part in (("regions", first), ("external_regions", external)):
            block = (entry.get(key) or {}).get("CA3")
            if block:
                value = block["balanced_accuracy"]
                assert f"{name} {number(value['mean'])} {interval(value)}".strip() in part
    block = results["models"][lead]["regions"]["CA3"]
    for scores in block["per_class"].values():
        assert number(scores["recall"]["mean"]) in text


def test_the_confusion_table_gives_counts_and_shares_of_the_true_class() -> None:
    table = confusion_table("c", {"confusion": [[3, 1], [0, 0.5]]}, ["a", "b"])
    assert [[(c.text, c.note) for c in row] for row in table.rows] == [
        [("a", ""), ("3", "75 %"), ("1", "25 %")],
        [("b", ""), ("0", "0 %"), ("0.5", "100 %")],
    ]
    assert table.shades == [[0.75, 0.25], [0.0, 1.0]]
    empty = confusion_table("c", {"confusion": [[0, 0], [0, 1]]}, ["a", "b"])
    assert [c.note for c in empty.rows[0][1:]] == ["–", "–"]


def test_names_that_become_the_same_file_are_numbered() -> None:
    files = _file_names("region", ["CA 1", "CA_1", "ca_1", "../../etc", ""])
    assert len({f.lower() for f in files}) == 5
    assert all("/" not in f and f.startswith("region_") for f in files)
