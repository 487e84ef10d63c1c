"""Tiny TFLite files, written by hand: what a test needs of `schema.fbs`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np

CODES = {"ADD": 0, "CONCATENATION": 2, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 4, "DEPTH_TO_SPACE": 5, "DEQUANTIZE": 6,
         "LOGISTIC": 14, "MAX_POOL_2D": 17, "RESHAPE": 22, "RESIZE_BILINEAR": 23, "PAD": 34, "DENSIFY": 124,
         "SOFTMAX": 25}  # fmt: skip
TYPES = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, np.dtype(np.int32): 2, np.dtype(np.uint8): 3}
Options = dict[int, tuple[str, int]]
"""Field number to the letter of its type ("b", "i") and its value."""


@dataclass
class Sparse:
    """A matrix whose last dimension is compressed."""

    values: np.ndarray
    segments: list[int]
    columns: list[int]


@dataclass
class Tiny:
    """Collects tensors and operators; `data()` is the file."""

    tensors: list[tuple[str, tuple[int, ...], Any, Any]] = field(default_factory=list)
    operators: list[tuple[str, list[int], int, Options]] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)

    def value(self, shape: tuple[int, ...], name: str = "", dtype: Any = np.float32) -> int:
        """A tensor that is computed."""
        self.tensors.append((name or f"v{len(self.tensors)}", shape, np.dtype(dtype), None))
        return len(self.tensors) - 1

    def input(self, shape: tuple[int, ...]) -> int:
        self.inputs.append(self.value(shape, "input"))
        return self.inputs[-1]

    def constant(self, array: Any, shape: tuple[int, ...] | None = None) -> int:
        values = array.values if isinstance(array, Sparse) else np.asarray(array)
        self.tensors.append((f"c{len(self.tensors)}", shape or values.shape, values.dtype, array))
        return len(self.tensors) - 1

    def step(
        self, kind: str, inputs: list[int], shape: tuple[int, ...], options: Options | None = None, name: str = ""
    ) -> int:
        """An operator; returns the tensor it makes."""
        made = self.value(shape, name)
        self.operators.append((kind, inputs, made, options or {}))
        return made

    def data(self) -> bytes:
        b = flatbuffers.Builder(1024)
        kinds = sorted({kind for kind, *_ in self.operators})
        buffers = [_buffer(b, None), *(_buffer(b, array) for *_, array in self.tensors)]
        tensors = [_tensor(b, k + 1, *tensor) for k, tensor in enumerate(self.tensors)]
        operators = [
            _table(b, {0: ("I", kinds.index(kind)), 1: _ints(b, inputs), 2: _ints(b, [output]), 4: _table(b, options)})
            for kind, inputs, output, options in self.operators
        ]
        graph = _table(b, {0: _offsets(b, tensors), 1: _ints(b, self.inputs), 2: _ints(b, self.outputs),
                           3: _offsets(b, operators)})  # fmt: skip
        codes = [_table(b, {0: ("b", min(CODES[kind], 127)), 3: ("i", CODES[kind])}) for kind in kinds]
        model = _table(b, {0: ("I", 3), 1: _offsets(b, codes), 2: _offsets(b, [graph]), 4: _offsets(b, buffers)})
        b.Finish(model, b"TFL3")
        return bytes(b.Output())


def _buffer(b: Any, array: Any) -> int:
    values = array.values if isinstance(array, Sparse) else array
    return _table(b, {} if values is None else {0: b.CreateByteVector(np.ascontiguousarray(values).tobytes())})


def _tensor(b: Any, buffer: int, name: str, shape: tuple[int, ...], dtype: Any, array: Any) -> int:
    fields: dict[int, Any] = {0: _ints(b, shape), 1: ("b", TYPES[dtype]), 2: ("I", buffer), 3: b.CreateString(name)}
    if isinstance(array, Sparse):
        dense = [_table(b, {0: ("b", 0), 1: ("i", size)}) for size in shape[:-1]]
        tables = [_table(b, {0: _vector(b, np.array(v, t))}) for v, t in
                  ((array.segments, np.uint16), (array.columns, np.uint8))]  # fmt: skip
        last = _table(b, {0: ("b", 1), 2: ("B", 2), 3: tables[0], 4: ("B", 3), 5: tables[1]})
        fields[6] = _table(b, {0: _ints(b, range(len(shape))), 2: _offsets(b, [*dense, last])})
    return _table(b, fields)


def _table(b: Any, fields: dict[int, Any]) -> int:
    b.StartObject(max(fields, default=-1) + 1)
    for number, value in fields.items():
        if isinstance(value, tuple):
            kind, scalar = value
            prepend = {
                "b": b.PrependInt8Slot,
                "B": b.PrependUint8Slot,
                "i": b.PrependInt32Slot,
                "I": b.PrependUint32Slot,
            }
            prepend[kind](number, scalar, None)
        else:
            b.PrependUOffsetTRelativeSlot(number, value, 0)
    return int(b.EndObject())


def _ints(b: Any, values: Any) -> int:
    return _vector(b, np.array(list(values), np.int32))


def _vector(b: Any, array: np.ndarray) -> int:
    b.StartVector(array.itemsize, array.size, array.itemsize)
    b.head -= array.nbytes
    b.Bytes[b.head : b.head + array.nbytes] = array.tobytes()
    return int(b.EndVector())


def _offsets(b: Any, offsets: list[int]) -> int:
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return int(b.EndVector())
