"""What is mended of the grad-cam package, against the package itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.models.reduced import crops

pytest.importorskip("pytorch_grad_cam", reason="the extra 'explain' is not installed")

from pytorch_grad_cam import ScoreCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from perikarya.models.build import CellNetwork
from perikarya.models.cam_methods import FrugalScoreCam, SignedEigenCam
from perikarya.models.nets import CustomCnn


def network() -> CellNetwork:
    torch.manual_seed(0)
    return CellNetwork(CustomCnn(in_chans=4, n_classes=3), mean=(0.5,) * 3, std=(0.5,) * 3).eval()


def test_score_cam_agrees_with_the_package_and_draws_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    x = crops(2, 32).float()
    targets = [ClassifierOutputTarget(0), ClassifierOutputTarget(2)]
    shared = network()
    expected = ScoreCAM(shared, [shared.backbone.blocks])(x, targets)
    capfd.readouterr()
    found = FrugalScoreCam(shared, [shared.backbone.blocks])(x, targets)
    assert capfd.readouterr() == ("", "")
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_score_cam_never_has_more_than_a_few_masked_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    one = network()
    cam = FrugalScoreCam(one, [one.backbone.blocks])
    one.register_forward_hook(lambda _layer, inputs, _output: seen.append(len(inputs[0])))
    cam(crops(2, 32).float(), [ClassifierOutputTarget(0)] * 2)
    assert max(seen) <= 16
    assert sum(seen) == 2 + 2 * 160
    assert not cam.activations_and_grads.activations, "activations of all copies are kept"


def test_the_sign_of_eigen_cam_is_that_of_the_salient_side() -> None:
    maps = np.random.default_rng(0).normal(0, 0.01, (1, 5, 6, 6)).astype(np.float32)
    maps[0, :3, 4, 1] += 5  # one place unlike all others
    one = network()
    cam = SignedEigenCam(one, [one.backbone.blocks])
    for activations in (maps, -maps):
        found = cam.get_cam_image(None, None, None, activations, None, False)[0]
        assert np.unravel_index(found.argmax(), found.shape) == (4, 1)
