"""TensorRT's rules for quantised networks: explicit, symmetric Q/DQ pairs, where its fusions look for them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto

from jotr_deploy.engines.int8 import fp8_obstacle
from jotr_deploy.engines.tensorrt.graph import Graph, Problem, Rule

_QUANTISED = {TensorProto.INT8: "INT8", TensorProto.FLOAT8E4M3FN: "FP8"}
_COMPUTE = ("Conv", "ConvTranspose", "MatMul", "Gemm")
_MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")


def _types(graph: Graph) -> Iterator[Problem]:
    for node in graph.quantisers:
        kind = _quantised_type(graph, node)
        if kind == TensorProto.INT32:
            yield graph.where(node), "a quantised bias (INT32)"
        elif kind not in _QUANTISED:
            said = "without a zero point, which means UINT8" if len(node.input) < 3 else ""
            yield graph.where(node), f"quantised {said or 'to ' + TensorProto.DataType.Name(kind)}"


def _quantised_type(graph: Graph, node: onnx.NodeProto) -> int:
    if node.op_type == "DequantizeLinear":
        return graph.types.get(node.input[0], TensorProto.UNDEFINED)
    if len(node.input) > 2:
        return graph.types.get(node.input[2], TensorProto.UNDEFINED)
    wanted = [attribute.i for attribute in node.attribute if attribute.name == "output_dtype"]
    return wanted[0] if wanted else TensorProto.UINT8


def _one_kind(graph: Graph) -> Iterator[Problem]:
    kinds = {_quantised_type(graph, node) for node in graph.quantisers} & _QUANTISED.keys()
    if len(kinds) > 1:
        yield "the model", "INT8 and FP8 in one network"


def _symmetry(graph: Graph) -> Iterator[Problem]:
    for node in graph.quantisers:
        if len(node.input) < 3:
            continue
        zero, scale = graph.constant(node.input[2]), graph.constant(node.input[1])
        if zero is None:
            yield graph.where(node), "the zero point is computed"
        elif np.any(zero.astype(np.float32) != 0):
            yield graph.where(node), "the zero point is not 0"
        elif scale is not None and zero.size != scale.size:
            yield graph.where(node), f"{zero.size} zero points for {scale.size} scales"


def _scales(graph: Graph) -> Iterator[Problem]:
    for node in graph.quantisers:
        name = node.input[1]
        producer = graph.producers.get(name)
        scale = graph.constant(producer.input[0] if producer is not None and producer.op_type == "Cast" else name)
        if scale is None:
            yield graph.where(node), "the scale is computed"
        elif not np.all((values := scale.astype(np.float32)) > 0) or not np.all(np.isfinite(values)):
            yield graph.where(node), "a scale is not positive"


def _scale_types(graph: Graph) -> Iterator[Problem]:
    for node in graph.quantisers:
        scale = graph.types.get(node.input[1])
        if node.op_type == "QuantizeLinear":
            data = {graph.types.get(node.input[0])}
        else:
            readers = [reader for reader in graph.consumers.get(node.output[0], []) if reader.op_type in _COMPUTE]
            data = {graph.types.get(reader.output[0]) for reader in readers}
        for kind in data - {scale, None, TensorProto.UNDEFINED}:
            names = TensorProto.DataType.Name(scale or 0), TensorProto.DataType.Name(kind or 0)
            yield graph.where(node), f"a scale of type {names[0]} beside {names[1]}"


def _channels(graph: Graph) -> Iterator[Problem]:
    """Problems of scales: only weights may have several, one for each output channel."""
    for node in graph.quantisers:
        scale = graph.constant(node.input[1])
        if scale is None or scale.size == 1:
            continue
        source = _source(graph, node)
        weight = graph.constant(source)
        if weight is None:
            yield graph.where(node), f"{scale.size} scales on an activation"
            continue
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1) % weight.ndim
        expected = _channel_axis(graph, node, weight.ndim)
        if expected is not None and axis != expected:
            yield graph.where(node), f"scales along axis {axis}, the output channels are axis {expected}"
        elif scale.size != weight.shape[axis]:
            yield graph.where(node), f"{scale.size} scales for {weight.shape[axis]} channels"


def _source(graph: Graph, node: onnx.NodeProto) -> str:
    """Tensor that a quantiser starts from; for a DequantizeLinear, the input of its QuantizeLinear."""
    producer = graph.producers.get(node.input[0])
    through = producer is not None and producer.op_type == "QuantizeLinear"
    return str(producer.input[0] if through and producer is not None else node.input[0])


def _channel_axis(graph: Graph, node: onnx.NodeProto, rank: int) -> int | None:
    readers = graph.consumers.get(node.output[0], [])
    if readers and readers[0].op_type == "DequantizeLinear":
        readers = graph.consumers.get(readers[0].output[0], [])
    for reader in readers:
        if reader.op_type == "Conv":
            return 0
        if reader.op_type == "ConvTranspose":
            return 1
        if reader.op_type == "MatMul":
            return rank - 1
        if reader.op_type == "Gemm":
            return 0 if any(a.name == "transB" and a.i for a in reader.attribute) else 1
    return None


def _pairs(graph: Graph) -> Iterator[Problem]:
    for node in graph.quantisers:
        if node.op_type == "QuantizeLinear":
            readers = graph.consumers.get(node.output[0], [])
            if not readers or any(reader.op_type != "DequantizeLinear" for reader in readers):
                yield graph.where(node), "its result goes elsewhere than into DequantizeLinear"
        else:
            producer = graph.producers.get(node.input[0])
            made = producer is not None and producer.op_type == "QuantizeLinear"
            if not made and graph.constant(node.input[0]) is None:
                yield graph.where(node), "it reads neither a QuantizeLinear nor a constant"


def _placement(graph: Graph) -> Iterator[Problem]:
    for node in graph.nodes:
        quantised = [_dequantised(graph, name) for name in node.input[:2]]
        if node.op_type in _COMPUTE and len(quantised) == 2 and any(quantised) and not all(quantised):
            yield graph.where(node), "one operand is quantised, the other is not"
        if node.op_type == "Add" and all(quantised) and all(_source_is_computed(graph, name) for name in node.input):
            yield graph.where(node), "both branches of a sum are quantised"
        if node.op_type in ("BatchNormalization", "Relu") and quantised[0] and _follows_compute(graph, node.input[0]):
            yield graph.where(node), "quantised between a product and what is fused into it"


def _dequantised(graph: Graph, name: str) -> bool:
    producer = graph.producers.get(name)
    while producer is not None and producer.op_type in _MOVES:
        producer = graph.producers.get(producer.input[0])
    return producer is not None and producer.op_type == "DequantizeLinear"


def _source_is_computed(graph: Graph, name: str) -> bool:
    producer = graph.producers.get(name)
    if producer is None or producer.op_type != "DequantizeLinear":
        return False
    return _source(graph, producer) in graph.producers


def _follows_compute(graph: Graph, name: str) -> bool:
    producer = graph.producers.get(_source(graph, graph.producers[name])) if name in graph.producers else None
    return producer is not None and producer.op_type in _COMPUTE


def _fp8_kernels(graph: Graph) -> Iterator[Problem]:
    """Convolutions in FP8 for which there is no kernel."""
    for node in graph.nodes:
        if node.op_type != "Conv" or not _dequantised(graph, node.input[1]):
            continue
        pair = graph.producers[node.input[1]]
        while pair.op_type != "DequantizeLinear":
            pair = graph.producers[pair.input[0]]
        weight = graph.constant(_source(graph, pair))
        if graph.types.get(pair.input[0]) != TensorProto.FLOAT8E4M3FN or weight is None:
            continue
        if obstacle := fp8_obstacle(weight.shape):
            yield graph.where(node), f"an FP8 convolution of {obstacle}"


RULES: tuple[Rule, ...] = (
    Rule("quantised type", _types, "give an explicit int8 (or FP8 E4M3) zero point of 0 and leave biases in float"),
    Rule("one quantised type", _one_kind, "calibrate for one of them"),
    Rule("symmetry", _symmetry, "calibrate symmetrically: constant zero points of 0, one for each scale"),
    Rule("scales", _scales, "give positive scales as constants, with at most a Cast behind them"),
    Rule("scale types", _scale_types, "cast the scale to the type of the network around it"),
    Rule("fp8 kernels", _fp8_kernels, "leave this convolution in float, as build-engine does"),
    Rule("channels", _channels, "one scale for an activation, one for each output channel of a weight"),
    Rule("pairs", _pairs, "let DequantizeLinear follow QuantizeLinear directly"),
    Rule(
        "placement",
        _placement,
        "quantise both operands of a product, the skip branch alone of a sum, and nothing between a product and its "
        "norm and activation",
    ),
)
