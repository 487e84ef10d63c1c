"""Weights stored as float16 and computed as float32: half the file, the same network to three digits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LEAST_ELEMENTS = 512
"""Arrays smaller than this are not worth an extra node."""


def halve_weights(
    model: onnx.ModelProto, chosen: Callable[[TensorProto], bool] = lambda weight: True
) -> onnx.ModelProto:
    """A copy of a model whose larger float32 initialisers are float16, each followed by a Cast to float32.

    ONNX Runtime folds the casts when it loads the file, so nothing is slower. Each value is rounded to the nearest
    float16. An array with a value beyond its range, 65504, stays as it is, as does one that is also an input.

    Args:
        model: left unchanged.
        chosen: predicate on initialisers of at least `LEAST_ELEMENTS`; excludes those that must stay exact.
    """
    halved = onnx.ModelProto()
    halved.CopyFrom(model)
    graph = halved.graph
    inputs, casts = {value.name for value in graph.input}, []
    for weight in graph.initializer:
        if weight.data_type != TensorProto.FLOAT or weight.name in inputs or not chosen(weight):
            continue
        values = numpy_helper.to_array(weight)
        if values.size < LEAST_ELEMENTS or not (np.abs(values) <= np.finfo(np.float16).max).all():
            continue
        name, stored = weight.name, f"{weight.name}.float16"
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [name], f"{name}/Cast", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return halved


def widen_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The reverse: a copy of a model whose float16 weights, each cast to float32, are stored as float32."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    graph = wide.graph
    halves = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    casts = [node for node in graph.node if node.op_type == "Cast" and node.input[0] in halves]
    for node in casts:
        weight, name = halves[node.input[0]], node.output[0]
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float32), name))
        graph.node.remove(node)
    return wide
