"""A minimal CUDA layer over `cuda.bindings`: every call is checked, every resource is released exactly once.

Everything lives in the primary context of the current device, shared with PyTorch, ONNX Runtime and TensorRT.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jotr_deploy.errors import JotrDeployError, SessionError, install
from jotr_deploy.runtime.sessions.capture_lock import CAPTURES
from jotr_deploy.runtime.sessions.system_cudart import instead_of
from jotr_deploy.support.imports import not_importable

_REMEDIES = {
    "cudaErrorMemoryAllocation": "free GPU memory (nvidia-smi shows its users), or use an engine for smaller batches",
    "cudaErrorInsufficientDriver": "install or update the NVIDIA driver; nvidia-smi shows its version",
    "cudaErrorNoDevice": "this needs an NVIDIA GPU that is visible to this process (CUDA_VISIBLE_DEVICES)",
}
_REMEDY = "jotr-deploy doctor shows the hardware found; the kernel log (dmesg) has details about a GPU that failed"


def check(answer: tuple[Any, ...], doing: str) -> Any:
    """The result of a call to `cuda.bindings`, which returns `(status, *results)`.

    Args:
        answer: of the call; several results are returned as a tuple, none as None.
        doing: completes "CUDA cannot ...".

    Raises:
        SessionError: the status is not success.
    """
    status, *results = answer
    if int(status) != 0:
        raise SessionError(f"CUDA cannot {doing} ({status.name})", _REMEDIES.get(status.name, _REMEDY))
    return results[0] if len(results) == 1 else tuple(results) or None


def runtime() -> Any:
    """The module `cuda.bindings.runtime`, or JetPack's own runtime in its place: see `system_cudart`.

    Raises:
        MissingDependency: it cannot be imported.
    """
    return instead_of(_bindings("runtime"))


def _bindings(name: str) -> Any:
    module = f"cuda.bindings.{name}"
    try:
        return import_module(module)
    except ImportError as error:
        raise not_importable("cuda-bindings", module, error, install("gpu")) from None


def available() -> bool:
    """True if this process can use a GPU through CUDA."""
    try:
        return check(runtime().cudaGetDeviceCount(), "count the GPUs") > 0
    except JotrDeployError:
        return False


@dataclass(frozen=True)
class DeviceInfo:
    """The current GPU and its driver."""

    index: int
    name: str
    capability: str
    """Compute capability, "8.7"."""
    driver: str
    """The newest CUDA version that the driver supports, "13.2"."""
    runtime: str
    """Version of the CUDA runtime in use, "13.0"."""


def device_info() -> DeviceInfo:
    """Properties of the current GPU.

    Raises:
        SessionError: no GPU, or no driver.
    """
    rt = runtime()
    index = check(rt.cudaGetDevice(), "find a GPU")
    properties = check(rt.cudaGetDeviceProperties(index), "read the GPU's properties")
    driver = check(rt.cudaDriverGetVersion(), "read the driver's version")
    version = check(rt.cudaRuntimeGetVersion(), "read the runtime's version")
    return DeviceInfo(
        index=index,
        name=properties.name.decode(),
        capability=f"{properties.major}.{properties.minor}",
        driver=f"{driver // 1000}.{driver % 1000 // 10}",
        runtime=f"{version // 1000}.{version % 1000 // 10}",
    )


def require_primary_context() -> None:
    """Refuse a CUDA context that is not the device's primary one: resources of one are invalid in the other.

    Raises:
        SessionError: PyCUDA, or another library with a context of its own, has it current in this thread.
    """
    try:
        driver = _bindings("driver")
        check(driver.cuInit(0), "start the driver")
    except RuntimeError as error:  # cuda.bindings did not find the driver library
        raise SessionError(f"CUDA has no driver ({error})", _REMEDIES["cudaErrorInsufficientDriver"]) from None
    current = check(driver.cuCtxGetCurrent(), "read the current context")
    if not int(current):
        return  # the first runtime call will make the primary one current
    device = check(driver.cuCtxGetDevice(), "read the context's GPU")
    primary = check(driver.cuDevicePrimaryCtxRetain(device), "find the primary context")
    check(driver.cuDevicePrimaryCtxRelease(device), "release the primary context")
    if int(primary) != int(current):
        raise SessionError(
            "the current CUDA context is not the GPU's primary one (pycuda.autoinit makes its own)",
            "import pycuda.autoprimaryctx instead of pycuda.autoinit",
        )


class _Owned:
    """A CUDA resource: released by `release`, else when it is garbage-collected, never twice."""

    def __init__(self, handle: Any, give_back: Callable[[Any], Any]) -> None:
        self.handle = handle
        self._give_back = weakref.finalize(self, CAPTURES.free, partial(give_back, handle))

    def release(self) -> None:
        """Release it now. The status is ignored, as nothing can be done about it."""
        self._give_back()


class Memory(_Owned):
    """A block of memory, on the GPU or pinned on the host; made by `on_device` or `pinned`.

    Arrays that view it are registered in `viewers`: while one is alive the block outlives its `release`.
    """

    def __init__(self, pointer: int, nbytes: int, give_back: Callable[[Any], Any]) -> None:
        super().__init__(pointer, give_back)
        self.pointer, self.nbytes = pointer, nbytes
        self.viewers: weakref.WeakSet[Any] = weakref.WeakSet()

    @classmethod
    def on_device(cls, nbytes: int) -> Memory:
        """Allocate on the GPU, aligned to 256 bytes."""
        rt, nbytes = runtime(), max(nbytes, 1)
        with CAPTURES.allocating():
            pointer = check(rt.cudaMalloc(nbytes), f"allocate {_size(nbytes)} on the GPU")
        return cls(int(pointer), nbytes, rt.cudaFree)

    @classmethod
    def pinned(cls, nbytes: int) -> Memory:
        """Allocate page-locked host memory, which the GPU can copy from and to directly."""
        rt, nbytes = runtime(), max(nbytes, 1)
        with CAPTURES.allocating():
            pointer = check(rt.cudaMallocHost(nbytes), f"allocate {_size(nbytes)} of pinned host memory")
        return cls(int(pointer), nbytes, rt.cudaFreeHost)

    def release(self) -> None:
        """Free the block, or leave that to the last array that views it."""
        if not len(self.viewers):
            super().release()

    def as_array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """A view of pinned memory as an array, valid until `release`."""
        raw = (ctypes.c_ubyte * (int(np.prod(shape)) * dtype.itemsize)).from_address(self.pointer)
        return np.ctypeslib.as_array(raw).view(dtype).reshape(shape)


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e6:.1f} MB"


class Event(_Owned):
    """A marker in a stream, with a GPU timestamp."""

    def __init__(self) -> None:
        self._rt = runtime()
        made = check(self._rt.cudaEventCreateWithFlags(self._rt.cudaEventDefault), "create an event")
        super().__init__(made, self._rt.cudaEventDestroy)

    def ms_since(self, earlier: Event) -> float:
        """Milliseconds on the GPU between two markers that it has passed."""
        return check(self._rt.cudaEventElapsedTime(earlier.handle, self.handle), "read the time between two events")


class Graph(_Owned):
    """Captured work, launched as a whole."""

    def launch(self, stream: Stream) -> None:
        """Queue the captured work again."""
        check(runtime().cudaGraphLaunch(self.handle, stream.handle), "launch a graph")


class Stream(_Owned):
    """A queue of GPU work, separate from the default stream, on which engines synchronise the device."""

    def __init__(self) -> None:
        self._rt = runtime()
        made = check(self._rt.cudaStreamCreateWithFlags(self._rt.cudaStreamNonBlocking), "create a stream")
        super().__init__(made, self._rt.cudaStreamDestroy)
        self.pointer = int(made)
        self.device: int = check(self._rt.cudaGetDevice(), "find the GPU of a stream")

    def to_device(self, target: int, source: int, nbytes: int) -> None:
        """Queue a copy from pinned host memory to the GPU."""
        self._copy(target, source, nbytes, self._rt.cudaMemcpyKind.cudaMemcpyHostToDevice)

    def to_host(self, target: int, source: int, nbytes: int) -> None:
        """Queue a copy from the GPU to pinned host memory."""
        self._copy(target, source, nbytes, self._rt.cudaMemcpyKind.cudaMemcpyDeviceToHost)

    def on_device(self, target: int, source: int, nbytes: int) -> None:
        """Queue a copy within the GPU's memory."""
        self._copy(target, source, nbytes, self._rt.cudaMemcpyKind.cudaMemcpyDeviceToDevice)

    def _copy(self, target: int, source: int, nbytes: int, kind: Any) -> None:
        check(self._rt.cudaMemcpyAsync(target, source, nbytes, kind, self.handle), f"copy {_size(nbytes)}")

    def record(self, event: Event) -> None:
        """Queue a marker."""
        check(self._rt.cudaEventRecord(event.handle, self.handle), "record an event")

    def wait_for(self, producer: int) -> None:
        """Let later work in this stream wait for everything queued so far in another stream, given by its handle."""
        event = Event()
        check(self._rt.cudaEventRecord(event.handle, producer), "record an event in the stream of an array")
        check(self._rt.cudaStreamWaitEvent(self.handle, event.handle, 0), "wait for the stream of an array")

    def synchronize(self) -> None:
        """Wait until all queued work is done."""
        check(self._rt.cudaStreamSynchronize(self.handle), "finish the work on the GPU")

    def capture(self, queue: Callable[[], None]) -> Graph:
        """Capture the work that `queue` puts into this stream as a graph, without running it.

        Raises:
            SessionError: some of the work cannot be captured; the stream remains usable.
        """
        rt = self._rt
        mode = rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        try:
            check(rt.cudaStreamBeginCapture(self.handle, mode), "capture a graph")
            queue()
            graph = check(rt.cudaStreamEndCapture(self.handle), "capture a graph")
            try:
                executable = check(rt.cudaGraphInstantiate(graph, 0), "instantiate a graph")
            finally:
                rt.cudaGraphDestroy(graph)
        except BaseException:
            self.abandon_capture()
            raise
        return Graph(executable, rt.cudaGraphExecDestroy)

    def abandon_capture(self) -> None:
        """End a failed capture that is still in progress, whatever began it, and clear its error."""
        status, graph = self._rt.cudaStreamEndCapture(self.handle)
        if int(status) == 0:
            self._rt.cudaGraphDestroy(graph)
        self._rt.cudaGetLastError()
