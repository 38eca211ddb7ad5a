"""Random and broken files through every parser: a sentence for a person, or a result, and nothing else."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from roifile import ROI_OPTIONS
from tests.data.outlines.rois import polygon
from tests.fuzzing import PARSERS, seeds_of, survives

JSON_PARSERS = ("geojson", "coco")
FEW = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

numbers = st.one_of(
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0, 1, -1, 2**31, 2**63, 10**400, True, None]),
)
texts = st.one_of(st.text(max_size=8), st.sampled_from(["", "\ud800", "\x00", "Polygon", "MultiPolygon", "../x"]))
values = st.recursive(
    st.one_of(numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=8,
)
# (kind, where as a share of the length, how far, byte)
edits = st.lists(
    st.tuples(
        st.sampled_from(["flip", "set", "cut", "drop", "double", "insert"]),
        st.floats(0, 1),
        st.integers(1, 40),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=6,
)


def edited(data: bytes, changes: list[tuple[str, float, int, int]]) -> bytes:
    """Break a file: turn a bit, set a byte, cut the end, leave out, repeat or insert bytes."""
    buffer = bytearray(data)
    for kind, share, length, byte in changes:
        at = min(int(share * len(buffer)), max(len(buffer) - 1, 0))
        if kind == "insert" or not buffer:
            buffer[at:at] = bytes([byte]) * length
        elif kind == "flip":
            buffer[at] ^= 1 << byte % 8
        elif kind == "set":
            buffer[at] = byte
        elif kind == "cut":
            del buffer[at:]
        elif kind == "drop":
            del buffer[at : at + length]
        else:
            buffer[at:at] = buffer[at : at + length]
    return bytes(buffer)


def places_of(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a tree of JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in items for place in [(value, key), *places_of(inner)]]


@pytest.mark.parametrize("parser", PARSERS)
def test_seeds_are_good_files(parser: str) -> None:
    for seed in seeds_of(parser):
        PARSERS[parser](seed)


@pytest.mark.parametrize("parser", PARSERS)
@FEW
@given(data=st.binary(max_size=200))
def test_random_bytes_are_refused_with_a_sentence(parser: str, data: bytes) -> None:
    survives(parser, data)
    survives(parser, seeds_of(parser)[0][:16] + data)


@pytest.mark.parametrize("parser", PARSERS)
@FEW
@given(which=st.integers(0, 100), changes=edits)
def test_broken_files_are_refused_with_a_sentence(
    parser: str, which: int, changes: list[tuple[str, float, int, int]]
) -> None:
    seeds = seeds_of(parser)
    survives(parser, edited(seeds[which % len(seeds)], changes))


@pytest.mark.parametrize("parser", JSON_PARSERS)
@settings(FEW, max_examples=150)
@given(which=st.integers(0, 100), changes=st.lists(st.tuples(st.integers(0, 10**6), values), min_size=1, max_size=3))
def test_files_of_the_wrong_structure_are_refused_with_a_sentence(
    parser: str, which: int, changes: list[tuple[int, Any]]
) -> None:
    seeds = seeds_of(parser)
    content = json.loads(seeds[which % len(seeds)])
    for number, value in changes:
        places = places_of(content)
        if places:
            container, key = places[number % len(places)]
            container[key] = value
    survives(parser, json.dumps(content).encode())


def narrow_spline() -> bytes:
    """A curve through four points, two of which are closer than numbers beside the others can tell."""
    options = ROI_OPTIONS.SPLINE_FIT | ROI_OPTIONS.SUB_PIXEL_RESOLUTION
    data = polygon([(0.5, 0), (9, 0), (9, 7.25), (5, 5)], options=options)
    return data.replace(struct.pack(">f", 7.25), struct.pack(">f", 1e-40))


# what libFuzzer found; each once ended in an exception that was no sentence
FOUND = {
    "rules longer than a path": ("class_map", ",".join(f"class {i}=c" for i in range(1000)).encode()),
    "a spline through one point twice": ("roi", narrow_spline()),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_is_refused_with_a_sentence(name: str) -> None:
    survives(*FOUND[name])


@pytest.mark.slow
def test_the_driver_of_libfuzzer_runs_and_names_its_parsers() -> None:
    pytest.importorskip("atheris")
    driver = Path(__file__).parents[3] / "tools" / "fuzz.py"
    run = subprocess.run([sys.executable, driver, "class_map", "-runs=20"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    assert "Done 20 runs" in run.stderr
    unknown = subprocess.run([sys.executable, driver, "pdf"], capture_output=True, text=True, check=False)
    assert unknown.returncode == 1
    assert "Parsers: geojson, roi" in unknown.stderr
