"""Write docs/reference/cli.md from the commands themselves, so that the page cannot fall behind them.

python tools/cli_page.py
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

from perikarya.cli.app import app

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "cli.md"
INTRODUCTION = """# Commands

`perikarya --help` and `perikarya COMMAND --help` say the same in the terminal, `perikarya --version` the version.
Exit codes: 0 done; 1 the data or the run has a problem that the message names; 2 wrong usage.

Written by `python tools/cli_page.py`; a test keeps it up to date."""
_WORDS = {int: "whole number", float: "number", str: "text", Path: "path", bool: ""}
_PLACEHOLDERS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


@dataclass(frozen=True)
class Parameter:
    """An argument or an option of a command."""

    name: str  # of the function's parameter
    info: ArgumentInfo | OptionInfo
    type: Any
    default: Any

    @property
    def is_argument(self) -> bool:
        """Whether it is told by its place, not by a name."""
        return isinstance(self.info, ArgumentInfo)

    @property
    def required(self) -> bool:
        """Whether the command cannot do without."""
        return self.default is inspect.Parameter.empty

    @property
    def many(self) -> bool:
        """Whether it can be given several times."""
        return get_origin(self.type) is list

    @property
    def kind(self) -> Any:
        """The type of one value."""
        return get_args(self.type)[0] if self.many else self.type

    @property
    def shown(self) -> str:
        """How it is written in a call."""
        if not self.is_argument:
            # in Annotated, typer keeps the first name that is given where a default would stand
            given = [name for name in (self.info.default, *(self.info.param_decls or ())) if isinstance(name, str)]
            return ", ".join(given) or f"--{self.name.replace('_', '-')}"
        word = self.name.upper() + ("..." if self.many else "")
        return word if self.required else f"[{word}]"


def page() -> str:
    """Return the page as Markdown."""
    found = list(_commands(app, "perikarya"))
    overview = [f"| [`{name}`](#{name.replace(' ', '-')}) | {_cell(command.__doc__)} |" for name, command in found]
    parts = [INTRODUCTION, "\n".join(["| command | does |", "|---|---|", *overview])]
    parts += [_section(name, command) for name, command in found]
    return "\n\n".join(parts) + "\n"


def _commands(program: typer.Typer, words: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Iterate over (words to type, function) of all commands, in the order of the program's help."""
    for command in program.registered_commands:
        if command.callback is not None:
            yield f"{words} {command.name or command.callback.__name__}", command.callback
    for group in program.registered_groups:
        if group.typer_instance is not None:
            yield from _commands(group.typer_instance, f"{words} {group.name}")


def _parameters(command: Callable[..., Any]) -> list[Parameter]:
    hints = get_type_hints(command, include_extras=True)
    found = []
    for name, parameter in inspect.signature(command).parameters.items():
        kind, info = get_args(hints[name])
        known = [part for part in get_args(kind) if part is not NoneType] if get_origin(kind) is not list else []
        found.append(Parameter(name, info, known[0] if known else kind, parameter.default))
    return sorted(found, key=lambda p: not p.is_argument)


def _section(name: str, command: Callable[..., Any]) -> str:
    parameters = _parameters(command)
    needed = [p for p in parameters if p.is_argument or p.required]
    usage = [name, *(p.shown if p.is_argument else f"{p.shown} {_PLACEHOLDERS[p.kind]}" for p in needed)]
    usage += ["[OPTIONS]"] if len(needed) < len(parameters) else []
    parts = [f"## `{name}`", f"```text\n{' '.join(usage)}\n```", _text(command.__doc__)]
    rows = [f"| `{p.shown}` | {_values(p)} | {_default(p)} | {_cell(p.info.help)} |" for p in parameters]
    parts.append("\n".join(["| | value | default | |", "|---|---|---|---|", *rows]))
    return "\n\n".join(parts)


def _values(parameter: Parameter) -> str:
    words = _WORDS[parameter.kind]
    words += f", at least {parameter.info.min}" if parameter.info.min is not None else ""
    return words + (f", at most {parameter.info.max}" if parameter.info.max is not None else "")


def _default(parameter: Parameter) -> str:
    if parameter.required:
        return "required"
    return "" if parameter.default is None or parameter.kind is bool else f"`{parameter.default}`"


def _text(words: str | None) -> str:
    """Return help as Markdown: what is quoted, and options, as code, where two dashes stay two."""
    code = re.compile(r"(?<!\w)'([^']+)'(?!\w)|(?<![\w-])(--[a-z][\w-]*)")
    return code.sub(lambda found: f"`{found[1] or found[2]}`", " ".join((words or "").split()))


def _cell(words: str | None) -> str:
    return _text(words).replace("|", r"\|")


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
