"""The page: complete in itself, true to results.json, and safe with names that attack it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.fake_run import FakeRun, make_fake_run

from perikarya.evaluate.collect import evaluate_run, write_results
from perikarya.figures import style
from perikarya.report import build_report, html
from perikarya.report.content import headline, interval, number, warnings_of
from perikarya.report.images import MAX_IMAGE_BYTES, embed
from perikarya.runs import TaskKey

ATTACK = "<script>alert('x')</script>"
VOID = {"meta", "img", "br", "link", "hr", "input"}


@dataclass
class Page(HTMLParser):
    """What a browser would see; unbalanced tags raise."""

    open_tags: list[str] = field(default_factory=list)
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open_tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag, f"</{tag}> closes something else, line {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if self.open_tags and self.open_tags[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def parse(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    assert page.open_tags == []
    return page


def report_of(fake: FakeRun, check: dict[str, Any] | None = None) -> tuple[Path, dict[str, Any]]:
    results = evaluate_run(fake.run, fake.opened.cells, fake.opened.study, fake.config, tasks=fake.tasks)
    write_results(fake.run, results)
    return build_report(fake.run, fake.opened, fake.config, results, check), results


@pytest.fixture(scope="module", autouse=True)
def _coarse_figures() -> Iterator[None]:
    """Draw at a third of the resolution: the page is the same and is made in a fraction of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "DPI", 100)
        yield


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[FakeRun, Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("report")
    fake = make_fake_run(root, skip=[TaskKey("beta", 0, 2)], n_folds=3, models=("alpha", "beta"))
    finding = {"severity": "error", "sentence": "Cell 7 is in both sets."}
    path, results = report_of(fake, {"ok": False, "findings": [finding]})
    return fake, path, results


def test_the_page_is_well_formed_and_every_image_has_words(built: Any) -> None:
    page = parse(built[1])
    images = page.all("img")
    assert len(images) >= 12
    for image in images:
        assert len(image["alt"] or "") > 15
        assert int(image["width"] or 0) > 100
        assert int(image["height"] or 0) > 50
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {a["href"] for a in page.all("a")} <= {f"#{i}" for i in ids}
    assert {s["aria-labelledby"] for s in page.all("section") if "aria-labelledby" in s} <= set(ids)


def test_the_page_loads_nothing_and_runs_nothing(built: Any) -> None:
    path = built[1]
    source = path.read_text(encoding="utf-8")
    page = parse(path)
    for tag, attrs in page.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "form"}
        for name, value in attrs.items():
            assert not name.startswith("on")
            if name in {"src", "href", "srcset", "poster", "data"}:
                assert (value or "").startswith(("data:image/", "#"))
    assert not re.search(r"@import|url\(|https?://", source)
    assert path.stat().st_size < 10_000_000


def test_quotes_in_the_style_sheet_stay_quotes(built: Any) -> None:
    source = built[1].read_text(encoding="utf-8")
    style = source[source.index("<style>") : source.index("</style>")]
    assert '"Segoe UI"' in style
    assert "&#34;" not in style


def test_the_headline_names_model_score_interval_cells_and_animals(built: Any) -> None:
    _, path, results = built
    first = results["ranking"][0]
    block = results["models"][first["model"]]["external"]
    text = parse(path).text
    low, high = first["ci95"]
    assert (
        f"{first['model']} classifies 240 external cells of 8 subjects with a balanced accuracy of "
        f"{first['mean']:.3f} (95 % interval {low:.3f}–{high:.3f} over 8 subjects)."
    ) in text
    assert block["n_cells"] == 240
    for metric in ("macro_f1", "macro_auc", "qwk", "ece"):
        assert number(block[metric]["mean"]) in text


def test_every_number_of_every_model_and_class_is_in_the_page(built: Any) -> None:
    _, path, results = built
    text = parse(path).text
    for name, model in results["models"].items():
        assert name in text
        for set_name in ("cv", "external"):
            for values in ((model[set_name] or {}).get("per_class") or {}).values():
                for metric in ("recall", "precision", "f1", "auc", "loss"):
                    assert f"{number(values[metric]['mean'])} {interval(values[metric])}".strip() in text


def test_warnings_come_before_the_tables(built: Any) -> None:
    text = parse(built[1]).text
    warning = text.index("1 of 6 trainings have not finished")
    assert text.index("Problem in the data: Cell 7 is in both sets.") < warning < text.index("Models compared")


def test_provenance_is_on_the_page(built: Any) -> None:
    fake, path, results = built
    text = parse(path).text
    hashes = (fake.config.content_hash(), fake.opened.data_hash, "abababababababab…")
    for fact in (*hashes, "Apache-2.0", "n_bootstrap: 400", "Not finished beta/seed0/fold2"):
        assert fact in text
    assert f"numpy {results['provenance']['versions']['numpy']}" in text


def test_names_that_are_code_are_shown_not_run(tmp_path: Path) -> None:
    fake = make_fake_run(
        tmp_path, class_names=(ATTACK, 'a"b&c'), study_name=f"Study {ATTACK}", models=("alpha",), scheme="single",
        n_folds=3, n_cells=60, n_external=60,
    )  # fmt: skip
    path, _ = report_of(fake, {"ok": True, "findings": [{"severity": "warning", "sentence": f"Look: {ATTACK}"}]})
    source = path.read_text(encoding="utf-8")
    page = parse(path)
    assert "<script" not in source
    assert not page.all("script")
    assert f"Study {ATTACK}" in page.text
    assert 'Recall: a"b&c' in page.text
    assert all(p.parent == fake.run.figures for p in fake.run.figures.rglob("*")), "a name became a path"


def test_a_full_page_names_files_instead_of_growing(built: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, _, results = built
    pictures = sorted(fake.run.figures.glob("*.png"))
    drawn = [html.Plate("counts", "", p, p.stem, "caption", "alternative text") for p in pictures]
    monkeypatch.setattr(html, "draw_all", lambda *_: iter(drawn))
    monkeypatch.setattr(html, "MAX_IMAGE_BYTES_TOTAL", 100_000)
    path = build_report(fake.run, fake.opened, fake.config, results)
    page = parse(path)
    assert 0 < len(page.all("img")) < len(drawn)
    assert "the figure is in the run folder" in page.text
    assert path.stat().st_size < 300_000


def test_large_pictures_become_jpeg_below_the_limit(tmp_path: Path) -> None:
    Image.effect_noise((1500, 900), 80).convert("RGB").save(tmp_path / "noise.png")
    image = embed(tmp_path / "noise.png")
    kind, content = image.uri.split(",")
    assert kind == "data:image/jpeg;base64"
    assert len(base64.b64decode(content)) <= MAX_IMAGE_BYTES
    assert (image.width, image.height) == (600, 360)


def test_results_read_from_disk_give_the_same_headline(built: Any) -> None:
    fake, _, results = built
    assert headline(json.loads(fake.run.results.read_text())) == headline(results)


def test_notes_of_the_check_are_not_warnings() -> None:
    check = {"ok": True, "findings": [{"severity": "note", "sentence": "fine"}]}
    assert warnings_of({"protocol": {"warnings": ["w"]}}, check) == [{"severity": "warning", "sentence": "w"}]
