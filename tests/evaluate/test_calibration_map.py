from __future__ import annotations

import subprocess
import sys

from perikarya.evaluate.calibration_map import METHOD_NAMES
from perikarya.evaluate.calibrators import METHODS


def test_every_calibration_that_can_be_fitted_can_be_read_again() -> None:
    assert tuple(METHODS.names()) == METHOD_NAMES


def test_applying_a_calibration_takes_no_scipy() -> None:
    code = "import sys, perikarya.evaluate.calibration_map; sys.exit(any(m.startswith('scipy') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
