"""Attention as ONNX Runtime's own fused operator, which avoids the transpositions between products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from jotr_deploy.engines.int8 import forget_unread

DOMAIN, OPERATOR = "com.microsoft", "MultiHeadAttention"
_BY_HEAD, _KEYS_BY_HEAD = [0, 2, 1, 3], [0, 2, 3, 1]
"""Permutations of (batch, tokens, heads, depth) for a product, keys as its second factor."""


def fuse_attention(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy of a model with every attention that `export_onnx` wrote, from splitting to joining heads, in one node.

    Equal but for rounding. The scale of the scores is in the weights of the queries already.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    made_by = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if len(tensor.dims) == 1}
    fused = [_fused(node, made_by, constants) or node for node in graph.node]
    for node in fused:
        if node.domain == DOMAIN:  # shape inference outside ONNX Runtime does not know its results
            shape = ["batch", *constants[made_by[node.output[0]].input[1]][1:].tolist()]
            graph.value_info.append(helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, shape))
    del graph.node[:]
    graph.node.extend(fused)
    forget_unread(graph)
    changed.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    onnx.checker.check_model(changed, full_check=True)
    return changed


def _fused(
    last: onnx.NodeProto, made_by: Mapping[str, onnx.NodeProto], constants: Mapping[str, NDArray[Any]]
) -> onnx.NodeProto | None:
    """Nodes that replace the attention ending in this node; None if it ends none."""

    def inputs_of(name: str, kind: str, perm: Sequence[int] | None = None) -> Sequence[str]:
        node = made_by[name]
        if node.op_type != kind or (perm is not None and list(node.attribute[0].ints) != perm):
            raise KeyError(name)
        return node.input

    def heads(name: str, perm: Sequence[int]) -> tuple[str, NDArray[Any]]:
        whole, shape = inputs_of(inputs_of(name, "Transpose", perm)[0], "Reshape")
        return whole, constants[shape]

    try:
        joined, _ = inputs_of(last.output[0], "Reshape")
        weights, values = inputs_of(inputs_of(joined, "Transpose", _BY_HEAD)[0], "MatMul")
        queries, keys = inputs_of(inputs_of(weights, "Softmax")[0], "MatMul")
        (query, shape), (key, _), (value, _) = (
            heads(queries, _BY_HEAD),
            heads(keys, _KEYS_BY_HEAD),
            heads(values, _BY_HEAD),
        )
    except (KeyError, IndexError):
        return None
    scope = made_by[weights].name.rpartition("/")[0]
    return helper.make_node(
        OPERATOR, [query, key, value], last.output, f"{scope}/{OPERATOR}",
        domain=DOMAIN, num_heads=int(shape[2]), scale=1.0,
    )  # fmt: skip
