"""Look-ups over a network for the rules: producer and readers of a tensor, its type, rank, and value if constant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from jotr_deploy.engines.tensorrt.onnx_copy import portable
from jotr_deploy.engines.tensorrt.versions import EVERY, Version, Versions

STANDARD = ("", "ai.onnx")

Problem = tuple[str, str]
"""Place in a network, and the problem there."""


@dataclass(frozen=True)
class Graph:
    """Look-ups over one model; types and ranks as far as they can be inferred."""

    model: onnx.ModelProto
    opset: int
    nodes: list[onnx.NodeProto]
    """Nodes of standard operators."""
    others: list[onnx.NodeProto]
    """Nodes of other domains."""
    types: dict[str, int]
    """`TensorProto` type of a tensor, by name."""
    ranks: dict[str, int]
    producers: dict[str, onnx.NodeProto]
    consumers: dict[str, list[onnx.NodeProto]]
    initializers: dict[str, onnx.TensorProto]
    ends: frozenset[str]
    """Names of the graph's inputs and outputs."""
    target: Version | None = None
    """The TensorRT that is to parse it; None is every version."""
    fixed_batch: bool = False
    """One number of rows is as good as any."""

    @classmethod
    def of(cls, model: onnx.ModelProto, target: Version | None = None, fixed_batch: bool = False) -> Graph:
        """Read a model.

        Raises:
            onnx.shape_inference.InferenceError: it is not valid.
        """
        inferred = onnx.shape_inference.infer_shapes(portable(model), strict_mode=True, data_prop=True).graph
        types, ranks = {}, {}
        for value in (*inferred.value_info, *inferred.input, *inferred.output):
            types[value.name] = value.type.tensor_type.elem_type
            if value.type.tensor_type.HasField("shape"):
                ranks[value.name] = len(value.type.tensor_type.shape.dim)
        for tensor in model.graph.initializer:
            types[tensor.name], ranks[tensor.name] = tensor.data_type, len(tensor.dims)
        consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                consumers.setdefault(name, []).append(node)
        return cls(
            model=model,
            opset=next((opset.version for opset in model.opset_import if opset.domain in STANDARD), 0),
            nodes=[node for node in model.graph.node if node.domain in STANDARD],
            others=[node for node in model.graph.node if node.domain not in STANDARD],
            types=types,
            ranks=ranks,
            producers={name: node for node in model.graph.node for name in node.output},
            consumers=consumers,
            initializers={tensor.name: tensor for tensor in model.graph.initializer},
            ends=frozenset(value.name for value in (*model.graph.input, *model.graph.output)),
            target=target,
            fixed_batch=fixed_batch,
        )

    def rank(self, name: str) -> int | None:
        """Number of dimensions of a tensor, if known."""
        return self.ranks.get(name)

    def constant(self, name: str) -> NDArray[Any] | None:
        """The value of an initializer or of a Constant node, else None."""
        if name in self.initializers:
            return onnx.numpy_helper.to_array(self.initializers[name])
        producer = self.producers.get(name)
        if producer is None or producer.op_type != "Constant":
            return None
        attribute = producer.attribute[0]
        if attribute.name == "value":
            return onnx.numpy_helper.to_array(attribute.t)
        return np.asarray(onnx.helper.get_attribute_value(attribute))

    @property
    def quantisers(self) -> list[onnx.NodeProto]:
        """Every QuantizeLinear and DequantizeLinear."""
        return [node for node in self.nodes if is_quantiser(node)]

    def where(self, node: onnx.NodeProto) -> str:
        """Name and operator of a node; an unnamed node is called by its first output."""
        return f"{node.name or node.output[0]} ({node.op_type})"


@dataclass(frozen=True)
class Rule:
    """One row of the table of rules."""

    name: str
    problems: Callable[[Graph], Iterator[Problem]]
    remedy: str
    versions: Versions = EVERY
    """Versions that it applies to."""

    def found(self, graph: Graph) -> Iterator[Problem]:
        """Problems of a network for its target; problems of some versions only name them."""
        if graph.target is None and self.versions.all:
            yield from self.problems(graph)
        elif graph.target is None and self.versions.any:
            yield from ((where, f"{problem} ({self.versions})") for where, problem in self.problems(graph))
        elif graph.target is not None and graph.target in self.versions:
            yield from self.problems(graph)


def is_quantiser(node: onnx.NodeProto) -> bool:
    """True for nodes that quantise or dequantise."""
    return node.op_type in ("QuantizeLinear", "DequantizeLinear")
