from __future__ import annotations

import importlib.util
import io
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from tests.sources import picture

ROOT = Path(__file__).parents[2]
SERVER = (
    'python3 -c "import signal, sys, time; signal.signal(signal.SIGINT, lambda *_: sys.exit({code})); '
    "print('Open http://127.0.0.1:4711/?token=secret', flush=True); time.sleep(60)\""
)


@pytest.fixture(scope="module")
def walk() -> ModuleType:
    spec = importlib.util.spec_from_file_location("walk", ROOT / "tools" / "walk.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["walk"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def page(*parts: str) -> str:
    return "\n".join(parts) + "\n"


def opened(path: Path) -> Image.Image:
    return Image.open(io.BytesIO(path.read_bytes()))


def go(walk: ModuleType, folder: Path, text: str, *, wheel: Path | None = None, pictures: Path | None = None) -> str:
    said: list[str] = []
    walk.Walk(folder, pictures=pictures, wheel=wheel, say=said.append).go(walk.read_steps(text))
    return "\n".join(said)


def test_blocks_are_read_in_order_with_what_their_comments_say(walk: ModuleType) -> None:
    steps = walk.read_steps(
        page(
            "# Title",
            "<!-- walk: install -->",
            "```bash",
            "pip install perikarya",
            "```",
            "<!-- walk: picture a.png of out/report.html#damage -->",
            "![a](pictures/a.png)",
            "```yaml",
            "```",
            "~~~bash",
            "one",
            "",
            "two",
            "~~~",
            "<!-- a comment for people -->",
            "<!-- walk: serve b.png; click Review queue; keys ArrowRight 3 -->",
            "",
            "```bash",
            "perikarya review run",
            "```",
        )
    )
    assert steps == [
        walk.Block(3, "pip install perikarya\n", "install"),
        walk.Picture(6, "a.png", "out/report.html#damage"),
        walk.Block(10, "one\n\ntwo\n"),
        walk.Block(18, "perikarya review run\n", "serve", "b.png", "Review queue", ("ArrowRight", "3")),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (page("<!-- walk: skip -->"), "line 1: the walk does not understand 'skip'"),
        (page("", "<!-- walk: picture ../a.png of b -->"), "line 2: the walk does not understand"),
        (page("<!-- walk: install -->", "text"), "line 1: no bash block follows"),
        (page("<!-- walk: install -->", "<!-- walk: install -->", "```bash", "```"), "line 1: no bash block follows"),
        (page("```bash", "ls"), "line 1: this block has no end"),
        (page("<!-- walk: serve a.png -->", "```bash", "cd x", "serve", "```"), "line 2: a block that is served holds"),
    ],
)
def test_what_cannot_be_walked_is_told_with_its_line(walk: ModuleType, text: str, words: str) -> None:
    with pytest.raises(walk.WalkError, match=words):
        walk.read_steps(text)


def test_the_tutorial_is_understood_and_leaves_out_no_command(walk: ModuleType) -> None:
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    blocks = [step for step in walk.read_steps(text) if isinstance(step, walk.Block)]
    assert text.count("```bash") == len(blocks) >= 9
    assert [block.how for block in blocks].count("install") == 1
    assert blocks[0].how == "install"


def test_commands_are_typed_as_they_stand_one_block_after_another(walk: ModuleType, tmp_path: Path) -> None:
    first = page("```bash", "cat > a.txt <<'END'", "  two $words", "END", "mkdir b", "cd b && touch here", "```")
    second = page("```bash", "cat a.txt > c.txt", "pwd > where.txt", "```")
    go(walk, tmp_path, first + second)
    assert (tmp_path / "c.txt").read_text() == "  two $words\n"
    assert (tmp_path / "b" / "here").is_file()
    assert Path((tmp_path / "where.txt").read_text().strip()).samefile(tmp_path)


def test_the_first_command_that_fails_ends_the_walk(walk: ModuleType, tmp_path: Path) -> None:
    text = page("text", "```bash", "touch a", "(exit 3) | cat", "touch b", "```", "```bash", "touch c", "```")
    with pytest.raises(walk.WalkError, match="line 2: the block ended with exit code 3"):
        go(walk, tmp_path, text)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_install_is_typed_with_the_wheel_and_only_then(walk: ModuleType, tmp_path: Path) -> None:
    text = page("<!-- walk: install -->", "```bash", 'echo pip install "perikarya[train,review]" > said.txt', "```")
    assert "not typed: no --wheel was given" in go(walk, tmp_path, text)
    assert not (tmp_path / "said.txt").exists()
    wheel = tmp_path / "perikarya-1.0-py3-none-any.whl"
    go(walk, tmp_path, text, wheel=wheel)
    assert (tmp_path / "said.txt").read_text() == f"pip install {wheel.resolve()}[train,review]\n"


def test_what_was_installed_is_found_by_later_blocks(walk: ModuleType, tmp_path: Path) -> None:
    tool = tmp_path / ".venv" / "bin" / "perikarya"
    tool.parent.mkdir(parents=True)
    tool.write_text("#!/bin/sh\necho mine > found.txt\n")
    tool.chmod(0o755)
    go(walk, tmp_path, page("```bash", "perikarya", "```"))
    assert (tmp_path / "found.txt").read_text() == "mine\n"


def test_a_service_is_started_and_ended_by_ctrl_c_and_its_token_is_not_shown(
    walk: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = page("<!-- walk: serve a.png -->", "```bash", SERVER.format(code=130), "```")
    go(walk, tmp_path, text)
    assert capsys.readouterr().out == "Open (its address)\n"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("echo nothing", "the command ended without telling an address"),
        (SERVER.format(code=1), "ended with exit code 1 after Ctrl-C"),
    ],
)
def test_a_service_that_goes_wrong_ends_the_walk(walk: ModuleType, tmp_path: Path, command: str, words: str) -> None:
    with pytest.raises(walk.WalkError, match=words):
        go(walk, tmp_path, page("<!-- walk: serve a.png -->", "```bash", command, "```"))


def test_pictures_are_kept_beside_the_page_and_missing_ones_end_the_walk(walk: ModuleType, tmp_path: Path) -> None:
    folder, pictures = tmp_path / "folder", tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(picture(0, (30, 50))).save(folder / "field.png")
    go(walk, folder, page("<!-- walk: picture a.png of field.png -->"), pictures=pictures)
    assert opened(pictures / "a.png").size == (50, 30)
    missing = page("<!-- walk: picture b.png of other.png -->")
    with pytest.raises(walk.WalkError, match=r"line 1: there is no other\.png"):
        go(walk, folder, missing, pictures=pictures)
    go(walk, folder, missing)  # none are asked for


def test_large_pictures_become_small_and_keep_their_shape(walk: ModuleType) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 600, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "png")
    kept = walk.shrunk(out.getvalue(), limit=30_000)
    assert len(kept) <= 30_000
    width, height = Image.open(io.BytesIO(kept)).size
    assert width == pytest.approx(2 * height, abs=2)
    assert width > 100


def test_the_program_refuses_a_folder_that_is_not_clean(
    walk: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "page.md").write_text(page("```bash", "touch done", "```"))
    monkeypatch.setattr(sys, "argv", ["walk.py", str(tmp_path / "page.md"), "--folder", str(tmp_path)])
    with pytest.raises(SystemExit):
        walk.main()
    assert "is not empty" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["walk.py", str(tmp_path / "page.md"), "--folder", str(tmp_path / "new")])
    assert walk.main() == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["done"]
    (tmp_path / "page.md").write_text(page("```bash", "false", "```", "", "```bash", "touch more", "```"))
    again = [str(tmp_path / "page.md"), "--folder", str(tmp_path / "new"), "--from", "5"]
    monkeypatch.setattr(sys, "argv", ["walk.py", *again])
    assert walk.main() == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["done", "more"]
    monkeypatch.setattr(sys, "argv", ["walk.py", str(tmp_path / "page.md")])
    assert walk.main() == 1
    assert "page.md, line 1: the block ended with exit code 1" in capsys.readouterr().err


@pytest.mark.browser
def test_pages_are_photographed(walk: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("playwright")
    tall = "<body style='margin:0'><div style='height:3000px;background:#fff'></div><h1 id=x>There</h1></body>"
    (tmp_path / "r.html").write_text(tall)
    pictures = tmp_path / "pictures"
    go(
        walk,
        tmp_path,
        page("<!-- walk: picture top.png of r.html -->", "<!-- walk: picture x.png of r.html#x -->"),
        pictures=pictures,
    )
    top, below = (np.asarray(opened(pictures / name).convert("L")) for name in ("top.png", "x.png"))
    assert top.shape == (walk.HEIGHT_PX, walk.WIDTH_PX)
    assert top.min() == 255
    assert below.min() < 100
    with pytest.raises(walk.WalkError, match="has no part 'y'"):
        go(walk, tmp_path, page("<!-- walk: picture y.png of r.html#y -->"), pictures=pictures)
