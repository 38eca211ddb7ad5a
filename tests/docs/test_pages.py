"""What pages say is there: links, commands, options, files, and a place in the navigation for each page."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import typer

from perikarya.cli.app import app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")])
PAGES = [page for page in PAGES if "_build" not in page.parts]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
FENCE = re.compile(r"^\s*(`{3,}|~{3,})\s*(\S*)")
SHELL = {"", "bash", "sh", "console", "shell"}


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Iterate over code of a page: (language, text) of fenced blocks; indented lines have no language."""
    fence, language, lines = "", "", []
    for line in text.splitlines():
        found = FENCE.match(line)
        if fence:
            if found and found[1].startswith(fence) and not found[2]:
                yield language, "\n".join(lines)
                fence, lines = "", []
            else:
                lines.append(line)
        elif found:
            fence, language = found[1], found[2]
        elif line.startswith("    "):
            yield "", line.strip()


def prose(text: str) -> str:
    """Return a page without its fenced blocks."""
    kept, fence = [], ""
    for line in text.splitlines():
        found = FENCE.match(line)
        if fence:
            fence = "" if found and found[1].startswith(fence) and not found[2] else fence
        elif found:
            fence = found[1]
        else:
            kept.append(line)
    return "\n".join(kept)


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub and MyST make them; and those a page gives itself."""
    found: set[str] = set()
    text = prose(page.read_text(encoding="utf-8"))
    for heading in re.findall(r"^#+\s+(.*?)\s*$", text, flags=re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        n = sum(a == name or re.fullmatch(rf"{re.escape(name)}-\d+", a) is not None for a in found)
        found.add(name if not n else f"{name}-{n}")
    return found | set(re.findall(r"^\(([\w-]+)\)=$", text, flags=re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    broken = []
    for target in LINK.findall(prose(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, mark = unquote(target).partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (mark and file.suffix == ".md" and mark not in anchors(file)):
            broken.append(target)
    assert broken == []


def commands(text: str) -> Iterator[list[str]]:
    """Iterate over calls of the program on a page: the words after its name."""
    lines = [line for language, code in blocks(text) if language in SHELL for line in logical_lines(code)]
    for line in [*lines, *INLINE.findall(prose(text))]:
        found = re.match(r"(?:\$ |! ?)?(?:\.venv/bin/)?perikarya(?: (.*))?$", line.strip())
        if found:
            yield words_of(found[1] or "")


def logical_lines(code: str) -> list[str]:
    return re.sub(r"\\\n\s*", " ", code).splitlines()


def words_of(text: str) -> list[str]:
    """Split as a shell does, up to a comment, a pipe or another command."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = []
    for word in lexer:
        if set(word) <= set("|&;<>()"):
            break
        words.append(word)
    return words


def misfit(words: list[str], command: Any) -> str | None:
    """Return what of a call the program does not know; None where it knows all."""
    rest = list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        if name not in command.commands:
            return None if re.search(r"[^a-z-]", name) else f"command '{name}'"  # COMMAND, …: a word for any
        command = command.commands[name]
    known = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
    unknown = [w.partition("=")[0] for w in rest if w.startswith("-") and w.partition("=")[0] not in known]
    unknown = [w for w in unknown if w not in ("--help", "-")]
    return f"option {unknown[0]} of '{command.name}'" if unknown else None


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_and_options_exist(page: Path) -> None:
    program = typer.main.get_command(app)
    found = [misfit(words, program) for words in commands(page.read_text(encoding="utf-8"))]
    assert [text for text in found if text is not None] == []


def test_the_reader_of_commands_sees_what_is_wrong() -> None:
    program = typer.main.get_command(app)
    page = (
        "Type `perikarya trian x` or\n\n    perikarya train x.yaml --epochs 3 --out y   # --no-such\n\n"
        "```bash\nperikarya study import a \\\n  --window 80 --frobnicate | head --lines 3\n```\n"
        "```yaml\nperikarya train --nothing\n```\n"
    )
    found = sorted(filter(None, (misfit(words, program) for words in commands(page))))
    assert found == ["command 'trian'", "option --epochs of 'train'", "option --frobnicate of 'import'"]


def test_the_reader_of_links_sees_headings_as_github_names_them(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Classes: `--class-map`\n## 8. How much, and *why*?\n## Same\n## Same\n```\n# no heading\n```\n(mine)=\n"
    )
    assert anchors(page) == {"classes---class-map", "8-how-much-and-why", "same", "same-1", "mine"}


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_examples_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"\bexamples/[\w./-]+\.yaml", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_every_page_has_a_place_in_the_navigation() -> None:
    entries = [entry for path in DOCS.rglob("index.md") for entry in toctree_entries(path)]
    names = [
        str(p.relative_to(DOCS).with_suffix("")) for p in (*PAGES, *DOCS.glob("notebooks/*.ipynb")) if DOCS in p.parents
    ]
    lost = [name for name in names if name != "index" and not any(fnmatch(name, entry) for entry in entries)]
    assert lost == []


def toctree_entries(index: Path) -> list[str]:
    """The pages an index lists, from the root of the docs."""
    folder = index.parent.relative_to(DOCS)
    trees = [code for language, code in blocks(index.read_text(encoding="utf-8")) if language == "{toctree}"]
    lines = [line.strip() for code in trees for line in code.splitlines()]
    return [str(folder / line) for line in lines if line and not line.startswith(":")]


def test_pictures_of_the_walks_are_small_few_used_and_there() -> None:
    pictures = sorted((DOCS / "pictures").glob("*"))
    assert len(pictures) < 12
    assert {path.suffix for path in pictures} == {".png"}
    assert [path.name for path in pictures if path.stat().st_size > 150_000] == []
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [path.name for path in pictures if f"pictures/{path.name}" not in pages] == []


def test_every_picture_of_the_tutorial_is_made_by_its_walk() -> None:
    text = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"\]\(pictures/([\w-]+\.png)\)", text))
    made = set(re.findall(r"<!-- walk: (?:picture|serve) ([\w-]+\.png)", text))
    assert shown == made != set()
