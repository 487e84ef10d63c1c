"""Common part of sessions on an NVIDIA GPU: buffers, copies, batching, graphs, timing. Engines only enqueue."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from jotr_deploy.errors import SessionError
from jotr_deploy.runtime.sessions import cuda
from jotr_deploy.runtime.sessions.capture_lock import CAPTURES
from jotr_deploy.runtime.sessions.device_array import DeviceArray, from_cuda
from jotr_deploy.runtime.sessions.session import Session, TensorSpec
from jotr_deploy.support.aliases import Array

BATCH = "batch"
"""Name of the first dimension of all inputs and outputs."""
MAX_GRAPHS = 32
"""Limit on graphs, as each takes memory; further calls are enqueued without one."""
_ALIGNMENT = 256  # of every address passed to TensorRT
_MANY_KEYS = 1024

Key = tuple[int, ...]  # batch size, then the addresses of all inputs
Addresses = Mapping[str, int]
Launch = Callable[[int, Addresses], None]
"""Queues the network, for a batch size and addresses."""


@dataclass(frozen=True)
class Buffer:
    """Space for `max_batch` rows of one input or output, on the GPU and pinned on the host."""

    row_bytes: int
    device: cuda.Memory
    pinned: cuda.Memory
    host: Array  # (max_batch, ...), a view of `pinned`


class CudaSession(Session):
    """A network on an NVIDIA GPU, on the current CUDA device.

    Batches above `max_batch` are split; others are padded with their last row to a power of two, and cut again after:
    an engine prepares anew for each size that it meets, and each takes a graph. Inputs may also be CUDA arrays of other
    libraries, which are read in place. When the same buffers appear a second time at the same batch size, the call is
    captured as a CUDA graph; an engine that cannot be captured is enqueued without graphs from then on, and the log
    reports it.

    A subclass sets the specifications and batch limits, calls `_allocate`, and implements enqueueing and capturing.
    """

    device = "cuda"
    min_batch: int
    max_batch: int
    times: Mapping[str, float]
    """Milliseconds of the last call: host time of the engine's call ("enqueue"), and from GPU events the network
    ("gpu") and the copies ("h2d", "d2h")."""

    _resources: ExitStack
    _stream: cuda.Stream

    def __call__(self, feeds: Mapping[str, Any]) -> dict[str, Array]:
        """Run the network once; see `Session`.

        Args:
            feeds: by input name, host and GPU arrays in any mixture.
        """
        return self._run(self._accept(feeds))

    def run_on_device(self, feeds: Mapping[str, Any]) -> dict[str, DeviceArray]:
        """Run the network once and leave the results on the GPU.

        The results are in the session's own memory, valid until its next call. The GPU is done when this returns, so
        no stream has to wait.

        Raises:
            SessionError: see `__call__`; more rows than `max_batch`.
        """
        accepted = self._accept(feeds)
        rows = self._rows_in_one_call(accepted)
        self._begin()
        self._once(accepted, rows, fetch=False)
        return {name: self._result(name, rows) for name in self.outputs}

    @abstractmethod
    def _enqueue(self, batch: int, addresses: Addresses) -> None:
        """Queue the network on `_stream`, reading and writing at these addresses."""

    @abstractmethod
    def _capture(self, batch: int, addresses: Addresses) -> Launch:
        """Capture the same as a graph and return its launcher, for this batch and these addresses.

        Raises:
            SessionError: the engine cannot be captured.
        """

    def _allocate(self, graphs: bool) -> None:
        """Allocate buffers for every input and output; `_resources` releases them."""
        self._events = [self._own(cuda.Event()) for _ in range(4)]
        self._buffers = {name: self._buffer(spec) for name, spec in {**self.inputs, **self.outputs}.items()}
        self._capturing = graphs
        self._graphs: dict[Key, Launch] = {}
        self._met: set[Key] = set()
        self._begin()

    def _own(self, thing: Any) -> Any:
        self._resources.callback(thing.release)
        return thing

    def _buffer(self, spec: TensorSpec) -> Buffer:
        shape = (self.max_batch, *(int(size) for size in spec.shape[1:]))
        row_bytes = int(np.prod(shape[1:])) * spec.dtype.itemsize
        device = self._own(cuda.Memory.on_device(self.max_batch * row_bytes))
        pinned = self._own(cuda.Memory.pinned(self.max_batch * row_bytes))
        return Buffer(row_bytes, device, pinned, pinned.as_array(shape, spec.dtype))

    def _free(self) -> None:
        with CAPTURES.allocating():
            self._graphs.clear()
            self._resources.close()

    def _accept(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        if self._closed:
            raise SessionError(f"{self.path.name}: the session is closed", "open it again with open_session")
        accepted = {name: from_cuda(feed, self._stream) for name, feed in feeds.items()}
        self._check(accepted)
        return accepted

    def _rows_in_one_call(self, feeds: Mapping[str, Any]) -> int:
        rows = len(next(iter(feeds.values())))
        if rows > self.max_batch:
            raise SessionError(
                f"{self.path.name}: {rows} rows at once, but results on the GPU have room for {self.max_batch}",
                f"call it with at most {self.max_batch} rows",
            )
        return rows

    def _run(self, feeds: dict[str, Any]) -> dict[str, Array]:
        rows = len(next(iter(feeds.values())))
        self._begin()
        parts = []
        for start in range(0, rows, self.max_batch):
            part = slice(start, min(start + self.max_batch, rows))
            count = part.stop - part.start
            self._once({name: feed[part] for name, feed in feeds.items()}, count, fetch=True)
            parts.append({name: self._buffers[name].host[:count].copy() for name in self.outputs})
        if len(parts) == 1:
            return parts[0]
        empty = {name: self._buffers[name].host[:0] for name in self.outputs}
        return {name: np.concatenate([part[name] for part in [empty, *parts]]) for name in self.outputs}

    def _result(self, name: str, rows: int) -> DeviceArray:
        spec, memory = self.outputs[name], self._buffers[name].device
        shape = (rows, *(int(size) for size in spec.shape[1:]))
        array = DeviceArray(memory.pointer, shape, spec.dtype, memory, self._stream.device)
        memory.viewers.add(array)
        return array

    def _begin(self) -> None:
        self.times = dict.fromkeys(("enqueue", "gpu", "h2d", "d2h"), 0.0)

    def _once(self, feeds: Mapping[str, Any], rows: int, fetch: bool, launch: Launch | None = None) -> None:
        """One call of the engine, from staging to completion on the GPU; its times are added up."""
        if rows == 0:
            return
        batch = padded(rows, self.min_batch, self.max_batch)
        in_place = {name: feed.pointer for name, feed in feeds.items() if _usable_in_place(feed, batch)}
        copied = {name: feed for name, feed in feeds.items() if name not in in_place}
        addresses = {name: in_place.get(name, buffer.device.pointer) for name, buffer in self._buffers.items()}
        launch = launch or self._launcher(batch, addresses)
        for name, feed in copied.items():
            if isinstance(feed, np.ndarray):
                host = self._buffers[name].host
                host[:rows], host[rows:batch] = feed, feed[-1]
        before, fed, computed, after = self._events
        self._stream.record(before)
        for name, feed in copied.items():
            self._copy_in(self._buffers[name], feed, batch)
        self._stream.record(fed)
        start = time.perf_counter()
        launch(batch, addresses)
        enqueue = time.perf_counter() - start
        self._stream.record(computed)
        if fetch:
            for buffer in (self._buffers[name] for name in self.outputs):
                self._stream.to_host(buffer.pinned.pointer, buffer.device.pointer, rows * buffer.row_bytes)
        self._stream.record(after)
        self._stream.synchronize()
        spent = {
            "enqueue": enqueue * 1e3,
            "gpu": computed.ms_since(fed),
            "h2d": fed.ms_since(before),
            "d2h": after.ms_since(computed),
        }
        self.times = {name: self.times[name] + ms for name, ms in spent.items()}

    def _copy_in(self, buffer: Buffer, feed: Any, batch: int) -> None:
        target, row = buffer.device.pointer, buffer.row_bytes
        if isinstance(feed, np.ndarray):
            self._stream.to_device(target, buffer.pinned.pointer, batch * row)
            return
        self._stream.on_device(target, feed.pointer, len(feed) * row)
        for index in range(len(feed), batch):
            self._stream.on_device(target + index * row, feed.pointer + (len(feed) - 1) * row, row)

    def _launcher(self, batch: int, addresses: Addresses) -> Launch:
        """The graph for these buffers and batch size, captured the second time they appear; else a plain call."""
        key = (batch, *(addresses[name] for name in self.inputs))
        if key not in self._graphs and key in self._met and self._capturing and len(self._graphs) < MAX_GRAPHS:
            try:
                with CAPTURES.alone():
                    self._graphs[key] = self._capture(batch, addresses)
            except SessionError as error:
                self._capturing = False
                logging.getLogger("jotr_deploy").warning(
                    "%s: no CUDA graphs, plain calls instead: %s", self.path.name, error.cause
                )
        if len(self._met) >= _MANY_KEYS:  # arrays that never reappear
            self._met.clear()
        self._met.add(key)
        return self._graphs.get(key, self._enqueue_plain)

    def _enqueue_plain(self, batch: int, addresses: Addresses) -> None:
        with CAPTURES.allocating():  # engines allocate when they meet a new batch size
            self._enqueue(batch, addresses)


def padded(rows: int, least: int, most: int) -> int:
    """The batch that so many rows are computed in, a power of two between an engine's limits.

    >>> [padded(rows, 1, 24) for rows in (1, 3, 4, 17)]
    [1, 4, 4, 24]
    """
    return int(np.clip(1 << (rows - 1).bit_length(), least, most))


def _usable_in_place(feed: Any, batch: int) -> bool:
    """True if an engine can read an array in place: on the GPU, aligned, no padding needed."""
    return isinstance(feed, DeviceArray) and len(feed) == batch and feed.pointer % _ALIGNMENT == 0
