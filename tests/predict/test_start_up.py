"""What prediction on an exported model takes along: nothing that a training needs, and little that starts slowly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.predict.tiny_models import make_field, tiny_model

TABOO = {"torch", "torchvision", "timm", "matplotlib", "statsmodels", "sklearn", "imblearn", "peft", "scipy.stats",
         "scipy.optimize", "shapely", "anndata", "onnx", "onnxscript"}  # fmt: skip
_PREDICT = """
import json, sys
from pathlib import Path
sys.argv = ["perikarya", "predict", *sys.argv[1:]]
from perikarya.cli import main
try:
    main()
except SystemExit as end:
    print("exit", end.code or 0)
print(json.dumps(sorted(sys.modules)))
"""


def modules_of(*arguments: object) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", _PREDICT, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert "exit 0" in done.stdout, done.stdout + done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("formats", ["csv", "geojson,roi,overlay,csv"])
def test_predicting_with_an_exported_model_imports_nothing_that_trains(tmp_path: Path, formats: str) -> None:
    model = tiny_model(tmp_path / "model")
    item = make_field(tmp_path, "field")
    out = tmp_path / "out"
    modules = modules_of(model.root, item.image, "--out", out, "--format", formats)
    assert (out / "cells.csv").is_file()
    assert "onnxruntime" in modules
    assert not {name for name in modules if name in TABOO or name.split(".")[0] in TABOO}
