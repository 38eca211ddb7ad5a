"""How fast cells become batches for a network: read, augment, resize, normalise.

Contestants, all on the same cells, with the same ranges of flip, rotation, scale, shift and colour, ending in the same
normalised float32 tensor (channels last, written by the same code):

- perikarya: crops in one memory-mapped uint8 array, one warp per cell;
- albumentations: one PNG per image and one per mask, decoded by Pillow, one Affine with the mask, ColorJitter,
  Resize; also without the decoding, on the same memory-mapped array;
- monai: the same PNG files, RandAffined and intensity transforms on the CPU (no saturation, as MONAI has none).

Peers get the cheaper order: they resize last when cells get larger and first (antialiased, INTER_AREA) when they get
smaller. With two workers perikarya uses two threads, and the peers two processes of torch's DataLoader.

Albumentations and MONAI are installed for this benchmark alone, by pip without dependencies (7 MB), into --peers.
Perikarya's antialiasing is on. Times are medians over interleaved turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else it asks the network for its newest version

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from _common import add_peers, interleaved, machine, parse_arguments, print_json, print_table, ratio
from perikarya.config import AugmentConfig
from perikarya.data.augment import Augmenter
from perikarya.data.loader import iterate_batches
from perikarya.data.store import CropWriter, OpenStudy
from perikarya.schema import Study

PEERS = ("albumentations==2.0.8", "albucore==0.0.24", "simsimd==6.5.16", "stringzilla==5.3.2", "monai==1.6.1")
CONFIG = AugmentConfig()
BATCH = 32
MEAN, STD = torch.tensor([0.485, 0.456, 0.406, 0.5]), torch.tensor([0.229, 0.224, 0.225, 0.5])
# side of the stored window -> side of the network's input
CASES = ((80, 224), (80, 64), (256, 112))

Cells = NDArray[np.uint8]
Transform = Callable[[Cells, Cells], Cells]


@dataclass(frozen=True)
class Files:
    """The same cells twice: as a study's array, and as one PNG per image and per mask."""

    opened: OpenStudy
    images: list[Path]
    masks: list[Path]

    def __len__(self) -> int:
        return len(self.images)


def main() -> None:
    arguments = parse_arguments(__doc__, extend=_add_arguments)
    torch.set_num_threads(1)
    add_peers(PEERS, cache_dir=arguments.peers)
    repeats, n_cells = (3, 64) if arguments.quick else (7, 256)
    print(", ".join(f"{k}: {v}" for k, v in machine().items()))
    rows: list[list[object]] = []
    ratios: dict[str, float] = {}
    for workers in (1, 2):
        for window_px, out_px in CASES if workers == 1 else CASES[:1]:
            with tempfile.TemporaryDirectory() as folder:
                files = write_cells(Path(folder), arguments.data, window_px=window_px, n_cells=n_cells)
                wall_s = interleaved(contestants(files, out_px, workers=workers), repeats=repeats)
            for name, seconds in wall_s.items():
                times = None if name == "perikarya" else ratio(seconds, wall_s["perikarya"])
                case = f"{window_px} -> {out_px} px, {workers} worker(s)"
                rows.append([case, name, n_cells / statistics.median(seconds), times])
                if times is not None:
                    ratios[f"{name}_{window_px}_to_{out_px}_workers{workers}"] = round(times, 2)
    print_table(["case", "contestant", "cells/s", "perikarya is faster by"], rows)
    print_json("input_pipeline", n_cells=n_cells, repeats=repeats, ratios=ratios)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    default = Path(tempfile.gettempdir()) / f"perikarya-benchmark-peers-{os.getuid()}"
    parser.add_argument("--peers", type=Path, default=default, help="where Albumentations and MONAI are installed")


def write_cells(folder: Path, data: Path, *, window_px: int, n_cells: int) -> Files:
    """Write the cells in both forms; where the real ones are absent, smooth random ones."""
    crops = real_cells(data, n_cells) if data.is_dir() else random_cells(n_cells)
    if crops.shape[1] != window_px:
        crops = np.stack([cv2.resize(c, (window_px, window_px), interpolation=cv2.INTER_CUBIC) for c in crops])
        crops[..., 3] = np.where(crops[..., 3] > 127, 255, 0)
    images = [folder / f"{i}.png" for i in range(n_cells)]
    masks = [folder / f"{i}_mask.png" for i in range(n_cells)]
    with CropWriter(folder / "crops.npy", n_cells=n_cells, window_px=window_px) as writer:
        for crop, image, mask in zip(crops, images, masks, strict=True):
            writer.append(crop)
            Image.fromarray(crop[..., :3]).save(image)
            Image.fromarray(crop[..., 3]).save(mask)
    study = Study(name="benchmark", class_names=("cell",), window_px=window_px)
    mapped = np.load(folder / "crops.npy", mmap_mode="r")
    return Files(OpenStudy(folder, study, pd.DataFrame(index=range(n_cells)), mapped), images, masks)


def real_cells(data: Path, n_cells: int) -> Cells:
    """Read red blood cells, shape (n_cells, 80, 80, 4)."""
    folder = data / "cells" / "development"
    images = sorted((folder / "images").rglob("*.png"))
    chosen = [images[i] for i in np.linspace(0, len(images) - 1, n_cells).astype(int)]
    return np.stack([decode(p, folder / "masks" / p.relative_to(folder / "images")) for p in chosen])


def random_cells(n_cells: int) -> Cells:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (n_cells, 80, 80, 4), dtype=np.uint8)
    crops = np.stack([cv2.GaussianBlur(c, (0, 0), 2) for c in noise])
    crops[..., 3] = np.where(crops[..., 3] > 127, 255, 0)
    return crops


def decode(image: Path, mask: Path) -> Cells:
    """Decode a PNG and the PNG of its mask into (S, S, 4)."""
    rgb = np.asarray(Image.open(image).convert("RGB"))
    return np.dstack([rgb, np.asarray(Image.open(mask).convert("L"))])


@cache
def buffer(n: int, side: int) -> torch.Tensor:
    return torch.empty(n, side, side * 4)


def to_tensor(x_nhwc: Cells) -> torch.Tensor:
    """Normalise to float32, NCHW in channels-last memory, cell by cell into memory that is used again.

    Rows of whole pixels let the loops be vectorised: several times faster than broadcasting over four channels.
    """
    n, side = x_nhwc.shape[:2]
    scale, shift = (1 / (255 * STD)).repeat(side), (-MEAN / STD).repeat(side)
    out = buffer(n, side)
    for source, target in zip(torch.from_numpy(x_nhwc).view(out.shape), out, strict=True):
        target.copy_(source)
        target.mul_(scale).add_(shift)
    return out.view(x_nhwc.shape).permute(0, 3, 1, 2)


def contestants(files: Files, out_px: int, *, workers: int) -> dict[str, Callable[[], object]]:
    """Return one callable per contestant that takes all cells through an epoch."""
    albumentations = albumentations_transform(files.opened.study.window_px, out_px)
    monai = monai_transform(files.opened.study.window_px, out_px)
    augmenter = Augmenter(CONFIG, out_px=out_px)

    def ours() -> None:
        batches = iterate_batches(
            files.opened,
            np.arange(len(files)),
            batch_size=BATCH,
            out_px=out_px,
            augmenter=augmenter,
            prefetch=0 if workers == 1 else 2 * workers,
            workers=workers,
        )
        for x_nhwc, _ in batches:
            to_tensor(x_nhwc)

    return {
        "perikarya": ours,
        "albumentations": peer(PngCells(files, albumentations), workers=workers),
        "albumentations_no_decode": peer(MappedCells(files, albumentations), workers=workers),
        "monai": peer(PngCells(files, monai), workers=workers),
    }


class PngCells(torch.utils.data.Dataset[Cells]):
    """The obvious data set of a peer: decode two files, transform."""

    def __init__(self, files: Files, transform: Transform) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> Cells:
        rgb = np.asarray(Image.open(self.files.images[i]).convert("RGB"))
        mask = np.asarray(Image.open(self.files.masks[i]).convert("L"))
        return self.transform(rgb, mask)


class MappedCells(PngCells):
    """The peer's transforms without the decoding."""

    def __getitem__(self, i: int) -> Cells:
        crop = self.files.opened.crops[i]
        return self.transform(np.ascontiguousarray(crop[..., :3]), np.ascontiguousarray(crop[..., 3]))


def peer(cells: PngCells, *, workers: int) -> Callable[[], None]:
    """Return a peer's epoch; its processes are started in the first one, which is not timed."""
    loader = torch.utils.data.DataLoader(
        cells,
        batch_size=BATCH,
        num_workers=0 if workers == 1 else workers,
        collate_fn=stack,
        persistent_workers=workers > 1,
    )

    def run() -> None:
        for x_nhwc in loader:
            to_tensor(x_nhwc.numpy())

    return run


def stack(cells: Sequence[Cells]) -> torch.Tensor:
    return torch.from_numpy(np.stack(cells))  # a tensor goes through shared memory, an array would be pickled


def albumentations_transform(window_px: int, out_px: int) -> Transform:
    import albumentations as A

    turn = A.Affine(
        rotate=(-CONFIG.rotate_deg, CONFIG.rotate_deg),
        scale=(1 / (1 + CONFIG.scale), 1 + CONFIG.scale),
        translate_percent=(-CONFIG.translate, CONFIG.translate),
        border_mode=cv2.BORDER_REFLECT,
        p=1,
    )
    colour = A.ColorJitter(
        brightness=(1 - CONFIG.brightness, 1 + CONFIG.brightness),
        contrast=(1 - CONFIG.contrast, 1 + CONFIG.contrast),
        saturation=(1 - CONFIG.saturation, 1 + CONFIG.saturation),
        hue=(0, 0),
        p=1,
    )
    steps = [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5), turn, colour]
    resize = A.Resize(out_px, out_px, interpolation=cv2.INTER_AREA if out_px < window_px else cv2.INTER_LINEAR)
    compose = A.Compose([resize, *steps] if out_px < window_px else [*steps, resize])

    def transform(rgb: Cells, mask: Cells) -> Cells:
        found = compose(image=rgb, mask=mask)
        return np.dstack([found["image"], found["mask"]])

    return transform


def monai_transform(window_px: int, out_px: int) -> Transform:
    from monai import transforms as M

    keys = ["image", "mask"]
    steps: list[Any] = [
        M.RandFlipd(keys, prob=0.5, spatial_axis=0),
        M.RandFlipd(keys, prob=0.5, spatial_axis=1),
        M.RandAffined(
            keys,
            prob=1,
            rotate_range=float(np.deg2rad(CONFIG.rotate_deg)),
            scale_range=CONFIG.scale,
            translate_range=CONFIG.translate * min(window_px, out_px if out_px < window_px else window_px),
            mode=("bilinear", "nearest"),
            padding_mode="reflection",
        ),
        M.RandScaleIntensityd(["image"], factors=CONFIG.brightness, prob=1),
        M.RandAdjustContrastd(["image"], gamma=(1 - CONFIG.contrast, 1 + CONFIG.contrast), prob=1),
    ]
    resize = M.Resized(keys, (out_px, out_px), mode=("area" if out_px < window_px else "bilinear", "nearest"))
    compose = M.Compose([resize, *steps] if out_px < window_px else [*steps, resize])

    def transform(rgb: Cells, mask: Cells) -> Cells:
        found = compose({"image": rgb.transpose(2, 0, 1).astype(np.float32), "mask": mask[None].astype(np.float32)})
        stacked = np.concatenate([found["image"].numpy(), found["mask"].numpy()])
        return np.ascontiguousarray(np.clip(stacked, 0, 255).astype(np.uint8).transpose(1, 2, 0))

    return transform


if __name__ == "__main__":
    main()
