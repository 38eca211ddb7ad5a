"""The page of commands says what the commands say."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import pytest
import typer

from perikarya.cli.app import app

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cli_page(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import cli_page

    yield cli_page
    sys.modules.pop("cli_page")


def sections(page: str) -> dict[str, str]:
    parts = re.split(r"^## `perikarya ([^`]+)`$", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_page_of_commands_is_up_to_date(cli_page: ModuleType) -> None:
    assert cli_page.PAGE.read_text(encoding="utf-8") == cli_page.page(), "run: python tools/cli_page.py"


def test_every_command_and_option_that_can_be_typed_is_on_the_page(cli_page: ModuleType) -> None:
    found = sections(cli_page.page())
    program: Any = typer.main.get_command(app)
    commands = {name: c for name, c in program.commands.items() if not hasattr(c, "commands")}
    commands |= {f"study {name}": c for name, c in program.commands["study"].commands.items()}
    assert set(found) == set(commands)
    for name, command in commands.items():
        names = {n for p in command.params for n in p.opts if n.startswith("--")} - {"--help"}
        assert set(re.findall(r"^\| `(--[^`]+)` \|", found[name], flags=re.MULTILINE)) == names, name


def test_a_command_is_shown_with_its_limits_defaults_and_what_it_needs(
    cli_page: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = typer.Typer()

    @program.command("paint")
    def paint(
        out: Annotated[Path, typer.Option("--out", help="Where to.")],
        names: Annotated[list[str] | None, typer.Argument(help="a|b.")] = None,
        share: Annotated[float, typer.Option(min=0, max=1, help="How much.")] = 0.5,
        as_json: Annotated[
            bool, typer.Option("--json", help="With 'paint --out' or --share: for programs' sake.")
        ] = False,
    ) -> None:
        """Paint cells
        in two lines."""

    monkeypatch.setattr(cli_page, "app", program)
    text = sections(cli_page.page())["paint"]
    assert text.strip().splitlines() == [
        "```text",
        "perikarya paint [NAMES...] --out PATH [OPTIONS]",
        "```",
        "",
        "Paint cells in two lines.",
        "",
        "| | value | default | |",
        "|---|---|---|---|",
        r"| `[NAMES...]` | text |  | a\|b. |",
        "| `--out` | path | required | Where to. |",
        "| `--share` | number, at least 0, at most 1 | `0.5` | How much. |",
        "| `--json` |  |  | With `paint --out` or `--share`: for programs' sake. |",
    ]
