"""Attention as one node: ONNX Runtime's own fused operator, or ONNX's, which TensorRT fuses by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from jotr_deploy.engines.int8 import forget_unread

DOMAIN, OPERATOR = "com.microsoft", "MultiHeadAttention"
ATTENTION_OPSET = 23
"""The first opset of ONNX with `Attention`."""

_BY_HEAD, _KEYS_BY_HEAD = [0, 2, 1, 3], [0, 2, 3, 1]
"""Permutations of (batch, tokens, heads, depth) for a product, keys as its second factor."""


def fuse_attention(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy of a model with every attention that `export_onnx` wrote, from splitting to joining heads, in one node.

    Equal but for rounding. The scale of the scores is in the weights of the queries already.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    for name, shape in _replace(graph, OPERATOR, DOMAIN, lambda heads: {"num_heads": heads}).items():
        # Shape inference outside ONNX Runtime does not know the results.
        graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape]))
    changed.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    onnx.checker.check_model(changed, full_check=True)
    return changed


def standard_attention(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy of a model with every attention, of any precision, in one node `Attention` of ONNX, in opset 23.

    No operator that `export_onnx` writes changed its meaning between its opset and this one.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    _replace(changed.graph, "Attention", "", lambda heads: {"q_num_heads": heads, "kv_num_heads": heads})
    del changed.graph.value_info[:]
    for holder in (changed, *changed.functions):
        for imported in holder.opset_import:
            if imported.domain == "":
                imported.version = ATTENTION_OPSET
    onnx.checker.check_model(changed, full_check=True)
    return changed


def _replace(
    graph: onnx.GraphProto, operator: str, domain: str, attributes: Callable[[int], dict[str, int]]
) -> dict[str, list[int]]:
    """Replace every attention by one node; their results, and the shapes behind the batch."""
    made_by = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if len(tensor.dims) == 1}
    nodes, results = [], {}
    for node in graph.node:
        found = _attention(node, made_by, constants)
        nodes.append(node)
        if found is not None:
            scope, inputs, heads = found
            nodes[-1] = helper.make_node(
                operator, inputs, node.output, f"{scope}/{operator}", domain=domain, scale=1.0, **attributes(heads)
            )
            results[node.output[0]] = constants[node.input[1]][1:].tolist()
    del graph.node[:]
    graph.node.extend(nodes)
    forget_unread(graph)
    return results


def _attention(
    last: onnx.NodeProto, made_by: Mapping[str, onnx.NodeProto], constants: Mapping[str, NDArray[Any]]
) -> tuple[str, list[str], int] | None:
    """Scope, queries, keys and values, and number of heads of the attention ending in this node; None if none does."""

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
    return made_by[weights].name.rpartition("/")[0], [query, key, value], int(shape[2])
