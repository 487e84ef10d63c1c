"""A session that any number of threads may call: what waits while the network works goes through it together."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from jotr_deploy.errors import SessionError
from jotr_deploy.runtime.sessions import Session
from jotr_deploy.runtime.sessions.cuda_session import CudaSession
from jotr_deploy.serving.request_context import RequestContext, current
from jotr_deploy.support.aliases import Array

SIZES = (1, 2, 4, 8, 16)
"""Batch sizes that are warmed; on a GPU others are padded to the next of them, as each needs a graph of its own."""
CLOSE_S = 10.0
"""Longest wait for the current call when the session is closed."""
SAME = 0.01
"""Largest difference between a row alone and in a batch, relative to the largest value, for rows to be merged."""

Observe = Callable[[Sequence[float], float, int], None]
"""Called after every call of the network: seconds that each request waited, seconds of the call, rows."""


@dataclass(frozen=True, eq=False)
class _Call:
    """Feeds of one request, waiting for the network."""

    feeds: dict[str, Array]
    rows: int
    shapes: tuple[tuple[int, ...], ...]
    context: RequestContext | None
    since_s: float
    future: Future[dict[str, Array]]


class BatchedSession(Session):
    """Session of one network for many threads.

    One thread owns the inner session, which it opens, calls and closes. It never waits for a batch to fill: it takes
    all calls that came while the network worked, up to the largest size. If a merged call fails, its members are run
    one by one, so only those at fault fail. Members whose client has left or whose deadline has passed are dropped.

    Calls are merged only after `warm` has seen that the network treats the rows of a batch independently.
    """

    def __init__(
        self, open_inner: Callable[[], Session], observe: Observe = lambda waits_s, took_s, rows: None
    ) -> None:
        """Open the inner session in a thread of its own; what that raises is raised here."""
        self.most = 1
        self._observe = observe
        self._changed = threading.Condition()
        self._queue: deque[_Call] = deque()
        self._ending = False
        self._fault: BaseException | None = None
        self._busy_since_s: float | None = None
        self._sample: dict[str, Array] | None = None
        self._padded = False
        opened: Future[Session] = Future()
        self._thread = threading.Thread(target=self._own, args=(open_inner, opened), name="network", daemon=True)
        self._thread.start()
        inner = opened.result()
        self.path, self.inputs, self.outputs, self.metadata = inner.path, inner.inputs, inner.outputs, inner.metadata
        self._thread.name = f"network {inner.path.stem}"

    @property
    def alive(self) -> bool:
        """True while the thread of the network runs."""
        return self._fault is None and self._thread.is_alive()

    @property
    def on_gpu(self) -> bool:
        """True if the network runs on an NVIDIA GPU, with graphs for some batch sizes."""
        return self._padded

    @property
    def busy_s(self) -> float:
        """Seconds since the current call of the network began; 0 between calls."""
        since_s = self._busy_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    @property
    def sample(self) -> dict[str, Array] | None:
        """One row for every input, as the pipeline feeds it; None if it was never called and has open sizes."""
        if self._sample is not None:
            return self._sample
        if any(isinstance(size, str) for spec in self.inputs.values() for size in spec.shape[1:]):
            return None
        rng = np.random.default_rng(0)
        shapes = {name: (1, *(int(size) for size in spec.shape[1:])) for name, spec in self.inputs.items()}
        return {name: rng.random(shape).astype(self.inputs[name].dtype) for name, shape in shapes.items()}

    def warm(self) -> None:
        """Run the network at every batch size, and find the largest at which requests may share a call.

        Engines plan memory, kernels and graphs at the first call of a size, which takes seconds on a GPU.
        """
        sample = self.sample
        specs = [*self.inputs.values(), *self.outputs.values()]
        if sample is None or any(not spec.shape or isinstance(spec.shape[0], int) for spec in specs):
            return
        other = {name: (row * 0.5).astype(row.dtype) for name, row in sample.items()}
        first, last = self(sample), self(other)
        for size in SIZES:
            rows = [sample] * max(size - 1, 1) + [other] * (size > 1)
            feeds = {name: np.concatenate([row[name] for row in rows]) for name in sample}
            try:
                outputs = [self(feeds) for _ in range(2 if self._padded else 1)][
                    -1
                ]  # a graph is captured on the second
            except Exception as error:
                logging.getLogger("jotr_deploy").warning("%s: no batches of %d: %s", self.path.name, size, error)
                return
            if not all(_same_rows(first[name], last[name], outputs[name], size) for name in self.outputs):
                logging.getLogger("jotr_deploy").warning(
                    "%s: its rows depend on one another, so requests go through it one by one", self.path.name
                )
                self.most = 1
                return
            self.most = size

    def _run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        context = current()
        if context is not None:
            context.check()
        shapes = tuple(array.shape[1:] for array in feeds.values())
        call = _Call(feeds, len(next(iter(feeds.values()))), shapes, context, time.perf_counter(), Future())
        with self._changed:
            if self._fault is not None or self._ending:
                raise self._stopped()
            if self._sample is None and call.rows:
                self._sample = {name: array[:1].copy() for name, array in feeds.items()}
            self._queue.append(call)
            self._changed.notify()
        return call.future.result() if context is None else context.result(call.future)

    def _free(self) -> None:
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(CLOSE_S)  # a call that hangs would keep the process

    def _stopped(self) -> SessionError:
        return SessionError(f"{self.path.name}: the network has stopped", "start the server again; its log says why")

    def _own(self, open_inner: Callable[[], Session], opened: Future[Session]) -> None:
        """Life of the network's thread."""
        try:
            inner = open_inner()
        except BaseException as error:
            opened.set_exception(error)
            return
        self._padded = isinstance(inner, CudaSession)
        opened.set_result(inner)
        taken: list[_Call] = []
        try:
            with inner:
                while taken := self._take():
                    self._work(inner, taken)
        except BaseException as error:  # not even the thread's end may leave a caller waiting
            logging.getLogger("jotr_deploy").error("%s: the network has stopped", inner.path.name, exc_info=error)
            with self._changed:
                self._fault = error
                left, self._queue = [*taken, *self._queue], deque()
            for call in left:
                if not call.future.done():
                    call.future.set_exception(self._stopped())

    def _take(self) -> list[_Call]:
        """The next calls that fit into one batch, in the order in which they came; none at the end."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._queue or self._ending)
                if not self._queue:
                    return []
                taken, kept, rows = list[_Call](), deque[_Call](), 0
                for call in self._queue:
                    alike = not taken or (call.shapes == taken[0].shapes and rows + call.rows <= self.most)
                    if not alike:
                        kept.append(call)
                    elif not self._dropped(call):
                        taken.append(call)
                        rows += call.rows
                self._queue = kept
                if taken:
                    return taken

    @staticmethod
    def _dropped(call: _Call) -> bool:
        """True for a call that nobody waits for; any other can no longer be cancelled."""
        if call.context is not None and call.context.over:
            call.future.cancel()
        return not call.future.set_running_or_notify_cancel()

    def _work(self, inner: Session, taken: list[_Call]) -> None:
        try:
            self._run_together(inner, taken)
        except Exception as error:
            if len(taken) == 1:
                taken[0].future.set_exception(error)
                return
            for call in taken:
                self._work(inner, [call])

    def _run_together(self, inner: Session, taken: list[_Call]) -> None:
        rows = sum(call.rows for call in taken)
        feeds = {name: np.concatenate([call.feeds[name] for call in taken]) for name in self.inputs}
        if len(taken) == 1:
            feeds = taken[0].feeds
        start_s = time.perf_counter()
        self._busy_since_s = time.monotonic()
        try:
            outputs = inner(_padded(feeds, rows) if self._padded and rows <= self.most else feeds)
        finally:
            self._busy_since_s = None
        took_s = time.perf_counter() - start_s
        if len(taken) == 1 and not self._padded:
            taken[0].future.set_result(outputs)
        else:
            first = 0
            for call in taken:  # copies: a caller who keeps its rows must not keep everybody's
                part = {name: array[first : first + call.rows].copy() for name, array in outputs.items()}
                call.future.set_result(part)
                first += call.rows
        self._observe([start_s - call.since_s for call in taken], took_s, rows)


def _padded(feeds: dict[str, Array], rows: int) -> dict[str, Array]:
    """Feeds of the next size in `SIZES`, the last row repeated."""
    size = next((size for size in SIZES if size >= rows), rows)
    if size == rows or not rows:
        return feeds
    return {name: np.concatenate([array, np.repeat(array[-1:], size - rows, axis=0)]) for name, array in feeds.items()}


def _same_rows(first: Array, last: Array, together: Array, size: int) -> bool:
    """True if an output has `size` rows, its first and last like those that the network gives for them alone."""
    if first.shape[:1] != (1,) or last.shape != first.shape or together.shape != (size, *first.shape[1:]):
        return False
    if first.dtype.kind != "f":
        return True
    expected = np.concatenate([first, last if size > 1 else first]).astype(np.float64)
    difference: Any = np.abs(together[[0, -1]] - expected)
    return bool(difference.max(initial=0) <= SAME * max(1.0, float(np.abs(expected).max(initial=0))))
