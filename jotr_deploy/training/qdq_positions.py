"""Positions of the Q/DQ pairs of a calibrated network, read back from its file, by module of the fused network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from jotr_deploy.bundle import open_bundle
from jotr_deploy.engines.derived_files import calibrated
from jotr_deploy.model.checkpoint import Checkpoint
from jotr_deploy.support.precisions import Precision
from jotr_deploy.support.read_errors import read_onnx
from jotr_deploy.training.run_config import TrainingError

_WEIGHTED = ("Conv", "MatMul", "Gemm")


@dataclass(frozen=True)
class Pairs:
    """Scales around one module, None without a pair; a module with a weight stores it in int8 too."""

    before: float | None
    after: float | None
    largest_weight: float = 127.0  # code of the largest weight of a channel


Placement = Mapping[str, Pairs]
"""Pairs by module of `export.fused.fuse`; for a residual block, the pair is that of its sum."""


def read_placement(folder: Path, start: Checkpoint) -> Placement:
    """The placement of a bundle that was calibrated for int8.

    Args:
        folder: the bundle.
        start: the checkpoint it must have been exported from.

    Raises:
        BundleError: not an intact bundle, or not calibrated.
        TrainingError: of another network, or quantised differently from what `calibrate` does.
    """
    bundle = open_bundle(folder)
    path = calibrated(bundle, Precision.INT8)
    if bundle.manifest.source_sha256 != start.sha256:
        raise TrainingError(
            f"{folder}: exported from another checkpoint than {start.path}",
            f"make one: jotr-deploy export {start.path} -o BUNDLE, then jotr-deploy calibrate BUNDLE --synthetic 256",
        )
    return _Reader(read_onnx(path).graph, path).read()


class _Reader:
    """Reader of a graph that records which of its pairs are explained."""

    def __init__(self, graph: onnx.GraphProto, path: Path) -> None:
        self.graph, self.path = graph, path
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.producers = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.explained: set[str] = set()

    def read(self) -> Placement:
        found: dict[str, Pairs] = {}
        for node in self.graph.node:
            scope = node.name.rpartition("/")[0]
            if node.op_type in _WEIGHTED and self._stored(node):
                found[scope] = Pairs(self._scale(node.input[0]), self._after(node), self._largest_code(node))
            elif node.op_type == "Add" and all(self._quantizer(name) for name in node.input):
                scales = [scale for name in node.input if (scale := self._skipped(name)) is not None]
                found[scope] = Pairs(scales[0] if scales else None, self._after(node))
        pairs = {node.output[0] for node in self.graph.node if node.op_type == "QuantizeLinear"}
        for name in sorted(pairs - self.explained):
            raise self._differs(f"nothing that is known stands behind {name}")
        return found

    def _stored(self, node: onnx.NodeProto) -> bool:
        """True if the weight of a node is in int8, with a scale for each output channel."""
        weight = self.producers.get(node.input[1])
        if weight is None or weight.op_type != "DequantizeLinear" or weight.input[0] not in self.constants:
            return False
        scale, zero = (numpy_helper.to_array(self.constants[name]) for name in weight.input[1:3])
        if zero.dtype != np.int8 or zero.any() or scale.ndim != 1:
            raise self._differs(f"{weight.input[0]} is not symmetric int8 by channel")
        return True

    def _largest_code(self, node: onnx.NodeProto) -> float:
        """Code that the largest weight of every channel has: 127, or 63 in seven bits."""
        codes = numpy_helper.to_array(self.constants[self.producers[node.input[1]].input[0]])
        return float(np.abs(codes.astype(int)).max()) or Pairs.largest_weight

    def _quantizer(self, name: str) -> onnx.NodeProto | None:
        """First half of the pair that a tensor comes through."""
        second = self.producers.get(name)
        if second is None or second.op_type != "DequantizeLinear":
            return None
        return self.producers.get(second.input[0])

    def _scale(self, name: str) -> float | None:
        first = self._quantizer(name)
        return None if first is None else self._scale_of(first)

    def _scale_of(self, first: onnx.NodeProto) -> float:
        scale, zero = (numpy_helper.to_array(self.constants[name]) for name in first.input[1:3])
        if zero.dtype != np.int8 or zero.any() or scale.ndim:
            raise self._differs(f"{first.input[0]} is not symmetric int8 with one scale")
        self.explained.add(first.output[0])
        return float(scale)

    def _skipped(self, name: str) -> float | None:
        """Scale of the skip branch of a sum: the block's own input."""
        scale, first = self._scale(name), self._quantizer(name)
        source = None if first is None else self.producers.get(first.input[0])
        return None if source is not None and source.op_type == "Conv" else scale

    def _after(self, node: onnx.NodeProto) -> float | None:
        """Scale of the pair through which all readers read a result, after a ReLU that is its only reader."""
        behind = self.readers.get(node.output[0], [])
        if [reader.op_type for reader in behind] == ["Relu"]:
            behind = self.readers.get(behind[0].output[0], [])
        return self._scale_of(behind[0]) if [reader.op_type for reader in behind] == ["QuantizeLinear"] else None

    def _differs(self, what: str) -> TrainingError:
        return TrainingError(
            f"{self.path}: quantised differently from what can be trained ({what})",
            "calibrate again: jotr-deploy calibrate BUNDLE --synthetic 256",
        )
