from __future__ import annotations

import subprocess
import sys

import numpy as np

from perikarya.evaluate.calibration_map import METHOD_NAMES, softmax
from perikarya.evaluate.calibrators import METHODS


def test_every_calibration_that_can_be_fitted_can_be_read_again() -> None:
    assert tuple(METHODS.names()) == METHOD_NAMES


def test_applying_a_calibration_takes_no_scipy() -> None:
    code = "import sys, perikarya.evaluate.calibration_map; sys.exit(any(m.startswith('scipy') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_each_row_of_logits_becomes_probabilities_however_large_those_of_other_rows() -> None:
    prob_nk = softmax(np.array([[2000.0, 2000.0], [0.0, np.log(3.0)]]))
    np.testing.assert_allclose(prob_nk, [[0.5, 0.5], [0.25, 0.75]])
