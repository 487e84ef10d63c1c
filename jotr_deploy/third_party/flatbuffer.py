"""FlatBuffers read in place: tables, vectors and scalars by field number, every offset checked against the buffer.

A table begins with a signed 32-bit distance back to its vtable. The vtable contains its own size, that of the table,
and for every field a 16-bit offset from the table, 0 if the field has its default. References are unsigned 32-bit
offsets from their own position; a vector begins with its length.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from jotr_deploy.support.aliases import Array


class Damaged(ValueError):
    """Offset or length that points outside the buffer."""


@dataclass(frozen=True)
class Table:
    """A table at a position of a buffer."""

    data: bytes
    position: int

    def number(self, field: int, kind: str, default: int = 0) -> int:
        """Scalar field; `kind` is its format character in `struct`."""
        at = self._at(field)
        return default if at is None else int(_unpack(kind, self.data, at))

    def text(self, field: int) -> str:
        """A string, empty if absent."""
        return self.bytes(field).decode("utf-8", "replace")

    def bytes(self, field: int) -> bytes:
        """A vector of bytes, empty if absent."""
        found = self.vector(field, np.uint8)
        return found.tobytes()

    def vector(self, field: int, dtype: Any) -> Array:
        """A vector of scalars (n,), empty if absent."""
        start, count = self._vector(field)
        size = np.dtype(dtype).itemsize
        _require(self.data, start, count * size)
        return np.frombuffer(self.data, np.dtype(dtype).newbyteorder("<"), count, start)

    def table(self, field: int) -> Table | None:
        """A table, None if absent."""
        at = self._at(field)
        return None if at is None else _table(self.data, at)

    def tables(self, field: int) -> list[Table]:
        """A vector of tables, empty if absent."""
        start, count = self._vector(field)
        _require(self.data, start, 4 * count)
        return [_table(self.data, start + 4 * k) for k in range(count)]

    def _vector(self, field: int) -> tuple[int, int]:
        """First byte and length of a vector."""
        at = self._at(field)
        if at is None:
            return 0, 0
        start = at + int(_unpack("I", self.data, at))
        return start + 4, int(_unpack("I", self.data, start))

    def _at(self, field: int) -> int | None:
        vtable = self.position - int(_unpack("i", self.data, self.position))
        if 4 + 2 * field >= int(_unpack("H", self.data, vtable)):
            return None
        offset = int(_unpack("H", self.data, vtable + 4 + 2 * field))
        return self.position + offset if offset else None


def root(data: bytes) -> Table:
    """Root table of a buffer."""
    return _table(data, 0)


def _table(data: bytes, at: int) -> Table:
    position = at + int(_unpack("I", data, at))
    _require(data, position, 4)
    return Table(data, position)


def _unpack(kind: str, data: bytes, at: int) -> Any:
    _require(data, at, struct.calcsize("<" + kind))
    return struct.unpack_from("<" + kind, data, at)[0]


def _require(data: bytes, at: int, size: int) -> None:
    if at < 0 or size < 0 or at + size > len(data):
        raise Damaged(f"an offset points to byte {at} of {len(data)}")
