"""What the page may ask and what it is told: on a tiny study and on a run with two models."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import tempfile
import time
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the service needs the packages of perikarya[review]")
from tests.fake_run import make_fake_run
from tests.review.client import Service, click
from tests.tiny import CLASS_NAMES, make_study

from perikarya.data.store import open_study
from perikarya.review.pictures import crop_png

TYPES = Path(__file__).resolve().parents[2] / "frontend" / "src" / "api" / "types.ts"
LARGE, MEDIUM, SMALL = CLASS_NAMES
SCRIPTS = ("<script>fail()</script>", "<img src=x onerror=fail()>", "normal' \" &amp; </title>")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("tiny") / "study", cells_per_subject=6).root


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_fake_run(
        tmp_path_factory.mktemp("run"),
        n_cells=120,
        n_external=40,
        n_folds=3,
        class_names=SCRIPTS,
        study_name="</script><script>fail()</script>",
    )
    return made.run.root


@pytest.fixture
def service(tiny: Path, tmp_path: Path) -> Iterator[Service]:
    shutil.copytree(tiny, tmp_path / "study")
    found = Service(tmp_path / "study")
    yield found
    found.close()


@pytest.fixture(scope="module")
def on_run(run: Path) -> Iterator[Service]:
    found = Service(run)
    yield found
    found.close()


def _keys(interface: str) -> set[str]:
    body = re.search(rf"export interface {interface} {{(.*?)\n}}", TYPES.read_text(encoding="utf-8"), re.DOTALL)
    assert body is not None
    return set(re.findall(r"^  (\w+):", body[1], re.MULTILINE))


def test_answers_have_exactly_the_fields_the_page_knows(on_run: Service) -> None:
    info = on_run.get("/api/study").json()
    assert info.keys() == _keys("StudyInfo")
    assert info["columns"][0].keys() == _keys("Column")
    assert info["models"][0].keys() == _keys("ModelInfo")
    assert on_run.post("/api/query", {}).json().keys() == _keys("QueryAnswer")
    assert on_run.post("/api/cells", {"rows": [0]}).json()["cells"][0].keys() == _keys("Cell")
    detail = on_run.get("/api/cells/0").json()
    assert detail.keys() == _keys("CellDetail")
    assert detail["probabilities"][0].keys() == _keys("Probabilities")
    assert on_run.get("/api/columns/label").json().keys() == _keys("ColumnValues")
    assert on_run.get("/api/map?method=pca").json().keys() == _keys("MapState")
    assert on_run.get("/api/changes?since=0").json().keys() == _keys("Changes")
    answer = on_run.correct(click(0, SCRIPTS[0], SCRIPTS[1], seen={"model": "alpha", "prob": [0.2, 0.3, 0.5]}))
    assert answer.keys() == _keys("CorrectionsAnswer")
    assert answer["entries"][0].keys() == _keys("Entry")
    assert on_run.get("/api/cells/0").json()["history"] == answer["entries"]


def test_names_that_are_scripts_come_as_data_that_no_browser_runs(on_run: Service) -> None:
    for answer in (
        on_run.get("/api/study"),
        on_run.get("/api/cells/1"),
        on_run.post("/api/query", {"text": SCRIPTS[0]}),
        on_run.get(f"/api/columns/{SCRIPTS[0]}"),
        on_run.post("/api/reader", {"reader": SCRIPTS[1]}),
        on_run.post("/api/query", {SCRIPTS[0]: 1}),
        on_run.get(f"/{SCRIPTS[1]}"),
    ):
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "script-src 'self'" in answer.headers["content-security-policy"]
    info = on_run.get("/api/study").json()
    assert info["class_names"] == list(SCRIPTS)
    assert info["name"] == "</script><script>fail()</script>"


def test_the_table_is_filtered_ordered_and_counted(service: Service) -> None:
    whole = service.ask()
    assert whole["n"] == 72
    assert whole["rows"] == list(range(72))
    assert whole["counts"] == [24, 24, 24, 0]
    small = service.ask(filters=[{"column": "label", "values": [SMALL]}, {"column": "region", "values": ["DG"]}])
    cells = service.post("/api/cells", {"rows": small["rows"]}).json()["cells"]
    assert {(c["label"], c["region"]) for c in cells} == {(2, "DG")}
    areas = service.ask(sort=[{"column": "area_px", "descending": True}])["rows"]
    assert (
        service.get(f"/api/cells/{areas[0]}").json()["area_px"]
        >= service.get(f"/api/cells/{areas[-1]}").json()["area_px"]
    )
    assert service.ask(within=[3, 5])["rows"] == [3, 5]
    assert service.ask(text="ANIMAL03")["n"] == 6


def test_a_click_is_on_the_disk_before_it_is_answered_and_counts_at_once(service: Service, tmp_path: Path) -> None:
    answer = service.correct(click(0, LARGE, SMALL))
    line = json.loads((tmp_path / "study" / "corrections" / "log.jsonl").read_text(encoding="utf-8"))
    assert (line["by"], line["old"], line["new"]) == ("Ada", LARGE, SMALL)
    assert answer["counts"] == [23, 24, 25, 0]
    assert answer["n_reviewed"] == answer["revision"] == 1
    assert answer["conflicts"] == {}
    assert service.post("/api/cells", {"rows": [0]}).json()["cells"][0]["label"] == 2
    assert service.ask(filters=[{"column": "reviewed", "values": ["yes"]}])["rows"] == [0]


def test_a_click_sent_twice_counts_once(service: Service) -> None:
    item = click(0, LARGE, SMALL)
    first = service.correct(item)
    again = service.correct(item, click(1, MEDIUM, MEDIUM))
    assert again["entries"][0] == first["entries"][0]
    assert again["revision"] == 2
    assert again["conflicts"] == {}


def test_an_undo_brings_the_label_back(service: Service) -> None:
    done = service.correct(click(0, LARGE, SMALL))["entries"][0]
    undo = click(0, SMALL, None, kind="undo", undoes=done["id"])
    answer = service.correct(undo)
    assert answer["entries"][0]["new"] == LARGE
    assert answer["counts"] == [24, 24, 24, 0]
    assert answer["n_reviewed"] == 0
    # what can never be written must not wait in the page's queue: 400 and 404 drop it, 409 sends it again
    for row, undoes in ((1, done["id"]), (0, undo["id"]), (0, str(uuid.uuid4()))):
        wrong = click(row, None, None, kind="undo", undoes=undoes)
        assert service.post("/api/corrections", {"items": [wrong]}).status_code == 400
    both = click(1, MEDIUM, SMALL)
    taken_back = click(1, SMALL, None, kind="undo", undoes=both["id"])
    assert service.correct(both, taken_back)["n_reviewed"] == 0


def test_what_was_seen_may_miss_one_by_a_last_digit(service: Service) -> None:
    sure = {"model": "alpha", "prob": [1.0000001192092896, 0.0, -1e-9]}
    assert service.correct(click(0, LARGE, SMALL, seen=sure))["entries"][0]["seen"]["prob"] == [1.0, 0.0, 0.0]


def test_a_person_may_say_that_a_cell_has_no_class(service: Service) -> None:
    assert service.correct(click(0, LARGE, None))["counts"] == [23, 24, 24, 1]
    assert service.ask(filters=[{"column": "label", "values": [""]}])["rows"] == [0]


def test_two_services_on_one_study_lose_nothing_and_tell_each_other(service: Service, tmp_path: Path) -> None:
    other = Service(tmp_path / "study", reader="Grace")
    service.correct(click(0, LARGE, SMALL), click(1, MEDIUM, LARGE))
    answer = other.correct(click(0, LARGE, MEDIUM), click(2, SMALL, MEDIUM))
    assert [e["seq"] for e in answer["entries"]] == [3, 4]
    (conflict,) = answer["conflicts"].values()
    assert (conflict["by"], conflict["new"], conflict["row"]) == ("Ada", SMALL, 0)
    news = service.get("/api/changes?since=2").json()
    assert [(e["by"], e["row"], e["new"]) for e in news["entries"]] == [("Grace", 0, MEDIUM), ("Grace", 2, MEDIUM)]
    assert news["revision"] == 4
    assert service.get("/api/changes?since=4").json()["entries"] == []
    other.close()


def test_a_service_started_again_knows_every_click(service: Service, tmp_path: Path) -> None:
    service.correct(click(0, LARGE, SMALL))
    again = Service(tmp_path / "study", reader="Grace")
    assert again.get("/api/study").json()["revision"] == 1
    assert again.ask()["counts"] == [23, 24, 25, 0]
    again.close()


def test_what_others_did_since_is_seen_by_every_question(service: Service, tmp_path: Path) -> None:
    other = Service(tmp_path / "study", reader="Grace")
    other.correct(click(0, LARGE, SMALL))
    assert service.ask()["counts"] == [23, 24, 25, 0]
    other.correct(click(1, MEDIUM, SMALL))
    assert service.post("/api/cells", {"rows": [1]}).json()["cells"][0]["label"] == 2
    other.correct(click(3, LARGE, SMALL))
    assert service.get("/api/cells/3").json()["cell"]["label"] == 2
    other.close()


def test_two_people_at_one_service_keep_their_names(service: Service) -> None:
    second = service.another_browser()
    assert service.post("/api/reader", {"reader": "  Grace Höpper; x=1 "}, browser=second).json() == {
        "reader": "Grace Höpper; x=1"
    }
    assert second.get("/api/study").json()["reader"] == "Grace Höpper; x=1"
    assert service.get("/api/study").json()["reader"] == "Ada"
    assert service.correct(click(0, LARGE, SMALL), browser=second)["entries"][0]["by"] == "Grace Höpper; x=1"
    assert service.correct(click(1, LARGE, SMALL))["entries"][0]["by"] == "Ada"


@pytest.mark.parametrize("name", ["", "   ", "a\nb", "\u0000", "x" * 101, "\u202e"])
def test_a_name_that_cannot_stand_in_a_log_is_refused(service: Service, name: str) -> None:
    assert service.post("/api/reader", {"reader": name}).status_code == 400
    service.browser.cookies.set("perikarya_reader_8765", "a%0Ab")
    assert service.post("/api/corrections", {"items": [click(0, LARGE, SMALL)]}).status_code == 409


@pytest.mark.parametrize(
    "wrong",
    [
        {"new": "giant"},
        {"row": 72},
        {"row": -1},
        {"row": 10**30},
        {"row": 1.5},
        {"row": "first"},
        {"id": "../../x"},
        {"id": "A" * 36},
        {"kind": "delete"},
        {"kind": "undo"},
        {"old": 3},
        {"seen": {"model": "alpha", "prob": [2.0]}},
        {"seen": {"model": "alpha", "prob": "many"}},
        {"by": "Grace"},
        {"at": "2020-01-01T00:00:00+00:00"},
    ],
)
def test_a_click_that_does_not_fit_is_refused_and_nothing_of_its_batch_is_written(
    service: Service, wrong: dict[str, Any]
) -> None:
    answer = service.post("/api/corrections", {"items": [click(1, MEDIUM, SMALL), click(0, LARGE, SMALL) | wrong]})
    assert answer.status_code in (400, 404)
    assert len(answer.json()["error"]) > 20
    assert service.get("/api/changes?since=0").json()["entries"] == []


def _nested(depth: int) -> str:
    return '{"filters": ' + "[" * depth + "]" * depth + "}"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[]",
        "{",
        '{"filters": [{"column": "area_px", "min": NaN, "max": null}]}',
        '{"filters": [{"column": "area_px", "min": 1e999, "max": null}]}',
        '{"filters": [{"column": "area_px", "min": -Infinity, "max": null}]}',
        '{"within": [-1]}',
        '{"within": [72]}',
        '{"within": [1e400]}',
        '{"within": [99999999999999999999999999]}',
        '{"within": [' + "9" * 6000 + "]}",
        '{"sort": [{"column": "__class__"}]}',
        '{"filters": [{"column": "label", "min": 0, "max": 1}]}',
        '{"filters": [{"column": "area_px", "values": ["1"]}]}',
        '{"text": "' + "x" * 201 + '"}',
        '{"__proto__": 1}',
        _nested(100_000),
        _nested(500),
        "\ud800".encode("utf-8", "surrogatepass"),
        b"\xff\xfe\x00",
        '{"text": "\\ud800"}',
    ],
)  # fmt: skip
def test_questions_that_make_no_sense_are_refused_with_a_sentence(service: Service, body: str | bytes) -> None:
    answer = service.post("/api/query", json=None, content=body)
    assert answer.status_code in (400, 404)
    assert len(answer.json()["error"]) > 20
    assert len(answer.json()["error"]) < 1500
    assert service.ask()["n"] == 72


ROWS = ["-1", "72", "99999999999999999999", "9" * 5000, "NaN", "1e1", "0x1", " ", "1.5", "%00", "٣٣٣"]


@pytest.mark.parametrize("row", ROWS)
def test_rows_that_are_not_there_are_not_found(service: Service, row: str) -> None:
    data_hash = service.get("/api/study").json()["data_hash"]
    for address in (
        f"/api/cells/{row}",
        f"/crops/{data_hash}/{row}.png",
        f"/api/fields/{row}",
        f"/fields/{row}/0/0_0.jpg",
    ):
        assert service.get(address).status_code in (400, 404), address
    assert service.post(f"/api/cells/{row}/explain", {"model": "x", "about": 0}).status_code in (400, 404)


WAYS_OUT = (
    "../study.yaml", "..%2fstudy.yaml", "%2e%2e/study.yaml", "%2e%2e%2fstudy.yaml", "..%5cstudy.yaml",
    "..%252fstudy.yaml", "....//study.yaml", "%2fetc%2fpasswd", "/etc/passwd", "..%00/study.yaml", "~/.ssh/id_rsa",
    "file:%2f%2f%2fetc%2fpasswd",
)  # fmt: skip


@pytest.mark.parametrize("way", WAYS_OUT)
def test_no_address_leads_out_of_what_is_offered(service: Service, way: str) -> None:
    data_hash = service.get("/api/study").json()["data_hash"]
    for address in (
        f"/{way}", f"/assets/{way}", f"/crops/{way}/0.png", f"/crops/{data_hash}/{way}.png",
        f"/crops/{data_hash}/{way}", f"/fields/0/0/{way}.jpg", f"/fields/{way}/0/0_0.jpg", f"/api/fields/{way}",
        f"/api/columns/{way}", f"/api/cells/{way}", f"/api/export?format={way}", f"/api/map?method={way}",
        f"/api/changes?since={way}",
    ):  # fmt: skip
        answer = service.get(address)
        assert answer.status_code in (400, 404), address
        assert answer.headers["content-type"] == "application/json"
        assert "class_names" not in answer.text
        assert "root:" not in answer.text
    for address in (f"/api/cells/{way}/explain", f"/api/readings/{way}"):
        body = {"model": way, "about": 0} if "cells" in address else {"id": "0" * 36, "place": 0, "code": 0}
        assert service.post(address, body).status_code in (400, 404, 405, 409), address


def test_a_crop_is_the_crop_of_the_study_and_may_be_kept_for_ever(service: Service, tiny: Path) -> None:
    data_hash = service.get("/api/study").json()["data_hash"]
    plain = service.get(f"/crops/{data_hash}/5.png")
    assert plain.headers["content-type"] == "image/png"
    assert plain.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert plain.content == crop_png(open_study(tiny).crops[5], outlined=False)
    outlined = service.get(f"/crops/{data_hash}/5.png?outline=1")
    assert outlined.content == crop_png(open_study(tiny).crops[5], outlined=True)
    other = "0" * 16
    assert service.get(f"/crops/{other}/5.png").status_code == 404


def test_a_blind_page_is_told_nothing_that_a_model_says(run: Path) -> None:
    service = Service(run, blind=True)
    info = service.get("/api/study").json()
    assert info["blind"] is True
    assert info["models"] == []
    assert not any("predicted" in c["key"] or "confidence" in c["key"] for c in info["columns"])
    detail = service.get("/api/cells/0").json()
    assert detail["probabilities"] == []
    assert {detail["cell"][k] for k in ("predicted", "confidence", "abstained", "prob")} == {None}
    assert service.get("/api/columns/predicted").status_code == 404
    assert service.post("/api/cells/0/explain", {"model": "alpha", "about": 0}).status_code == 409
    service.close()


def test_a_map_is_made_in_the_background(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perikarya.review.map_source.MOST_EMBEDDED", 0)  # a network takes torch, and seconds
    shutil.copytree(tiny, tmp_path / "study")
    service = Service(tmp_path / "study")
    assert service.get("/api/map?method=pca").json()["status"] == "absent"
    state = service.post("/api/map", {"method": "pca"}).json()
    while state["status"] == "working":
        time.sleep(0.02)
        state = service.get("/api/map?method=pca").json()
    assert state["status"] == "ready"
    assert len(np.frombuffer(base64.b64decode(state["xy_b64"]), "<f4")) == 2 * 72
    service.close()


def test_a_blind_round_is_read_by_its_reader_alone(service: Service) -> None:
    started = service.post("/api/readings", {"n_cells": 6, "n_repeats": 2, "seed": 1}).json()
    assert started.keys() == _keys("Round")
    assert len(started["rows"]) == len(started["read"]) == 8
    reading = {"id": str(uuid.uuid4()), "place": 0, "code": 1}
    address = f"/api/readings/{started['round']}"
    assert service.post(address, reading).json()["read"][0] == 1
    other = service.another_browser()
    service.post("/api/reader", {"reader": "Grace"}, browser=other)
    assert other.get("/api/readings").json() == {"rounds": []}
    assert service.post(address, reading, browser=other).status_code == 409
    for wrong in ({"place": 8}, {"place": -1}, {"code": 3}, {"code": -2}, {"id": "x"}, {"place": 10**30}):
        assert service.post(address, reading | wrong).status_code == 400
    assert service.post("/api/readings", {"n_cells": 6, "n_repeats": 4, "seed": 1}).status_code == 400
    assert [r["read"][0] for r in service.get("/api/readings").json()["rounds"]] == [1]
    assert service.get("/api/agreement").json().keys() == _keys("Agreement")


def test_corrections_are_downloaded_in_one_file_and_nothing_stays_behind(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    service.correct(click(0, LARGE, SMALL))
    answer = service.get("/api/export?format=geojson")
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == 'attachment; filename="tiny-geojson.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert set(archive.namelist()) == {"corrections.csv", "notes.txt"}
        assert b"does not say where its outlines are from" in archive.read("notes.txt")
        assert b"Ada" in archive.read("corrections.csv")
    assert not list((tmp_path / "scratch").iterdir())


def test_a_fault_of_the_service_is_told_without_its_insides(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("secret insides")

    monkeypatch.setattr(service.desk.table, "query", broken)
    answer = service.post("/api/query", {})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_study_that_cannot_be_written_to_says_so_at_the_first_click(service: Service, tmp_path: Path) -> None:
    (tmp_path / "study" / "corrections").write_text("in the way")
    answer = service.post("/api/corrections", {"items": [click(0, LARGE, SMALL)]})
    assert answer.status_code == 409
    assert "corrections" in answer.json()["error"]


@pytest.mark.parametrize(
    "address", ["/docs", "/redoc", "/openapi.json", "/api", "/api/", "/api/study/", "/index.html/", "/assets"]
)
def test_nothing_is_offered_that_was_not_meant(service: Service, address: str) -> None:
    answer = service.get(address)
    assert answer.status_code == 404
    assert answer.json().keys() == {"error"}


def test_the_page_is_served_with_its_files(service: Service) -> None:
    page = service.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-store"
    script = service.get("/assets/index-abc.js")
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert "immutable" in script.headers["cache-control"]
