"""Arrays on the GPU, to and from other libraries without a copy: DLPack and `__cuda_array_interface__`."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from jotr_deploy.errors import SessionError
from jotr_deploy.runtime.sessions import cuda

_CUDA, _CUDA_MANAGED = 2, 13  # DLDeviceType
_NAME = b"dltensor"
_KINDS = {"i": 0, "u": 1, "f": 2, "b": 6}  # NumPy's letter -> DLDataTypeCode
_MAKE_CONTIGUOUS = "give a C-contiguous array (torch: .contiguous(), CuPy: ascontiguousarray)"


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """A C-contiguous array on the GPU.

    What a session hands out lies in the session's own memory: valid until the session's next call, and the memory
    itself as long as the array or a view of it lives. `torch.from_dlpack(array)`, `cupy.asarray(array)`.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: object
    """Keeps the memory alive."""
    device: int
    """Index of the GPU."""

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> DeviceArray:
        """Some rows, in the same memory; a step of 1."""
        start, stop, _ = rows.indices(len(self))
        row = self.nbytes // max(len(self), 1)
        shape = (max(stop - start, 0), *self.shape[1:])
        return DeviceArray(self.pointer + start * row, shape, self.dtype, self, self.device)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3; no stream: the values are there."""
        pointer = self.pointer if self.nbytes else 0
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (pointer, False), "version": 3, "stream": None}

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CUDA, self.device

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None
    ) -> Any:
        """A capsule without a version, which every consumer takes. The values are there: no stream has to wait."""
        if copy or (dl_device is not None and tuple(map(int, dl_device)) != self.__dlpack_device__()):
            raise BufferError("this array is shared as it is, on its own device; copy it with your own library")
        return _capsule(self, _CUDA)


def from_cuda(feed: Any, stream: cuda.Stream) -> Any:
    """Another library's CUDA array as a `DeviceArray`, its values ready for `stream`; anything else as it is.

    Args:
        feed: of PyTorch, CuPy, JAX, Numba, PyCUDA, or an array of the host.
        stream: the one that will read it.

    Raises:
        SessionError: the array is not contiguous, has a type NumPy lacks, or lies on another GPU.
    """
    if isinstance(feed, (np.ndarray, DeviceArray)):
        return feed
    if hasattr(feed, "__dlpack_device__") and int(feed.__dlpack_device__()[0]) in (_CUDA, _CUDA_MANAGED):
        return _from_dlpack(feed, stream)
    if hasattr(feed, "__cuda_array_interface__"):
        return _from_interface(feed, stream)
    return feed


def _from_interface(feed: Any, stream: cuda.Stream) -> DeviceArray:
    cuda.require_primary_context()  # PyCUDA's arrays come this way
    interface = feed.__cuda_array_interface__
    shape, dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
    strides = interface.get("strides")
    if strides is not None:
        _require_contiguous(shape, tuple(step // dtype.itemsize for step in strides))
    # Before version 3 nobody says which stream fills the array: most use the default stream, whose handle is 1.
    producer = interface.get("stream", 1 if interface["version"] < 3 else None)
    if producer is not None:
        stream.wait_for(producer)
    return DeviceArray(interface["data"][0], shape, dtype, feed, stream.device)


def _from_dlpack(feed: Any, stream: cuda.Stream) -> DeviceArray:
    if feed.__dlpack_device__()[1] != stream.device:
        raise SessionError(
            f"an input lies on GPU {feed.__dlpack_device__()[1]}, the session runs on GPU {stream.device}",
            "copy it to the session's GPU",
        )
    capsule = feed.__dlpack__(stream=stream.pointer)  # the producer makes our stream wait for its own
    tensor = _Managed.from_address(_get_pointer(capsule, _NAME)).tensor
    shape = tuple(tensor.shape[: tensor.ndim])
    if tensor.strides:
        _require_contiguous(shape, tuple(tensor.strides[: tensor.ndim]))
    kind = next((letter for letter, code in _KINDS.items() if code == tensor.code), None)
    if kind is None or tensor.lanes != 1:
        raise SessionError("an input on the GPU is of a type that no network takes", "give float32 arrays")
    # The capsule is not consumed: its own destructor frees what it holds, once nobody needs the array any more.
    pointer = (tensor.data or 0) + tensor.byte_offset
    return DeviceArray(pointer, shape, np.dtype(f"{kind}{tensor.bits // 8}"), capsule, tensor.device_id)


def _require_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    """Refuse strides, in elements, other than those of C order; axes of one element may have any."""
    expected = 1
    for size, step in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and step != expected and 0 not in shape:
            raise SessionError(f"an input of shape {list(shape)} on the GPU is not contiguous", _MAKE_CONTIGUOUS)
        expected *= size


# ── DLPack's structures, version 0 ───────────────────────────────────────────────────────────────────────────────


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))


# The destructor gets a capsule that is going away: as a bare address, since a new reference would revive it.
_get_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_is_unused = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_address_in = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)

_lent: dict[int, tuple[Any, ...]] = {}
"""What consumers of capsules hold: address of the structure -> it, and what must live as long."""


def _take_back(address: int) -> None:
    _lent.pop(address, None)


def _destroy(capsule: int) -> None:
    if _is_unused(capsule, _NAME):  # a consumer renames the capsule and calls the deleter itself
        _take_back(_address_in(capsule, _NAME))


_on_delete, _on_destroy = _Deleter(_take_back), _Deleter(_destroy)


def _capsule(array: DeviceArray, device_type: int) -> Any:
    """A capsule that keeps `array` alive until its consumer, or nobody, needs it."""
    sizes, axes = array.shape, range(array.ndim)
    shape = (ctypes.c_int64 * array.ndim)(*sizes)
    strides = (ctypes.c_int64 * array.ndim)(*(int(np.prod(sizes[axis + 1 :])) for axis in axes))
    tensor = _Tensor(
        array.pointer, device_type, array.device, array.ndim, _KINDS[array.dtype.kind], array.dtype.itemsize * 8, 1,
        ctypes.cast(shape, ctypes.POINTER(ctypes.c_int64)), ctypes.cast(strides, ctypes.POINTER(ctypes.c_int64)), 0,
    )  # fmt: skip
    managed = _Managed(tensor, None, _on_delete)
    address = ctypes.addressof(managed)
    _lent[address] = (managed, shape, strides, array)
    return _new_capsule(address, _NAME, ctypes.cast(_on_destroy, ctypes.c_void_p))
