"""Eight-bit integers in place of floats: static quantisation after training, and the guard that refuses it.

Weights get one scale per filter, activations one per layer, from what a few training cells make of them. Pixels, the
first layer and what lies between features and logits stay in floats. Small convolutional networks bear
that; transformers often do not (the published study's successors measured a ViT whose classes agreed on 62 % of cells
while its AUC hid it), so every network is asked about held-out cells before anything is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perikarya.errors import RunError
from perikarya.predict.backends import INPUT
from perikarya.predict.graphs import OUTPUTS, quiet

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

    from perikarya.predict.agreement import Compared

MIN_SAME_CLASS = 0.99  # of held-out cells, int8 beside fp32
N_CALIBRATION = 128  # training cells; extremes of activations settle soon
N_HELD_OUT = 1000  # cells, where the run has as many: one in a hundred must be seen
_BATCH = 16


def write_int8(fp32: Path, int8: Path, crops_nhwc: NDArray[np.uint8]) -> None:
    """Quantise an ONNX file of ``graphs.write_onnx``.

    Parameters
    ----------
    fp32, int8
        The file that is read and the one that is written.
    crops_nhwc
        Shape (n, input_px, input_px, 4): training cells whose activations decide on the scales.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    graph = onnx.load(fp32)
    with quiet():
        quantize_static(
            graph,
            int8,
            _reader(crops_nhwc),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,  # 7 bits of weight: sums of products must not overflow on processors without VNNI
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_kept_in_floats(graph),
            calibrate_method=CalibrationMethod.MinMax,
        )


def refuse_changed_classes(found: Compared, *, network: str) -> None:
    """Raise ``RunError`` where a quantised network names other classes than the network it was made from."""
    if found.same_class < MIN_SAME_CLASS:
        raise RunError(
            f"In int8, {network} gives the same class as in fp32 on {100 * found.same_class:.1f} % of {found.cells} "
            f"held-out cells; less than {100 * MIN_SAME_CLASS:g} % is refused, and nothing was written.\n"
            "Its scores were measured in fp32 and would not hold. Fix: --precision fp32."
        )


def _reader(crops_nhwc: NDArray[np.uint8]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Hands out cells in batches."""

        def __init__(self) -> None:
            self.batches = _batches(crops_nhwc)

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            """Return the next batch by the name of the input, or None after the last."""
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch}

    return Reader()


def _batches(crops_nhwc: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(crops_nhwc), _BATCH):
        yield np.ascontiguousarray(crops_nhwc[start : start + _BATCH])


def _kept_in_floats(model: ModelProto) -> list[str]:
    """Return the names of the nodes before the first layer, of that layer, and of those after the features."""
    graph = model.graph
    logits, features = (_ancestors(graph, [name]) for name in OUTPUTS)
    first = next(node for node in graph.node if node.op_type == "Conv")
    return sorted((logits - features) | _ancestors(graph, first.output))


def _ancestors(graph: GraphProto, wanted: Sequence[str]) -> set[str]:
    """Return the names of all nodes that some tensors are computed by."""
    made_by = {name: node for node in graph.node for name in node.output}
    found: set[str] = set()
    open_names = list(wanted)
    while open_names:
        node = made_by.get(open_names.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            open_names.extend(node.input)
    return found
