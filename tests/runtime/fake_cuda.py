"""A CUDA of this process: memory is the host's, work really runs, but only when something waits for it.

    with fake_cuda() as gpu:                       # sys.modules["cuda.bindings.runtime"] and ".driver" are the fake
        ...
        assert gpu.live() == {}                    # everything was given back
        assert not gpu.mistakes                    # nothing was given back twice, copied out of range, ...

Only what the sessions use exists, with the parameters of the real package; `test_cuda.py` compares the two where
`cuda-bindings` is installed. `fake_cuda(fail={"cudaMalloc": 3})` lets the third call of a function fail.
"""

from __future__ import annotations

import ctypes
import enum
import sys
import threading
import types
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

ALIGNMENT = 256
DEFAULT_STREAM = 1  # the handle of the legacy default stream in array interfaces


Status = enum.IntEnum(
    "Status",
    {
        "cudaSuccess": 0,
        "cudaErrorInvalidValue": 1,
        "cudaErrorMemoryAllocation": 2,
        "cudaErrorNoDevice": 100,
        "cudaErrorIllegalState": 401,
        "cudaErrorLaunchFailure": 719,
        "cudaErrorStreamCaptureUnsupported": 900,
        "cudaErrorStreamCaptureInvalidated": 901,
    },
)
MemcpyKind = enum.Enum(
    "MemcpyKind", {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2, "cudaMemcpyDeviceToDevice": 3}
)
CaptureMode = enum.Enum("CaptureMode", {"cudaStreamCaptureModeGlobal": 0, "cudaStreamCaptureModeThreadLocal": 1})
UNSAFE = {"cudaMalloc", "cudaMallocHost", "cudaFree", "cudaFreeHost"}
"""Calls that spoil a capture: in global mode from any thread, in thread-local mode from its own."""


class Handle:
    """What the bindings return for a stream, an event or a graph: an object with an `int()`."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __int__(self) -> int:
        return self.value


Operation = Callable[[], None]
_FAILS_WITH = {
    "cudaMalloc": Status.cudaErrorMemoryAllocation,
    "cudaMallocHost": Status.cudaErrorMemoryAllocation,
    "cudaGetDeviceCount": Status.cudaErrorNoDevice,
    "cudaStreamEndCapture": Status.cudaErrorStreamCaptureInvalidated,
}


class FakeCuda:
    """The state of the GPU; `runtime` and `driver` are the modules."""

    def __init__(self, fail: Mapping[str, int] | None = None) -> None:
        self.calls: list[str] = []
        self.mistakes: list[str] = []
        self.memory: dict[int, tuple[str, Any, int]] = {}  # pointer -> where it is, what holds it, bytes
        self.things: dict[int, tuple[str, Any]] = {}  # handle -> kind, its state
        self.pending: dict[int, list[Operation]] = {DEFAULT_STREAM: []}
        self.captured: dict[int, list[Operation] | None] = {}  # None: the capture is spoilt
        self.capturing: dict[int, tuple[Any, int]] = {}  # stream -> mode and thread of its capture
        self.last_error = Status.cudaSuccess
        self.contexts = {"current": 7, "primary": 7}
        self.devices = 1
        self._fail, self._counted = dict(fail or {}), Counter[str]()
        self._next, self._clock = 1000, 0.0
        self.runtime, self.driver = self._module("runtime", _RUNTIME), self._module("driver", _DRIVER)
        self.runtime.cudaMemcpyKind, self.runtime.cudaStreamCaptureMode = MemcpyKind, CaptureMode
        self.runtime.cudaStreamNonBlocking, self.runtime.cudaEventDefault = 1, 0

    def _module(self, name: str, functions: Mapping[str, Callable[..., Any]]) -> Any:
        module = types.ModuleType(f"cuda.bindings.{name}")
        for called, function in functions.items():
            setattr(module, called, self._counting(called, function))
        return module

    def _counting(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> tuple[Any, ...]:
            self.calls.append(name)
            self._counted[name] += 1
            if self._counted[name] == self._fail.get(name):
                if name == "cudaStreamEndCapture":
                    self.captured.pop(int(args[0]))
                    self.capturing.pop(int(args[0]), None)
                return self.failed(_FAILS_WITH.get(name, Status.cudaErrorLaunchFailure), 1)
            if name in UNSAFE and self.spoilt():
                return self.failed(Status.cudaErrorStreamCaptureUnsupported, 1)
            return function(self, *args)

        return call

    def spoilt(self) -> bool:
        """Spoil the captures that an unsafe call of this thread concerns; True if there are any."""
        me, everybody = threading.get_ident(), CaptureMode.cudaStreamCaptureModeGlobal
        concerned = [stream for stream, (mode, thread) in self.capturing.items() if mode is everybody or thread == me]
        self.captured.update(dict.fromkeys(set(concerned) & set(self.captured)))
        return bool(concerned)

    def failed(self, status: Status, results: int = 0) -> tuple[Any, ...]:
        self.last_error = status
        return (status, *[None] * results)

    def live(self) -> dict[str, int]:
        """How many of each kind were not given back."""
        kinds = [where for where, _, _ in self.memory.values()] + [kind for kind, _ in self.things.values()]
        return dict(Counter(kinds))

    def allocate(self, where: str, nbytes: int) -> tuple[Any, ...]:
        holder = (ctypes.c_ubyte * (nbytes + ALIGNMENT))()
        pointer = -(-ctypes.addressof(holder) // ALIGNMENT) * ALIGNMENT
        ctypes.memset(pointer, 0xAB, nbytes)  # nobody may count on zeros
        self.memory[pointer] = (where, holder, nbytes)
        return Status.cudaSuccess, pointer

    def free(self, where: str, pointer: int) -> tuple[Any, ...]:
        if self.memory.get(pointer, ("", None, 0))[0] != where:
            self.mistakes.append(f"freed {pointer} that is no {where} memory")
            return self.failed(Status.cudaErrorInvalidValue)
        for stream in self.pending:
            self.run(stream)  # the real one waits for the device, too
        del self.memory[pointer]
        return (Status.cudaSuccess,)

    def create(self, kind: str, state: Any = None) -> tuple[Any, ...]:
        self._next += 1
        self.things[self._next] = (kind, state)
        if kind == "stream":
            self.pending[self._next] = []
        return Status.cudaSuccess, Handle(self._next)

    def destroy(self, kind: str, handle: Any) -> tuple[Any, ...]:
        if self.things.get(int(handle), ("", None))[0] != kind:
            self.mistakes.append(f"destroyed {int(handle)} that is no {kind}")
            return self.failed(Status.cudaErrorInvalidValue)
        del self.things[int(handle)]
        return (Status.cudaSuccess,)

    def state_of(self, kind: str, handle: Any) -> Any:
        found, state = self.things[int(handle)]
        assert found == kind, f"{int(handle)} is a {found}, not a {kind}"
        return state

    def queue(self, stream: Any, operation: Operation) -> None:
        """Put work into a stream, or into the graph being captured from it."""
        handle = int(stream)
        if handle in self.captured:
            captured = self.captured[handle]
            if captured is not None:
                captured.append(operation)
        else:
            self.pending[handle].append(operation)

    def run(self, stream: int) -> None:
        work, self.pending[stream] = self.pending[stream], []
        for operation in work:
            operation()

    def tick(self) -> float:
        self._clock += 0.25
        return self._clock

    def inside(self, pointer: int, nbytes: int, where: str) -> None:
        """Complain about bytes that are not all in one live block of the given kind."""
        for start, (kind, _, size) in self.memory.items():
            if start <= pointer and pointer + nbytes <= start + size and kind == where:
                return
        self.mistakes.append(f"{nbytes} bytes at {pointer} are not in {where} memory")


def _count(gpu: FakeCuda) -> tuple[Any, ...]:
    return Status.cudaSuccess, gpu.devices


def _properties(gpu: FakeCuda, device: int) -> tuple[Any, ...]:
    return Status.cudaSuccess, types.SimpleNamespace(name=b"Fake GPU", major=8, minor=7)


def _copy(gpu: FakeCuda, dst: int, src: int, count: int, kind: Any, stream: Any) -> tuple[Any, ...]:
    assert all(isinstance(number, int) for number in (dst, src, count)), "addresses and sizes are integers"
    kinds = {
        MemcpyKind.cudaMemcpyHostToDevice: ("device", "pinned"),
        MemcpyKind.cudaMemcpyDeviceToHost: ("pinned", "device"),
        MemcpyKind.cudaMemcpyDeviceToDevice: ("device", "device"),
    }
    target, source = kinds[kind]
    gpu.inside(dst, count, target)
    gpu.inside(src, count, source)
    gpu.queue(stream, lambda: ctypes.memmove(dst, src, count) and None)
    return (Status.cudaSuccess,)


def _record(gpu: FakeCuda, event: Any, stream: Any) -> tuple[Any, ...]:
    mark = gpu.state_of("event", event)
    if int(stream) in gpu.captured:
        gpu.mistakes.append("an event was recorded inside a capture")
    mark.update(time=None, stream=int(stream))
    gpu.queue(stream, lambda: mark.update(time=gpu.tick()))
    return (Status.cudaSuccess,)


def _elapsed(gpu: FakeCuda, start: Any, end: Any) -> tuple[Any, ...]:
    times = [gpu.state_of("event", event)["time"] for event in (start, end)]
    if None in times:
        return gpu.failed(Status.cudaErrorIllegalState, 1)
    return Status.cudaSuccess, times[1] - times[0]


def _wait(gpu: FakeCuda, stream: Any, event: Any, flags: int) -> tuple[Any, ...]:
    mark = gpu.state_of("event", event)
    gpu.queue(stream, lambda: gpu.run(mark["stream"]) if mark["time"] is None else None)
    return (Status.cudaSuccess,)


def _synchronize(gpu: FakeCuda, stream: Any) -> tuple[Any, ...]:
    if int(stream) in gpu.captured:
        gpu.captured[int(stream)] = None
        return gpu.failed(Status.cudaErrorStreamCaptureUnsupported)
    gpu.run(int(stream))
    return (Status.cudaSuccess,)


def _begin(gpu: FakeCuda, stream: Any, mode: Any) -> tuple[Any, ...]:
    if gpu.pending[int(stream)]:
        gpu.mistakes.append("a capture began while work was pending")
    gpu.captured[int(stream)], gpu.capturing[int(stream)] = [], (mode, threading.get_ident())
    return (Status.cudaSuccess,)


def _end(gpu: FakeCuda, stream: Any) -> tuple[Any, ...]:
    if int(stream) not in gpu.captured:
        return gpu.failed(Status.cudaErrorIllegalState, 1)
    operations = gpu.captured.pop(int(stream))
    gpu.capturing.pop(int(stream), None)
    if operations is None:
        return gpu.failed(Status.cudaErrorStreamCaptureInvalidated, 1)
    return gpu.create("graph", operations)


def _launch(gpu: FakeCuda, graphExec: Any, stream: Any) -> tuple[Any, ...]:
    for operation in gpu.state_of("executable graph", graphExec):
        gpu.queue(stream, operation)
    return (Status.cudaSuccess,)


def _last_error(gpu: FakeCuda) -> tuple[Any, ...]:
    status, gpu.last_error = gpu.last_error, Status.cudaSuccess
    return (status,)


_RUNTIME: dict[str, Callable[..., Any]] = {
    "cudaGetDeviceCount": _count,
    "cudaGetDevice": lambda gpu: (Status.cudaSuccess, 0),
    "cudaGetDeviceProperties": _properties,
    "cudaDriverGetVersion": lambda gpu: (Status.cudaSuccess, 13020),
    "cudaRuntimeGetVersion": lambda gpu: (Status.cudaSuccess, 12060),
    "cudaMalloc": lambda gpu, size: gpu.allocate("device", size),
    "cudaFree": lambda gpu, devPtr: gpu.free("device", devPtr),
    "cudaMallocHost": lambda gpu, size: gpu.allocate("pinned", size),
    "cudaFreeHost": lambda gpu, ptr: gpu.free("pinned", ptr),
    "cudaMemcpyAsync": _copy,
    "cudaStreamCreateWithFlags": lambda gpu, flags: gpu.create("stream"),
    "cudaStreamDestroy": lambda gpu, stream: gpu.destroy("stream", stream),
    "cudaStreamSynchronize": _synchronize,
    "cudaStreamWaitEvent": _wait,
    "cudaStreamBeginCapture": _begin,
    "cudaStreamEndCapture": _end,
    "cudaEventCreateWithFlags": lambda gpu, flags: gpu.create("event", {"time": None, "stream": 0}),
    "cudaEventRecord": _record,
    "cudaEventElapsedTime": _elapsed,
    "cudaEventDestroy": lambda gpu, event: gpu.destroy("event", event),
    "cudaGraphInstantiate": lambda gpu, graph, flags: gpu.create("executable graph", gpu.state_of("graph", graph)),
    "cudaGraphLaunch": _launch,
    "cudaGraphExecDestroy": lambda gpu, graphExec: gpu.destroy("executable graph", graphExec),
    "cudaGraphDestroy": lambda gpu, graph: gpu.destroy("graph", graph),
    "cudaGetLastError": _last_error,
}
_DRIVER: dict[str, Callable[..., Any]] = {
    "cuInit": lambda gpu, Flags: (Status.cudaSuccess,),
    "cuCtxGetCurrent": lambda gpu: (Status.cudaSuccess, Handle(gpu.contexts["current"])),
    "cuCtxGetDevice": lambda gpu: (Status.cudaSuccess, Handle(0)),
    "cuDevicePrimaryCtxRetain": lambda gpu, dev: (Status.cudaSuccess, Handle(gpu.contexts["primary"])),
    "cuDevicePrimaryCtxRelease": lambda gpu, dev: (Status.cudaSuccess,),
}
FUNCTIONS = {"runtime": _RUNTIME, "driver": _DRIVER}


@contextmanager
def fake_cuda(fail: Mapping[str, int] | None = None) -> Iterator[FakeCuda]:
    """Install the fake for the block; `fail` says which call, from 1, of which function fails."""
    gpu = FakeCuda(fail)
    bindings = types.ModuleType("cuda.bindings")
    bindings.runtime, bindings.driver = gpu.runtime, gpu.driver  # type: ignore[attr-defined]
    fakes = {
        "cuda": types.ModuleType("cuda"),
        "cuda.bindings": bindings,
        "cuda.bindings.runtime": gpu.runtime,
        "cuda.bindings.driver": gpu.driver,
    }
    hidden = {name: sys.modules.get(name) for name in fakes}
    sys.modules.update(fakes)
    try:
        yield gpu
    finally:
        for name, module in hidden.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
