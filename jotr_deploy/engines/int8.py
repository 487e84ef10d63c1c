"""Forms of the 8-bit network that each engine can fuse, made from the portable file with the same scales."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from jotr_deploy.support.aliases import Array

_ZERO, _MIDDLE = np.uint8(0), np.uint8(128)


def for_cpu(model: onnx.ModelProto) -> onnx.ModelProto:
    """Form with unsigned activations and int32 biases, as the integer kernels of CPUs expect.

    With signed activations ONNX Runtime is no faster than in float32, and OpenVINO 2026.4 computes a convolution of 62
    channels wrongly (seen on AVX-512). An activation that a ReLU made has zero point 0 and keeps its scale, so that the
    ReLU becomes a part of the rounding; all others have 128, which is the same grid as before.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    activations = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    for node in activations:
        source = producers.get(node.input[0])
        zero = _ZERO if source is not None and source.op_type == "Relu" else _MIDDLE
        constants[node.input[2]].CopyFrom(numpy_helper.from_array(np.asarray(zero), node.input[2]))
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.op_type == "Conv" and len(node.input) > 2 and node.input[2] in constants:
            data, weight = (producers.get(name) for name in node.input[:2])
            if data is not None and weight is not None and data.op_type == weight.op_type == "DequantizeLinear":
                scales = [numpy_helper.to_array(constants[pair.input[1]]) for pair in (data, weight)]
                graph.node.append(_integer_bias(graph, node, constants, scales[0] * scales[1]))
        graph.node.append(node)
    forget_unread(graph)
    onnx.checker.check_model(changed, full_check=True)
    return changed


def _integer_bias(
    graph: onnx.GraphProto, node: onnx.NodeProto, constants: dict[str, TensorProto], scale: Array
) -> onnx.NodeProto:
    """Store a convolution's bias as int32 in units of its products; returns the node that dequantises it."""
    name = node.input[2]
    limit = float(np.iinfo(np.int32).max // 2)
    codes = np.clip(np.rint(numpy_helper.to_array(constants[name]) / scale.astype(np.float64)), -limit, limit)
    zero = np.zeros(codes.shape, np.int32)
    values = {"int32": codes.astype(np.int32), "scale": scale.astype(np.float32), "zero_point": zero}
    inputs = [f"{name}.{part}" for part in values]
    graph.initializer.extend(map(numpy_helper.from_array, values.values(), inputs))
    node.input[2] = f"{name}.dequantized"
    label = f"{node.name.rpartition('/')[0]}/DequantizeLinear({name})"
    return helper.make_node("DequantizeLinear", inputs, [node.input[2]], label, axis=0)


def for_tensorrt(model: onnx.ModelProto) -> onnx.ModelProto:
    """Form with Q/DQ pairs only where TensorRT can fuse them: before 8-bit products, and on the skip branch of a sum.

    Without the pair between a convolution and the sum behind it the two, and the ReLU, become one kernel. Products that
    stayed in float read what is in float, and so do convolutions that have no kernel in FP8.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    producers = {name: node for node in graph.node for name in node.output}
    without_kernel = _without_fp8_kernel(graph, producers)
    for node in graph.node:
        direct = None
        if node.op_type == "Add":
            sources = [_convolution(name, producers) for name in node.input]
            direct = next((slot for slot, name in enumerate(sources) if name and name not in without_kernel), None)
        whole = node.op_type in _PRODUCTS and all(_dequantized(name, producers) for name in node.input[:2])
        whole = whole and node.name not in without_kernel
        for slot, name in enumerate(node.input):
            if not _dequantized(name, producers) or producers[name].input[0] not in producers:
                continue
            skipped = node.op_type == "Add" and direct is not None and slot != direct
            if not (whole or skipped or node.op_type in _PAIR):
                node.input[slot] = producers[producers[name].input[0]].input[0]
        if node.name in without_kernel:
            node.input[1] = _widened(graph, producers[node.input[1]])
    forget_unread(graph)
    onnx.checker.check_model(changed, full_check=True)
    return changed


def fp8_obstacle(weight: Sequence[int]) -> str | None:
    """The reason why TensorRT has no FP8 kernel for a convolution with a weight of this shape; None if it has one.

    These are the limits by which NVIDIA's own quantiser leaves convolutions out. An engine does not fall back to
    another type: it is not built.
    """
    outputs, inputs, *taps = weight
    if min(outputs, inputs) < 16:
        return f"{min(outputs, inputs)} channels, FP8 takes 16 or more"
    if outputs % 16 != inputs % 16:
        return f"{inputs} and {outputs} channels, which cannot be padded alike to multiples of 16"
    return f"{math.prod(taps)} taps, FP8 takes 32 or fewer" if math.prod(taps) > 32 else None


def _without_fp8_kernel(graph: onnx.GraphProto, producers: Mapping[str, onnx.NodeProto]) -> set[str]:
    """Names of the convolutions whose weight is stored in FP8 although there is no kernel for it."""
    stored = {t.name: t for t in graph.initializer if t.data_type == TensorProto.FLOAT8E4M3FN}
    found = set()
    for node in graph.node:
        if node.op_type == "Conv" and _dequantized(node.input[1], producers):
            weight = stored.get(producers[node.input[1]].input[0])
            if weight is not None and fp8_obstacle(weight.dims):
                found.add(node.name)
    return found


def _widened(graph: onnx.GraphProto, node: onnx.NodeProto) -> str:
    """Put the values that a DequantizeLinear gives into the graph as a float weight; its name."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    codes, scale = (numpy_helper.to_array(constants[name]).astype(np.float32) for name in node.input[:2])
    name = f"{node.output[0]}.float"
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
    values = codes * scale.reshape([-1 if dim == axis else 1 for dim in range(codes.ndim)])
    graph.initializer.append(numpy_helper.from_array(values, name))
    return name


_PRODUCTS, _PAIR = ("Conv", "MatMul", "Gemm"), ("QuantizeLinear", "DequantizeLinear")


def _dequantized(name: str, producers: Mapping[str, onnx.NodeProto]) -> bool:
    return name in producers and producers[name].op_type == "DequantizeLinear"


def _convolution(name: str, producers: dict[str, onnx.NodeProto]) -> str | None:
    """Name of the convolution that a dequantised tensor comes straight from."""
    if not _dequantized(name, producers) or producers[name].input[0] not in producers:
        return None
    source = producers.get(producers[producers[name].input[0]].input[0])
    return source.name if source is not None and source.op_type == "Conv" else None


def forget_unread(graph: onnx.GraphProto) -> None:
    """Remove nodes and constants from which no path leads to an output."""
    wanted = {value.name for value in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            nodes.append(node)
    constants = [tensor for tensor in graph.initializer if tensor.name in wanted]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(nodes))
    graph.initializer.extend(constants)
