"""Parts of the mesh network that compute in eight bits, by module scope, grouped into blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx

from jotr_deploy.errors import BundleError

# Scope -> how many further parts of a node's scope name one block. Scopes in no row stay in float: heat maps,
# sampling points, regressors of coordinates, heads, pose prior, rotations, body; within the rows products of two
# activations, softmax and norms.
BLOCKS: Mapping[str, int] = {
    "backbone.conv1": 0,
    "backbone.heatmap_fusion": 0,
    "backbone.layer1": 1,
    "backbone.layer2": 1,
    "backbone.layer3": 1,
    "backbone.layer4": 1,
    "lifting.to_voxels": 0,
    "lifting.encoder.layers": 1,
    "fusion.down": 0,
    "fusion.encoder.layers": 1,
    "fusion.decoder.memory_kv": 0,
    "fusion.decoder.sampled_k": 1,
    "fusion.decoder.sampled_v": 1,
    "fusion.decoder.layers": 1,
}
_RESIDUAL = "backbone."  # the sums of the transformers are float, with the norms behind them
_WEIGHTED = ("Conv", "MatMul", "Gemm")


@dataclass(frozen=True)
class Chosen:
    """The nodes of one block: those with a weight, and the sums of residual branches."""

    weighted: tuple[onnx.NodeProto, ...]
    sums: tuple[onnx.NodeProto, ...]


def block_of(node: onnx.NodeProto) -> str | None:
    """The block a node belongs to by its scope, or None."""
    scope = node.name.rpartition("/")[0]
    for row, further in BLOCKS.items():
        if f"{scope}.".startswith(f"{row}."):
            parts = scope[len(row) :].split(".")[1 : 1 + further]
            return ".".join([row, *parts]) if len(parts) == further else None
    return None


def chosen_nodes(model: onnx.ModelProto) -> dict[str, Chosen]:
    """The nodes of every block, in the order of the graph.

    Raises:
        BundleError: a row of `BLOCKS` names no node, or the model is quantised already.
    """
    graph = model.graph
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in graph.node):
        raise BundleError("the network is quantised already", "calibrate the fp32 file: mesh.onnx of a fresh export")
    weights = {tensor.name for tensor in graph.initializer}
    found: dict[str, tuple[list[onnx.NodeProto], list[onnx.NodeProto]]] = {}
    for node in graph.node:
        block = block_of(node)
        if block is None:
            continue
        if node.op_type in _WEIGHTED and node.input[1] in weights:
            found.setdefault(block, ([], []))[0].append(node)
        elif node.op_type == "Add" and block.startswith(_RESIDUAL) and weights.isdisjoint(node.input):
            found.setdefault(block, ([], []))[1].append(node)
    _require_every_row(found)
    return {block: Chosen(tuple(weighted), tuple(sums)) for block, (weighted, sums) in found.items()}


def _require_every_row(blocks: Iterable[str]) -> None:
    found = list(blocks)
    lost = [row for row in BLOCKS if not any(f"{block}.".startswith(f"{row}.") for block in found)]
    if lost:
        raise BundleError(f"no node of {', '.join(lost)}: not a mesh network of this version", "export it again")
