"""TFLite files parsed into shapes, constants and operators in execution order.

Field numbers are those of TensorFlow's `schema.fbs`, version 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from jotr_deploy.support.aliases import Array
from jotr_deploy.third_party.flatbuffer import Damaged, Table, root

OPERATORS = {
    0: "ADD", 2: "CONCATENATION", 3: "CONV_2D", 4: "DEPTHWISE_CONV_2D", 5: "DEPTH_TO_SPACE", 6: "DEQUANTIZE",
    14: "LOGISTIC", 17: "MAX_POOL_2D", 22: "RESHAPE", 23: "RESIZE_BILINEAR", 34: "PAD", 124: "DENSIFY",
}  # fmt: skip
"""Operators that `to_onnx` supports, by operator code."""
_TYPES = {0: np.float32, 1: np.float16, 2: np.int32}
_INDEX_TYPES = {1: np.int32, 2: np.uint16, 3: np.uint8}
_DENSE, _CSR = 0, 1


class Unsupported(ValueError):
    """Feature of a valid file that the converter does not support."""


@dataclass(frozen=True)
class Tensor:
    """Tensor of the network, with its values if it is a constant."""

    name: str
    shape: tuple[int, ...]
    constant: Array | None  # dense


@dataclass(frozen=True)
class Operator:
    """One step: indices of the tensors it reads and writes; options are read by field number."""

    kind: str
    inputs: tuple[int, ...]  # -1 for an omitted input
    outputs: tuple[int, ...]
    options: Table | None

    def option(self, field: int, kind: str = "b", default: int = 0) -> int:
        """Scalar option; `kind` is its format character in `struct`."""
        return default if self.options is None else self.options.number(field, kind, default)


@dataclass(frozen=True)
class Network:
    """A TFLite network with one subgraph."""

    tensors: list[Tensor]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: list[Operator]


def read_tflite(data: bytes) -> Network:
    """Read a TFLite file.

    Raises:
        Damaged: not a TFLite file, or truncated.
        Unsupported: several subgraphs, a quantised tensor, or an unsupported type, operator or sparse layout.
    """
    if data[4:8] != b"TFL3":
        raise Damaged("it does not begin like a TFLite file")
    model = root(data)
    subgraphs = model.tables(2)
    if len(subgraphs) != 1:
        raise Unsupported(f"{len(subgraphs)} subgraphs")
    graph, buffers = subgraphs[0], model.tables(4)
    # Codes below 127 are stored in the old one-byte field as well, or only there.
    codes = [max(code.number(0, "b"), code.number(3, "i")) for code in model.tables(1)]
    tensors = [_tensor(table, buffers) for table in graph.tables(0)]
    operators = [_operator(table, codes, len(tensors)) for table in graph.tables(3)]
    return Network(tensors, _indices(graph, 1, len(tensors)), _indices(graph, 2, len(tensors)), operators)


def _tensor(table: Table, buffers: list[Table]) -> Tensor:
    name = table.text(3)
    shape = tuple(int(size) for size in table.vector(0, np.int32))
    quantised, kind = table.table(4), table.number(1, "b")
    if kind not in _TYPES or (quantised is not None and len(quantised.vector(2, np.float32))):
        raise Unsupported(f"tensor {name!r} of type {kind} or quantised")
    number = table.number(2, "I")
    if number >= len(buffers) or min(shape, default=0) < 0:
        raise Damaged(f"tensor {name!r} has no buffer {number}, or shape {shape}")
    raw = buffers[number].bytes(0)
    if not raw:
        return Tensor(name, shape, None)
    if len(raw) % np.dtype(_TYPES[kind]).itemsize:
        raise Damaged(f"tensor {name!r} ends within a number")
    values: Array = np.frombuffer(raw, _TYPES[kind])
    sparsity = table.table(6)
    if sparsity is not None:
        return Tensor(name, shape, _dense(sparsity, values, shape, name))
    if values.size != math.prod(shape):
        raise Damaged(f"tensor {name!r} has {values.size} values, which do not fit {shape}")
    return Tensor(name, shape, values.reshape(shape))


def _dense(sparsity: Table, values: Array, shape: tuple[int, ...], name: str) -> Array:
    """Dense form of sparse weights: last dimension compressed (CSR), the others dense, no blocks."""
    dimensions = sparsity.tables(2)
    kinds = [dimension.number(0, "b") for dimension in dimensions]
    in_order = sparsity.vector(0, np.int32).tolist() == list(range(len(shape)))
    if not in_order or len(sparsity.vector(1, np.int32)) or kinds != [_DENSE] * (len(shape) - 1) + [_CSR]:
        raise Unsupported(f"tensor {name!r} with this layout of sparse weights")
    segments, columns = _index_vector(dimensions[-1], 2), _index_vector(dimensions[-1], 4)
    rows = math.prod(shape[:-1])
    counts = np.diff(segments)
    if (
        len(segments) != rows + 1
        or segments[0] != 0
        or (counts < 0).any()
        or not segments[-1] == len(columns) == len(values)
        or (len(columns) and not 0 <= columns.min() <= columns.max() < shape[-1])
    ):
        raise Damaged(f"tensor {name!r}: sparse weights that do not fit its shape {shape}")
    dense = np.zeros((rows, shape[-1]), values.dtype)
    dense[np.repeat(np.arange(rows), counts), columns] = values
    return dense.reshape(shape)


def _index_vector(dimension: Table, field: int) -> Array:
    kind, table = dimension.number(field, "B"), dimension.table(field + 1)
    if kind not in _INDEX_TYPES or table is None:
        raise Unsupported(f"sparse indices of type {kind}")
    return table.vector(0, _INDEX_TYPES[kind]).astype(np.int64)


def _operator(table: Table, codes: list[int], tensors: int) -> Operator:
    number = table.number(0, "I")
    if number >= len(codes):
        raise Damaged(f"an operator has no code {number}")
    if codes[number] not in OPERATORS:
        raise Unsupported(f"operator {codes[number]}")
    inputs, outputs = _indices(table, 1, tensors), _indices(table, 2, tensors)
    if not inputs or len(outputs) != 1:
        raise Damaged(f"{OPERATORS[codes[number]]} with {len(inputs)} inputs and {len(outputs)} outputs")
    return Operator(OPERATORS[codes[number]], inputs, outputs, table.table(4))


def _indices(table: Table, field: int, count: int) -> tuple[int, ...]:
    found = tuple(int(index) for index in table.vector(field, np.int32))
    if any(not -1 <= index < count for index in found):
        raise Damaged("an operator refers to a missing tensor")
    return found
