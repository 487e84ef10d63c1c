"""Exclusion between captures of CUDA graphs and calls that CUDA forbids meanwhile, such as allocations.

ONNX Runtime captures in CUDA's global mode: until the capture ends, an allocation in any thread fails, and spoils the
capture with it (error 900). The stages of a run are threads, each with networks of its own, so a capture waits until no
thread is in such a call, and they wait until the capture has ended. A replayed graph needs neither.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Captures:
    """Lets captures run alone. Calls of different threads that only must not meet a capture overlap freely."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._capturing: int | None = None  # thread
        self._waiting = 0  # captures that have not begun
        self._inside = Counter[int]()  # thread -> depth of its `allocating` blocks
        self._frees: list[Callable[[], object]] = []

    @contextmanager
    def alone(self) -> Iterator[None]:
        """A block that captures, begun when no other thread is in `allocating` or captures."""
        me = threading.get_ident()
        with self._changed:
            if self._inside[me]:
                raise RuntimeError("a capture must not begin inside a block that allocates: two would wait forever")
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: self._capturing is None and not self._inside.total())
            finally:
                self._waiting -= 1
            self._capturing = me
        try:
            yield
        finally:
            with self._changed:
                self._capturing = None
                frees, self._frees = self._frees, []
                self._changed.notify_all()
            for free in frees:
                self.free(free)

    @contextmanager
    def allocating(self) -> Iterator[None]:
        """A block that may allocate, load or free on the GPU; it waits for captures of other threads."""
        me = threading.get_ident()
        with self._changed:
            # Within such a block of its own, or within its own capture, a thread must not wait for itself.
            self._changed.wait_for(
                lambda: self._inside[me] or self._capturing == me or (self._capturing is None and not self._waiting)
            )
            self._inside[me] += 1
        try:
            yield
        finally:
            self._leave(me)

    def free(self, release: Callable[[], object]) -> None:
        """Release memory now, or after the capture in progress: the garbage collector, which may call, cannot wait."""
        me = threading.get_ident()
        with self._changed:
            if self._capturing is not None:
                self._frees.append(release)
                return
            self._inside[me] += 1
        try:
            release()
        finally:
            self._leave(me)

    def _leave(self, thread: int) -> None:
        with self._changed:
            self._inside[thread] -= 1
            if not self._inside[thread]:
                del self._inside[thread]
            self._changed.notify_all()


CAPTURES = Captures()
"""The lock of this process: a capture in global mode concerns all of its threads."""
