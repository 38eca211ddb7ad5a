"""A frozen network and the linear head fitted to its features, as one network from pixels to logits."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from perikarya.errors import WeightsError
from perikarya.models.build import CellNetwork, bare_extractor
from perikarya.models.embed import VIEWS
from perikarya.settings import Channels

TENSORS = ("head.mean", "head.scale", "head.coef", "head.intercept")


class FrozenHead(CellNetwork):
    """What the strategy ``head`` predicts with, traceable back to the picture.

    With ``rgb+mask`` the backbone sees each cell twice, as its features were computed: the whole window, and the
    window with black outside the outline. All first views go through it before all second ones, in one pass, so that
    a layer of the backbone yields (n_views * n, …): `models.explain` puts them together again.

    Parameters
    ----------
    extractor
        From ``models.build.build_feature_extractor``.
    tensors
        Those of ``model.safetensors``: mean and scale of the features, shape (n_features,), coefficients, shape
        (n_classes, n_features), and intercepts, shape (n_classes,).
    channels
        What of a crop the features were taken from.

    Raises
    ------
    WeightsError
        If the tensors are not those of a head on such features.
    """

    head_mean: Tensor
    head_scale: Tensor
    head_coef: Tensor
    head_intercept: Tensor

    def __init__(self, extractor: CellNetwork, tensors: Mapping[str, Tensor], *, channels: Channels) -> None:
        scale, shift = extractor.pixel_scale, extractor.pixel_shift
        super().__init__(extractor.backbone, mean=(0.0,) * 3, std=(1.0,) * 3, channels=channels)
        self.pixel_scale, self.pixel_shift = scale.clone(), shift.clone()
        self.views = VIEWS[channels]
        n_features = len(self.views) * int(self.backbone.num_features)  # type: ignore[arg-type]
        self._check(tensors, n_features)
        for name in TENSORS:
            self.register_buffer(name.replace(".", "_"), torch.as_tensor(tensors[name]).float())

    def forward(self, x_nchw: Tensor) -> Tensor:
        """Map crops of pixel values 0..255, (n, 4, side, side), any dtype, to (n, n_classes) logits."""
        return self.with_features(x_nchw)[0]

    @property
    def n_features(self) -> int:
        """Number of features of all views together."""
        return int(self.head_coef.shape[1])

    def with_features(self, x_nchw: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits, (n, n_classes), and the standardised features they come from, (n, n_features)."""
        seen = torch.cat([self.normalised(x_nchw, view) for view in self.views])
        features_vnf = self.backbone(seen).float().view(len(self.views), x_nchw.shape[0], -1)
        features = torch.cat(features_vnf.unbind(), dim=1)
        features = (features - self.head_mean) / self.head_scale
        return features @ self.head_coef.T + self.head_intercept, features

    def _check(self, tensors: Mapping[str, Tensor], n_features: int) -> None:
        missing = [name for name in TENSORS if name not in tensors]
        found = None if missing else int(tensors["head.coef"].shape[1])
        if found != n_features:
            what = f"lack {', '.join(missing)}" if missing else f"are of a head on {found} features"
            raise WeightsError(
                f"These tensors {what}; the frozen network has {n_features} for channels {self.channels}.\n"
                "Fix: name the network, channels and input size the head was fitted with."
            )


def restore_frozen_head(arch: str, tensors: Mapping[str, Tensor], *, channels: Channels, input_px: int) -> FrozenHead:
    """Build a frozen network with its head again from the ``state_dict`` of a ``FrozenHead``, ready for inference.

    Raises
    ------
    WeightsError
        If the tensors are not those of such a network.
    """
    named = {name: tensors[name.replace(".", "_")] for name in TENSORS if name.replace(".", "_") in tensors}
    network = FrozenHead(bare_extractor(arch, tensors, input_px=input_px), named, channels=channels)
    try:
        network.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise WeightsError(
            f"These tensors are not those of {arch} with a head on channels {channels}: "
            f"{str(error).splitlines()[-1].strip()[:200]}\nFix: export the model again."
        ) from None
    return network.eval().requires_grad_(False)
