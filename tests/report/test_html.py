"""The page: complete in itself, true to results.json, and safe with names that attack it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.fake_run import make_fake_run
from tests.report.conftest import parse, report_of

from perikarya.report import build_report, html
from perikarya.report.content import headline, warnings_of
from perikarya.report.images import MAX_IMAGE_BYTES, embed
from perikarya.report.words import interval, number

ATTACK = "<script>alert('x')</script>"


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
    targets = {a["href"] for a in page.all("a")}
    beside = {t for t in targets if not str(t).startswith("#")}
    assert targets - beside <= {f"#{i}" for i in ids}
    assert beside
    assert all((built[1].parent / str(t)).is_file() for t in beside)
    assert {s["aria-labelledby"] for s in page.all("section") if "aria-labelledby" in s} <= set(ids)


def test_the_page_loads_nothing_and_runs_its_own_script_only(built: Any) -> None:
    path = built[1]
    source = path.read_text(encoding="utf-8")
    page = parse(path)
    for tag, attrs in page.tags:
        assert tag not in {"link", "iframe", "object", "embed", "form"}
        for name, value in attrs.items():
            assert not name.startswith("on")
            if name in {"src", "href", "srcset", "poster", "data"}:
                assert re.match(r"data:image/|#|report/[\w.+-]+\.html$", value or "")
    assert not re.search(r"@import|url\(|https?://", source)
    assert path.stat().st_size < 10_000_000
    assert len(page.all("script")) == 1
    assert page.all("script")[0] == {}
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


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
    page = parse(path)
    assert len(page.all("script")) == 1
    assert "alert(" not in page.scripts[0]
    assert f"Study {ATTACK}" in page.text
    assert 'Recall: a"b&c' in page.text
    scopes = sorted((fake.run.root / "report").glob("*.html"))
    assert scopes
    for scope in scopes:
        assert not parse(scope).all("script")
    for name in ("methods.md", "model_card.md"):
        assert "<script" not in (fake.run.root / name).read_text().replace("\\<", "")
    assert all(p.parent == fake.run.figures for p in fake.run.figures.rglob("*")), "a name became a path"


def test_a_full_page_names_files_instead_of_growing(built: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, _, results = built
    pictures = sorted(fake.run.figures.glob("*.png"))
    drawn = [html.Plate("counts", "", p, p.stem, "caption", "alternative text") for p in pictures]
    monkeypatch.setattr(html, "draw_all", lambda *_, **__: drawn)
    monkeypatch.setattr(html, "MAX_IMAGE_BYTES_TOTAL", 100_000)
    monkeypatch.setattr(html, "explore", lambda *_: None)
    path = build_report(fake.run, fake.opened, fake.config, results)
    page = parse(path)
    assert 0 < len(page.all("img")) < len(drawn)
    assert "the figure is in the run folder" in page.text
    assert path.stat().st_size < 350_000


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
