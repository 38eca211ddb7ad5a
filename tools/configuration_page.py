"""Write docs/configuration.md from the settings themselves, so that the page cannot fall behind them.

python tools/configuration_page.py
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

from perikarya import config

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
SECTIONS = {
    "": config.ExperimentConfig,
    "cv": config.CvConfig,
    "models[]": config.ModelConfig,
    "train": config.TrainConfig,
    "head": config.HeadConfig,
    "augment": config.AugmentConfig,
    "resample": config.ResampleConfig,
    "evaluate": config.EvaluateConfig,
    "quantify": config.QuantifyConfig,
    "launch": config.LaunchConfig,
    "launch.slurm": config.SlurmConfig,
    "launch.ray": config.RayConfig,
}


def page() -> str:
    """Return the page as Markdown."""
    parts = [
        "# Settings of an experiment",
        "An experiment is one YAML file (see `examples/`). A key that is not listed here is an error. Single values "
        "can be changed on the command line: `--set train.epochs=3`, `--set models.0.strategy=head`.\n\n"
        "Written by `python tools/configuration_page.py`; a test keeps it up to date.",
    ]
    for name, section in SECTIONS.items():
        words = (inspect.getdoc(section) or "").replace("``", "`")
        parts.append(f"## {name or 'Top level'}\n\n{words}\n\n{_table(section)}")
    return "\n\n".join(parts) + "\n"


def _table(section: type[config.Settings]) -> str:
    comments = _comments(section)
    rows = ["| key | default | values | |", "|---|---|---|---|"]
    properties = section.model_json_schema()["properties"]
    for key, field in section.model_fields.items():
        default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
        rows.append(f"| `{key}` | {default} | {_values(properties[key])} | {comments.get(key, '')} |")
    return "\n".join(rows)


def _default(value: object) -> str:
    if isinstance(value, config.Settings):
        return "see below"
    if isinstance(value, tuple):
        return "`[" + ", ".join(str(v) for v in value) + "]`"
    return f"`{json.dumps(value)}`" if not isinstance(value, str) or not value else f"`{value}`"


def _values(schema: dict[str, object]) -> str:
    options: Any = schema.get("anyOf", [schema])
    return " or ".join(_one(o) for o in options if o.get("type") != "null")


def _one(schema: dict[str, object]) -> str:
    if "enum" in schema:
        return ", ".join(str(v) for v in schema["enum"])  # type: ignore[attr-defined]
    if "const" in schema:
        return str(schema["const"])
    kind = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true, false"}
    words = kind.get(str(schema.get("type")), "list" if schema.get("type") == "array" else "section")
    limits = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    bounds = [f"{word} {schema[key]}" for key, word in limits.items() if key in schema]
    return ", ".join([words, *bounds])


def _comments(section: type[config.Settings]) -> dict[str, str]:
    """Return what is written behind ``#`` on the line of each setting, or on the line above it."""
    source = inspect.getsource(section)
    above = re.findall(r"^    # (.+)\n    (\w+):", source, flags=re.MULTILINE)
    behind = re.findall(r"^    (\w+):.*?  # (?!fmt)(.+)$", source, flags=re.MULTILINE)
    found = {key: text for text, key in above} | dict(behind)
    return {key: text.replace("|", r"\|") for key, text in found.items()}


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
