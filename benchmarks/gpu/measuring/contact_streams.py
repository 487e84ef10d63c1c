"""First contact: our layer over CUDA, its streams, events and graphs, and arrays shared with other libraries."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from measuring.report import LeftOut, Report, needs

from jotr_deploy.runtime.sessions import cuda
from jotr_deploy.runtime.sessions.device_array import DeviceArray, from_cuda

BYTES = (1, 255, 1 << 20)


@dataclass(frozen=True)
class Library:
    """How another library takes our arrays, makes its own, and copies one to the host."""

    take: Callable[[DeviceArray], Any]
    make: Callable[[np.ndarray], Any]
    to_host: Callable[[Any], np.ndarray]
    address: Callable[[Any], int]


def measure(report: Report) -> None:
    needs("numpy", "cuda.bindings")
    with report.attempt("our layer over CUDA"):
        info = cuda.device_info()
        report.fact("CUDA", f"driver for {info.driver}, runtime {info.runtime}, {info.name} {info.capability}")
        cuda.require_primary_context()
    for what, check in (
        ("copies to the GPU and back", copies),
        ("events", events),
        ("graphs", graphs),
        ("waiting for a stream of PyTorch", waits_for_torch),
    ):
        with report.attempt(what):
            check(report)
    for name, library in LIBRARIES.items():
        with report.attempt(f"arrays of {name}"):
            needs(name)
            exchanged(report, name, usable(name, library))


def usable(name: str, library: Callable[[], Library]) -> Library:
    """The library, left out if it is installed without CUDA."""
    try:
        found = library()
        found.make(np.zeros(1, np.float32))
    except (ImportError, RuntimeError) as error:
        raise LeftOut(f"this {name} has no CUDA ({str(error).partition(chr(10))[0]})") from error
    return found


def copies(report: Report) -> None:
    rng = np.random.default_rng(0)
    for nbytes in BYTES:
        values = rng.integers(0, 256, nbytes, np.uint8)
        with Blocks() as blocks:
            array = blocks.array(values)
            report.check(f"{nbytes} bytes to the GPU and back", np.array_equal(blocks.fetched(array), values))


def events(report: Report) -> None:
    with Blocks() as blocks:
        array, copy = blocks.array(np.zeros(1 << 20, np.uint8)), blocks.array(np.ones(1 << 20, np.uint8))
        before, after = (blocks.own(cuda.Event()) for _ in range(2))
        blocks.stream.record(before)
        blocks.stream.on_device(copy.pointer, array.pointer, array.nbytes)
        blocks.stream.record(after)
        blocks.stream.synchronize()
        ms = after.ms_since(before)
        report.check("time between two events", ms > 0, f"{ms * 1e3:.1f} us for a copy of 1 MiB")


def graphs(report: Report) -> None:
    """A captured copy must not run while it is captured, and must read what is there when it is launched."""
    with Blocks() as blocks:
        source, target = blocks.array(np.arange(64, dtype=np.int32)), blocks.array(np.zeros(64, np.int32))
        graph = blocks.own(
            blocks.stream.capture(lambda: blocks.stream.on_device(target.pointer, source.pointer, source.nbytes))
        )
        report.check("a capture does not run", not blocks.fetched(target).any())
        for start in (0, 1000):
            values = np.arange(start, start + 64, dtype=np.int32)
            blocks.fill(source, values)
            graph.launch(blocks.stream)
            report.check(f"launch of a graph, values from {start}", np.array_equal(blocks.fetched(target), values))


def waits_for_torch(report: Report) -> None:
    needs("torch")
    import torch

    theirs = torch.cuda.Stream()
    values = torch.zeros(1 << 20, dtype=torch.int32, device="cuda")
    torch.cuda.synchronize()
    with Blocks() as blocks:
        target = blocks.array(np.zeros(1 << 20, np.int32))
        with torch.cuda.stream(theirs):
            torch.cuda._sleep(100_000_000)  # cycles: long enough for a copy that does not wait to come first
            values.fill_(7)
        blocks.stream.wait_for(theirs.cuda_stream)
        blocks.stream.on_device(target.pointer, values.data_ptr(), target.nbytes)
        report.check("our stream waits for one of PyTorch", bool((blocks.fetched(target) == 7).all()))


def exchanged(report: Report, name: str, library: Library) -> None:
    """The same values at the same address, in both directions."""
    with Blocks() as blocks:
        for dtype in (np.float32, np.float16, np.int32):
            values = np.arange(24).reshape(2, 3, 4).astype(dtype)
            array = blocks.array(values)
            view = library.take(array)
            same = np.array_equal(library.to_host(view), values) and library.address(view) == array.pointer
            report.check(f"our {values.dtype} in {name}", same, "same values, no copy")
            feed = library.make(values)
            taken = from_cuda(feed, blocks.stream)
            same = isinstance(taken, DeviceArray) and taken.shape == values.shape and taken.dtype == values.dtype
            same = same and taken.pointer == library.address(feed)
            same = same and np.array_equal(blocks.fetched(taken), values)
            report.check(f"{name}'s {values.dtype} for our sessions", same, "same values, no copy")
            del view, feed, taken


class Blocks:
    """A stream and arrays in memory of our own, released together."""

    def __enter__(self) -> Blocks:
        self._stack = ExitStack()
        self.stream = self.own(cuda.Stream())
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def own(self, thing: Any) -> Any:
        self._stack.callback(thing.release)
        return thing

    def array(self, values: np.ndarray) -> DeviceArray:
        memory = self.own(cuda.Memory.on_device(values.nbytes))
        array = DeviceArray(memory.pointer, values.shape, values.dtype, memory, self.stream.device)
        self.fill(array, values)
        return array

    def fill(self, array: DeviceArray, values: np.ndarray) -> None:
        pinned = cuda.Memory.pinned(values.nbytes)
        pinned.as_array(values.shape, values.dtype)[...] = values
        self.stream.to_device(array.pointer, pinned.pointer, values.nbytes)
        self.stream.synchronize()
        pinned.release()

    def fetched(self, array: DeviceArray) -> np.ndarray:
        pinned = cuda.Memory.pinned(array.nbytes)
        self.stream.to_host(pinned.pointer, array.pointer, array.nbytes)
        self.stream.synchronize()
        values = pinned.as_array(array.shape, array.dtype).copy()
        pinned.release()
        return values


def _torch() -> Library:
    torch = importlib.import_module("torch")
    return Library(
        torch.from_dlpack,
        lambda values: torch.from_numpy(values).cuda(),
        lambda array: array.cpu().numpy(),
        lambda array: array.data_ptr(),
    )


def _cupy() -> Library:
    cupy = importlib.import_module("cupy")
    return Library(cupy.from_dlpack, cupy.asarray, cupy.asnumpy, lambda array: array.data.ptr)


def _jax() -> Library:
    jax = importlib.import_module("jax")
    return Library(
        importlib.import_module("jax.dlpack").from_dlpack,
        lambda values: jax.device_put(values, jax.devices("gpu")[0]).block_until_ready(),
        np.asarray,
        lambda array: array.unsafe_buffer_pointer(),
    )


LIBRARIES: dict[str, Callable[[], Library]] = {"torch": _torch, "cupy": _cupy, "jax": _jax}
