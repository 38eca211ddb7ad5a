"""Outlines are counted as fast as bytes are read; the number is that of the outlines a reader finds."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from tests import outlined
from tests.predict.tiny_models import cells, write_features

from perikarya.data.outlines import find_outlines, read_outlines
from perikarya.predict.counting import count_outlines


@pytest.mark.parametrize("make", [outlined.label_maps, outlined.geojson, outlined.rois])
def test_as_many_are_counted_as_are_read(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    image = make(tmp_path / "fields") / "f0.png"
    outlines = find_outlines(image)
    assert outlines is not None
    assert count_outlines(outlines, image) == len(read_outlines(outlines, image=image).outlines) == 3


def test_a_coco_file_is_asked_for_one_image(tmp_path: Path) -> None:
    root = outlined.coco(tmp_path / "fields")
    outlines = next(root.rglob("*.json"))
    image = next(root.rglob("f1.png"))
    assert count_outlines(outlines, image) == len(read_outlines(outlines, image=image).outlines) == 3


def test_compressed_features_are_counted_too(tmp_path: Path) -> None:
    plain = write_features(tmp_path / "f.geojson", cells(37))
    packed = tmp_path / "f.geojson.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert count_outlines(plain, tmp_path / "f.png") == count_outlines(packed, tmp_path / "f.png") == 37


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x1f\x8bnonsense", b"PK\x03\x04nonsense", b"II*\x00nonsense"])
def test_what_cannot_be_read_counts_as_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f.zip").write_bytes(content)
    assert count_outlines(tmp_path / "f.zip", tmp_path / "f.png") == 1
    assert count_outlines(tmp_path / "none.zip", tmp_path / "f.png") == 1
