"""The ten networks of the published study, and the two sizes its text leaves open.

Sizes of the weights' names (224, 384) are the paper's presets; another ``input_px`` works for every one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perikarya.models.zoo_spec import HALF, NetworkSpec, PretrainedWeights

if TYPE_CHECKING:
    from torch import nn

CONVNET_LR, TRANSFORMER_LR = 3e-4, 5e-5


def _custom_cnn(in_chans: int, n_classes: int) -> nn.Module:
    from perikarya.models.nets import CustomCnn

    return CustomCnn(in_chans=in_chans, n_classes=n_classes)


def _vit(summary: str, name: str, licence: str = "Apache-2.0", *, px: int, patch_px: int, **facts: Any) -> NetworkSpec:
    return NetworkSpec(
        summary,
        "study",
        input_px=px,
        head_px=px,
        lr=TRANSFORMER_LR,
        timm_name=name.split(".")[0],
        weights=PretrainedWeights("hub", f"timm/{name}", licence),
        mean=HALF,
        std=HALF,
        pooling="class token",
        sized=True,
        input_multiple=patch_px,
        min_px=patch_px,
        **facts,
    )


STUDY: dict[str, NetworkSpec] = {
    "custom_cnn": NetworkSpec(
        summary="convolution blocks with skip connections, trained from random weights",
        kind="study",
        input_px=64,
        head_px=64,
        params_m=0.6,
        lr=1e-3,
        build_own=_custom_cnn,
        mean=HALF,
        std=HALF,
        min_px=16,
    ),
    "resnet50": NetworkSpec(
        summary="ResNet-50",
        kind="study",
        input_px=224,
        head_px=224,
        params_m=23.5,
        lr=CONVNET_LR,
        timm_name="resnet50",
        weights=PretrainedWeights("hub", "timm/resnet50.a1_in1k", "Apache-2.0"),
    ),
    "efficientnet_b7": NetworkSpec(
        summary="EfficientNet-B7, noisy student",
        kind="study",
        input_px=224,
        head_px=224,
        params_m=63.8,
        lr=CONVNET_LR,
        timm_name="tf_efficientnet_b7",
        weights=PretrainedWeights("hub", "timm/tf_efficientnet_b7.ns_jft_in1k", "Apache-2.0"),
        micro_batch=16,
    ),
    "vit_base_224": _vit(
        "ViT-B/16", "vit_base_patch16_224.augreg_in21k_ft_in1k", px=224, patch_px=16, params_m=86.0, micro_batch=32
    ),
    "vit_base_384": _vit(
        "ViT-B/16 at 384 px",
        "vit_base_patch16_384.augreg_in21k_ft_in1k",
        px=384,
        patch_px=16,
        params_m=86.3,
        micro_batch=16,
    ),
    "vit_large_224": _vit(
        "ViT-L/16",
        "vit_large_patch16_224.augreg_in21k_ft_in1k",
        px=224,
        patch_px=16,
        params_m=303.6,
        micro_batch=16,
    ),
    "vit_large_384": _vit(
        "ViT-L/16 at 384 px",
        "vit_large_patch16_384.augreg_in21k_ft_in1k",
        px=384,
        patch_px=16,
        params_m=304.0,
        micro_batch=4,
    ),
    "vit_large_patch32_384": _vit(
        "ViT-L/32 at 384 px (the study names this patch size in one place)",
        "vit_large_patch32_384.orig_in21k_ft_in1k",
        px=384,
        patch_px=32,
        params_m=306.7,
        micro_batch=16,
    ),
    "swin_large": NetworkSpec(
        summary="Swin-L, windows of 7 tokens",
        kind="study",
        input_px=224,
        head_px=224,
        params_m=195.0,
        lr=TRANSFORMER_LR,
        timm_name="swin_large_patch4_window7_224",
        weights=PretrainedWeights("hub", "timm/swin_large_patch4_window7_224.ms_in22k_ft_in1k", "MIT"),
        sized=True,
        input_multiple=4,
        min_px=16,
        micro_batch=16,
    ),
    # of the three published sets of weights, the one nearest to 224 px that was fine-tuned on ImageNet-1k: the 192 px
    # one was not, and the 384 px one costs more than twice as much for pictures that are enlarged anyway
    "swinv2_large": NetworkSpec(
        summary="SwinV2-L at 256 px, windows of 16 tokens",
        kind="study",
        input_px=256,
        head_px=256,
        params_m=195.2,
        lr=TRANSFORMER_LR,
        timm_name="swinv2_large_window12to16_192to256",
        weights=PretrainedWeights("hub", "timm/swinv2_large_window12to16_192to256.ms_in22k_ft_in1k", "MIT"),
        sized=True,
        input_multiple=4,
        min_px=16,
        micro_batch=8,
    ),
    "hybrid_vit_384": _vit(
        "ViT-B/16 on a BiT ResNet-50 at 384 px",
        "vit_base_r50_s16_384.orig_in21k_ft_in1k",
        px=384,
        patch_px=16,
        params_m=98.2,
        micro_batch=8,
    ),
    # the only ViT trained on PANDA that its makers published; its page states no licence
    "panda_vit": NetworkSpec(
        summary="ViT trained on prostate histology (PANDA); B/16, or S/16 by the file",
        kind="study",
        input_px=224,
        head_px=224,
        params_m=86.0,
        lr=TRANSFORMER_LR,
        timm_name="vit_base_patch16_224",
        by_width={768: "vit_base_patch16_224", 384: "vit_small_patch16_224"},
        weights=PretrainedWeights("hub", "smc/PANDA_ViT", "not stated", imagenet=False),
        mean=HALF,
        std=HALF,
        pooling="class token",
        sized=True,
        input_multiple=16,
        min_px=16,
        micro_batch=32,
    ),
    "hybrid2": NetworkSpec(
        summary="features of EfficientNet-B7 and SwinV2-L joined",
        kind="study",
        input_px=256,
        head_px=256,
        params_m=259.0,
        lr=TRANSFORMER_LR,
        branches=("efficientnet_b7", "swinv2_large"),
        weights=PretrainedWeights("branches", "efficientnet_b7 + swinv2_large", "Apache-2.0 and MIT"),
        sized=True,
        input_multiple=4,
        min_px=32,
        micro_batch=16,
        checkpointing=True,
    ),
}
