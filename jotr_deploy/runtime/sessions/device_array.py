"""Arrays on the GPU, exchanged with other libraries without a copy: DLPack and `__cuda_array_interface__`."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from jotr_deploy.errors import SessionError
from jotr_deploy.runtime.sessions import cuda

_CUDA, _CUDA_MANAGED = 2, 13  # DLDeviceType
_NAME = b"dltensor"
_KINDS = {"i": 0, "u": 1, "f": 2, "b": 6}  # NumPy's type character -> DLDataTypeCode
_MAKE_CONTIGUOUS = "give a C-contiguous array (torch: .contiguous(), CuPy: ascontiguousarray)"


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """A C-contiguous array on the GPU.

    An array returned by a session is in the session's own memory: its values are valid until the session's next call,
    the memory as long as the array or a view of it lives. `torch.from_dlpack(array)`, `cupy.asarray(array)`.
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
        """Some rows as a view of the same memory; the step must be 1."""
        start, stop, _ = rows.indices(len(self))
        row = self.nbytes // max(len(self), 1)
        shape = (max(stop - start, 0), *self.shape[1:])
        return DeviceArray(self.pointer + start * row, shape, self.dtype, self, self.device)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3; no stream, as the values are complete."""
        pointer = self.pointer if self.nbytes else 0
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (pointer, False), "version": 3, "stream": None}

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CUDA, self.device

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None
    ) -> Any:
        """An unversioned capsule, which every consumer accepts. The values are complete: no stream has to wait."""
        if copy or (dl_device is not None and tuple(map(int, dl_device)) != self.__dlpack_device__()):
            raise BufferError("this array is only shared in place, on its own device; copy it with your own library")
        return _capsule(self, _CUDA)


def from_cuda(feed: Any, stream: cuda.Stream) -> Any:
    """Another library's CUDA array as a `DeviceArray`, its values ready for `stream`; anything else unchanged.

    Args:
        feed: an array of PyTorch, CuPy, JAX, Numba or PyCUDA, or of the host.
        stream: the stream that will read it.

    Raises:
        SessionError: the array is not contiguous, has a type that NumPy lacks, or is on another GPU.
    """
    if isinstance(feed, (np.ndarray, DeviceArray)):
        return feed
    if hasattr(feed, "__dlpack_device__") and int(feed.__dlpack_device__()[0]) in (_CUDA, _CUDA_MANAGED):
        return _from_dlpack(feed, stream)
    if hasattr(feed, "__cuda_array_interface__"):
        return _from_interface(feed, stream)
    return feed


def _from_interface(feed: Any, stream: cuda.Stream) -> DeviceArray:
    cuda.require_primary_context()  # PyCUDA's arrays arrive here
    interface = feed.__cuda_array_interface__
    shape, dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
    strides = interface.get("strides")
    if strides is not None:
        _require_contiguous(shape, tuple(step // dtype.itemsize for step in strides))
    # Before version 3 the stream that fills the array is not stated: most use the default stream, whose handle is 1.
    producer = interface.get("stream", 1 if interface["version"] < 3 else None)
    if producer is not None:
        stream.wait_for(producer)
    return DeviceArray(interface["data"][0], shape, dtype, feed, stream.device)


def _from_dlpack(feed: Any, stream: cuda.Stream) -> DeviceArray:
    if feed.__dlpack_device__()[1] != stream.device:
        raise SessionError(
            f"an input is on GPU {feed.__dlpack_device__()[1]}, the session runs on GPU {stream.device}",
            "copy it to the session's GPU",
        )
    capsule = feed.__dlpack__(stream=stream.pointer)  # the producer makes our stream wait for its own
    tensor = _Managed.from_address(_get_pointer(capsule, _NAME)).tensor
    shape = tuple(tensor.shape[: tensor.ndim])
    if tensor.strides:
        _require_contiguous(shape, tuple(tensor.strides[: tensor.ndim]))
    kind = next((letter for letter, code in _KINDS.items() if code == tensor.code), None)
    if kind is None or tensor.lanes != 1:
        raise SessionError("an input on the GPU has a type that no network takes", "give float32 arrays")
    # The capsule is not consumed: its own destructor frees the content once the array is no longer needed.
    pointer = (tensor.data or 0) + tensor.byte_offset
    return DeviceArray(pointer, shape, np.dtype(f"{kind}{tensor.bits // 8}"), capsule, tensor.device_id)


def _require_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    """Refuse strides, in elements, other than those of C order; axes of length one may have any."""
    expected = 1
    for size, step in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and step != expected and 0 not in shape:
            raise SessionError(f"an input of shape {list(shape)} on the GPU is not contiguous", _MAKE_CONTIGUOUS)
        expected *= size


# ── DLPack structures, version 0 ─────────────────────────────────────────────────────────────────────────────────


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


# The destructor gets a capsule being destroyed: as a bare address, since a new reference would revive it.
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
"""Structures held by consumers of capsules: address of the structure -> it, and objects that must live as long."""


def _take_back(address: int) -> None:
    _lent.pop(address, None)


def _destroy(capsule: int) -> None:
    if _is_unused(capsule, _NAME):  # a consumer renames the capsule and calls the deleter itself
        _take_back(_address_in(capsule, _NAME))


_on_delete, _on_destroy = _Deleter(_take_back), _Deleter(_destroy)


def _capsule(array: DeviceArray, device_type: int) -> Any:
    """A capsule that keeps `array` alive until its consumer releases it, or the unused capsule is destroyed."""
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
