"""An element of an array, of which there may be thousands, imports no more than it uses."""

from __future__ import annotations

import subprocess
import sys

import pytest

from perikarya.launch import slurm


def test_an_element_does_not_import_what_submits() -> None:
    listed = "[name for name in sys.modules if name.endswith(('submit', 'settings'))]"
    code = f"import sys, perikarya.launch.slurm.element; print({listed})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_names_are_found_and_others_are_not() -> None:
    assert all(callable(getattr(slurm, name)) for name in slurm.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        slurm.nothing  # noqa: B018
