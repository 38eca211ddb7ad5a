"""Foundation encoders: large networks trained without labels, on histology or on photographs, meant to be frozen.

Licence, gating, normalisation, size and pooling are those of stored copies of each model's page at the Hugging Face
hub; its publisher may have changed them since. Several allow non-commercial academic use only, and say so of what is
trained on their features.
"""

from __future__ import annotations

from typing import Any

from perikarya.models.zoo_spec import HALF, NetworkSpec, PretrainedWeights
from perikarya.models.zoo_study import TRANSFORMER_LR

NON_COMMERCIAL = "CC-BY-NC-ND-4.0"
H_OPTIMUS_MEAN, H_OPTIMUS_STD = (0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517)


def _encoder(summary: str, timm_name: str, hub: str, licence: str, *, patch_px: int, **facts: Any) -> NetworkSpec:
    gated, px = facts.pop("gated", False), facts.pop("px", 224)
    return NetworkSpec(
        summary,
        "encoder",
        input_px=px,
        head_px=px,
        lr=TRANSFORMER_LR,
        timm_name=timm_name,
        weights=PretrainedWeights("hub", hub, licence, gated=gated, imagenet=False),
        sized=True,
        input_multiple=patch_px,
        min_px=patch_px,
        **{"pooling": "class token", "micro_batch": 16, **facts},
    )


ENCODERS: dict[str, NetworkSpec] = {
    "uni": _encoder(
        "UNI, ViT-L/16, histology",
        "vit_large_patch16_224",
        "MahmoodLab/UNI",
        NON_COMMERCIAL,
        gated=True,
        patch_px=16,
        params_m=303.6,
        timm_kwargs={"init_values": 1e-5},
    ),
    "uni2_h": _encoder(
        "UNI2-h, ViT-H/14, histology",
        "vit_giant_patch14_224",
        "MahmoodLab/UNI2-h",
        NON_COMMERCIAL,
        gated=True,
        patch_px=14,
        params_m=681.7,
        timm_kwargs={
            "depth": 24,
            "num_heads": 24,
            "embed_dim": 1536,
            "mlp_ratio": 2 * 2.66667,
            "init_values": 1e-5,
            "reg_tokens": 8,
            "no_embed_class": True,
        },
        swiglu=True,
        micro_batch=8,
        checkpointing=True,
    ),
    "virchow2": _encoder(
        "Virchow2, ViT-H/14, histology",
        "vit_huge_patch14_224",
        "paige-ai/Virchow2",
        NON_COMMERCIAL,
        gated=True,
        patch_px=14,
        params_m=631.5,
        timm_kwargs={"mlp_ratio": 5.3375, "init_values": 1e-5, "reg_tokens": 4},
        swiglu=True,
        micro_batch=8,
        checkpointing=True,
        pooling="class token and mean",
    ),
    "h_optimus_0": _encoder(
        "H-optimus-0, ViT-g/14, histology",
        "vit_giant_patch14_reg4_dinov2",
        "bioptimus/H-optimus-0",
        "Apache-2.0",
        patch_px=14,
        params_m=1135.1,
        mean=H_OPTIMUS_MEAN,
        std=H_OPTIMUS_STD,
        micro_batch=8,
        checkpointing=True,
    ),
    "h_optimus_1": _encoder(
        "H-optimus-1, ViT-g/14, histology",
        "vit_giant_patch14_reg4_dinov2",
        "bioptimus/H-optimus-1",
        NON_COMMERCIAL,
        gated=True,
        patch_px=14,
        params_m=1135.1,
        mean=H_OPTIMUS_MEAN,
        std=H_OPTIMUS_STD,
        micro_batch=8,
        checkpointing=True,
    ),
    "gigapath": _encoder(
        "Prov-GigaPath's encoder of tiles, ViT-g/16, histology",
        "vit_giant_patch14_dinov2",
        "prov-gigapath/prov-gigapath",
        "Apache-2.0, for research only",
        gated=True,
        patch_px=16,
        params_m=1135.4,
        timm_kwargs={"patch_size": 16},
        micro_batch=8,
        checkpointing=True,
    ),
    "phikon_v2": _encoder(
        "Phikon-v2, ViT-L/16, histology",
        "vit_large_patch16_224",
        "owkin/phikon-v2",
        "Owkin non-commercial",
        patch_px=16,
        params_m=303.6,
        timm_kwargs={"init_values": 1e-5},
    ),
    "midnight": _encoder(
        "Midnight-12k, ViT-g/14, histology",
        "vit_giant_patch14_dinov2",
        "kaiko-ai/midnight",
        "MIT",
        patch_px=14,
        params_m=1135.1,
        mean=HALF,
        std=HALF,
        pooling="class token and mean",
        micro_batch=8,
        checkpointing=True,
    ),
    "dinov2_small": _encoder(
        "DINOv2, ViT-S/14 with registers, photographs",
        "vit_small_patch14_reg4_dinov2",
        "timm/vit_small_patch14_reg4_dinov2.lvd142m",
        "Apache-2.0",
        patch_px=14,
        params_m=21.7,
        micro_batch=32,
    ),
    "dinov2_base": _encoder(
        "DINOv2, ViT-B/14 with registers, photographs",
        "vit_base_patch14_reg4_dinov2",
        "timm/vit_base_patch14_reg4_dinov2.lvd142m",
        "Apache-2.0",
        patch_px=14,
        params_m=85.9,
        micro_batch=32,
    ),
    "dinov3_small": _encoder(
        "DINOv3, ViT-S/16, photographs",
        "vit_small_patch16_dinov3",
        "timm/vit_small_patch16_dinov3.lvd1689m",
        "DINOv3",
        px=256,
        patch_px=16,
        params_m=21.7,
        timm_kwargs={"global_pool": "token"},
        micro_batch=32,
    ),
    "dinov3_base": _encoder(
        "DINOv3, ViT-B/16, photographs",
        "vit_base_patch16_dinov3",
        "timm/vit_base_patch16_dinov3.lvd1689m",
        "DINOv3",
        px=256,
        patch_px=16,
        params_m=85.8,
        timm_kwargs={"global_pool": "token"},
        micro_batch=32,
    ),
}
