"""Explicit quantisation: a copy of a float32 network with symmetric Q/DQ pairs around the chosen blocks.

One file for every engine. A weight is stored in eight bits with a scale for each output channel; an activation has one
scale. A convolution, its folded norm and its ReLU stay together: the pair stands behind the last of them. Biases stay
float32.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from jotr_deploy.calibration.eight_bit_formats import INT8, NARROW_INT8, Codes
from jotr_deploy.calibration.placement import Chosen, chosen_nodes
from jotr_deploy.engines.int8 import forget_unread
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.processor import WEIGHT_BITS


@dataclass(frozen=True)
class Sites:
    """Positions of the Q/DQ pairs of a set of blocks."""

    inputs: Mapping[tuple[str, int], str]  # (node, slot) that reads through a pair -> tensor
    results: Collection[str]  # tensors that all readers read through the pair

    @property
    def tensors(self) -> tuple[str, ...]:
        """Every quantised activation, each once, in the order of the graph."""
        return tuple(dict.fromkeys([*self.inputs.values(), *self.results]))


def sites(
    model: onnx.ModelProto, blocks: Collection[str] | None = None, nodes: Mapping[str, Chosen] | None = None
) -> Sites:
    """Positions of the Q/DQ pairs for these blocks, by default all; of `nodes`, by default those of the mesh network.

    Raises:
        BundleError: see `placement.chosen_nodes`.
    """
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    inputs: dict[tuple[str, int], str] = {}
    results: dict[str, None] = {}
    for block, chosen in (chosen_nodes(model) if nodes is None else nodes).items():
        if blocks is not None and block not in blocks:
            continue
        for node in chosen.weighted:
            inputs[node.name, 0] = node.input[0]
            if node.op_type == "Conv":
                results[_result(node, readers)] = None
        for node in chosen.sums:
            inputs.update({(node.name, slot): name for slot, name in enumerate(node.input)})
            results[_result(node, readers)] = None
    return Sites(inputs, tuple(results))


def _result(node: onnx.NodeProto, readers: Mapping[str, list[onnx.NodeProto]]) -> str:
    """Result of a node, after the ReLU if that is its only reader."""
    behind = readers.get(node.output[0], [])
    return str(behind[0].output[0] if len(behind) == 1 and behind[0].op_type == "Relu" else node.output[0])


def quantize(
    model: onnx.ModelProto,
    largest: Mapping[str, float],
    blocks: Collection[str],
    codes: Codes = INT8,
    nodes: Mapping[str, Chosen] | None = None,
) -> onnx.ModelProto:
    """Copy of a network with these blocks in eight bits; checked, and deterministic to the byte.

    Args:
        model: the fp32 network as `export_onnx` gives it, its weights float32.
        largest: absolute value of each of `sites(model, blocks).tensors` that the largest code stands for.
        blocks: of `placement.chosen_nodes`, or of `nodes`.
        codes: the 8-bit type.
        nodes: blocks of another network than the mesh network.
    """
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    nodes = chosen_nodes(model) if nodes is None else nodes
    _Writer(quantized.graph, sites(model, blocks, nodes), largest, codes).write(nodes, blocks)
    if codes == NARROW_INT8:
        kept = {each.key: each.value for each in quantized.metadata_props}
        helper.set_model_props(quantized, {**kept, WEIGHT_BITS: "7"})
    onnx.checker.check_model(quantized, full_check=True)
    return quantized


class _Writer:
    """Rewrites a graph in place."""

    def __init__(self, graph: onnx.GraphProto, where: Sites, largest: Mapping[str, float], codes: Codes) -> None:
        self.graph, self.where, self.largest, self.codes = graph, where, largest, codes
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.pairs: dict[str, str] = {}  # activation -> its dequantised name
        self.stored: set[str] = set()

    def write(self, chosen: Mapping[str, Chosen], blocks: Collection[str]) -> None:
        """Rewrite every node to read through pairs and stored weights where needed."""
        names = {node.name for block in blocks for node in chosen[block].weighted}
        nodes = list(self.graph.node)
        del self.graph.node[:]
        for node in nodes:
            for slot, name in enumerate(node.input):
                if (node.name, slot) in self.where.inputs or name in self.where.results:
                    node.input[slot] = self._pair(name, node.name)
            if node.name in names:
                node.input[1] = self._weight(node)
            self.graph.node.append(node)
        forget_unread(self.graph)

    def _pair(self, name: str, reader: str) -> str:
        """The dequantised form of an activation; its pair is written before the first reader."""
        if name not in self.pairs:
            amount = self.largest[name]
            scales = self._constants(name, np.array(amount / self.codes.largest if amount > 0 else 1.0, np.float32))
            label = reader.rpartition("/")[0]
            codes, self.pairs[name] = f"{name}.{self.codes.name}", f"{name}.dequantized"
            self.graph.node.append(
                helper.make_node("QuantizeLinear", [name, *scales], [codes], f"{label}/QuantizeLinear({name})")
            )
            self.graph.node.append(
                helper.make_node(
                    "DequantizeLinear", [codes, *scales], [self.pairs[name]], f"{label}/DequantizeLinear({name})"
                )
            )
        return self.pairs[name]

    def _weight(self, node: onnx.NodeProto) -> str:
        """The dequantised form of a weight, stored in eight bits with a scale for each output channel."""
        name = node.input[1]
        dequantized = f"{name}.dequantized"
        if name not in self.stored:
            self.stored.add(name)
            axis = channel_axis(node)
            values, scale = quantized_weight(numpy_helper.to_array(self.weights[name]), axis, self.codes)
            scales, stored = self._constants(name, scale), f"{name}.{self.codes.name}"
            self.graph.initializer.append(numpy_helper.from_array(values, stored))
            label = f"{node.name.rpartition('/')[0]}/DequantizeLinear({name})"
            self.graph.node.append(
                helper.make_node("DequantizeLinear", [stored, *scales], [dequantized], label, axis=axis)
            )
        return dequantized

    def _constants(self, name: str, scale: Array) -> tuple[str, str]:
        """A scale and the zero point that belongs to it, in the graph; their names."""
        scales = f"{name}.scale", f"{name}.zero_point"
        for label, value in zip(scales, (scale, np.zeros(scale.shape, self.codes.dtype)), strict=True):
            self.graph.initializer.append(numpy_helper.from_array(value, label))
        return scales


def channel_axis(node: onnx.NodeProto) -> int:
    """The axis of a node's weight that counts output channels."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if any(attribute.name == "transB" and attribute.i for attribute in node.attribute) else 1
    return 1


def quantized_weight(weight: Array, axis: int, codes: Codes = INT8) -> tuple[Array, Array]:
    """A float weight -> codes of the same shape and a float32 scale for each channel; codes * scale ~ weight."""
    others = tuple(a for a in range(weight.ndim) if a != axis)
    largest = np.abs(weight).max(others, initial=0)
    scale = np.where(largest > 0, largest / codes.largest_weight, 1).astype(np.float32)
    shape = [-1 if a == axis else 1 for a in range(weight.ndim)]
    return codes.nearest(weight / scale.reshape(shape)), scale
