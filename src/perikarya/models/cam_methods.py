"""The methods of the grad-cam package, with what two of them lack mended.

The package is in the extra ``explain``: import this module only where a map is asked for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam import EigenCAM, GradCAM, GradCAMPlusPlus, ScoreCAM  # type: ignore[import-untyped,unused-ignore]
from torch import Tensor
from torch.nn.functional import interpolate

_SCORED_AT_ONCE = 16  # masked copies of a cell in one pass


class FrugalScoreCam(ScoreCAM):  # type: ignore[misc]
    """Score-CAM (Wang et al. 2020), one cell and a few of its masked copies at a time.

    The package's own holds a masked copy of every cell for every feature at once, 1.6 GB per cell for ResNet-50 at
    224 px, keeps the activations of all of them, and draws a progress bar per cell.
    """

    def get_cam_weights(
        self,
        input_tensor: Tensor,
        target_layer: Any,  # noqa: ARG002 - the package passes it
        targets: list[Any],
        activations: NDArray[Any],
        grads: None,  # noqa: ARG002
    ) -> NDArray[Any]:
        """Return the softmax over features of the class score with the cell masked by each feature, (n, features)."""
        self.activations_and_grads.release()
        with torch.inference_mode():
            scores = [
                self._scores(x_chw, target, torch.from_numpy(maps_fhw).to(x_chw.device))
                for x_chw, target, maps_fhw in zip(input_tensor, targets, activations, strict=True)
            ]
            return torch.softmax(torch.stack(scores), dim=-1).cpu().numpy()

    def _scores(self, x_chw: Tensor, target: Any, maps_fhw: Tensor) -> Tensor:
        scores = []
        for some_fhw in torch.split(maps_fhw, _SCORED_AT_ONCE):
            masks = interpolate(some_fhw[:, None], size=x_chw.shape[-2:], mode="bilinear", align_corners=True)
            low, high = masks.amin(dim=(2, 3), keepdim=True), masks.amax(dim=(2, 3), keepdim=True)
            masked = x_chw[None] * (masks - low) / (high - low + 1e-8)
            scores += [target(output) for output in self.model(masked)]
        return torch.stack(scores)


class SignedEigenCam(EigenCAM):  # type: ignore[misc]
    """Eigen-CAM (Muhammad & Yeasin 2020) whose bright side is the salient one.

    The sign of a principal component is arbitrary, so the package's own comes out inverted at random; here the side
    that reaches further from the mean is bright (Chung & Ying 2025, Appl. Sci. 15, 7562, eq. 13).
    """

    def get_cam_image(self, *arguments: Any, **options: Any) -> NDArray[np.float32]:
        """Return the first principal component of the feature map of every cell, (n, rows, columns)."""
        maps_nhw: NDArray[np.float32] = super().get_cam_image(*arguments, **options)
        inverted = -maps_nhw.min(axis=(1, 2)) > maps_nhw.max(axis=(1, 2))
        maps_nhw[inverted] *= -1
        return maps_nhw


CAM_METHODS: dict[str, Any] = {
    "gradcam": GradCAM,
    "gradcam++": GradCAMPlusPlus,
    "scorecam": FrugalScoreCam,
    "eigencam": SignedEigenCam,
}
