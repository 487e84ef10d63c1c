"""One request while it is worked on: its deadline, whether its client has left, and where its time went."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as WaitedTooLong
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jotr_deploy.support.spans import Spans


class DeadlineExceeded(Exception):
    """The request took longer than its client, or the server, allows."""


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


class RequestContext:
    """Deadline and cancellation of one request; safe to use from any thread."""

    def __init__(self, seconds: float) -> None:
        self._deadline_s = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._cancelled = False
        self._waiting_for: Future[Any] | None = None
        self.stages_s: dict[str, float] = {}

    @property
    def left_s(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self._deadline_s - time.monotonic()

    @property
    def over(self) -> bool:
        """True if the answer is of no use any more."""
        return self._cancelled or self.left_s <= 0

    def cancel(self) -> None:
        """End the work at its next step; a wait for a network that has not started ends at once."""
        with self._lock:
            self._cancelled = True
            if self._waiting_for is not None:
                self._waiting_for.cancel()

    def shorten(self, seconds: float) -> None:
        """Bring the deadline forward to `seconds` from now, as the body of the request asks."""
        self._deadline_s = min(self._deadline_s, time.monotonic() + seconds)

    def check(self) -> None:
        """Stop here if the answer is of no use any more.

        Raises:
            ClientLeft, DeadlineExceeded
        """
        if self._cancelled:
            raise ClientLeft
        if self.left_s <= 0:
            raise DeadlineExceeded

    def result(self, future: Future[Any]) -> Any:
        """The result of a future, for which the request waits no longer than its deadline.

        Raises:
            ClientLeft, DeadlineExceeded
            Exception: what the future raises.
        """
        with self._lock:
            self._waiting_for = future
            if self._cancelled:
                future.cancel()
        try:
            return future.result(max(self.left_s, 0))
        except (WaitedTooLong, CancelledError):
            if future.done() and not future.cancelled():
                raise
            future.cancel()
            raise (ClientLeft if self._cancelled else DeadlineExceeded) from None
        finally:
            self._waiting_for = None

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Make this the `current` request of the thread inside the block."""
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)


_CURRENT: ContextVar[RequestContext | None] = ContextVar("request", default=None)


def current() -> RequestContext | None:
    """The request that this thread works on, if any."""
    return _CURRENT.get()


class RequestSpans(Spans):
    """Spans that add up each stage for the request at hand, and keep none: a server runs for weeks."""

    def record(self, stage: str, frame: int, start_s: float) -> None:
        """Add a span from `start_s` until now to the current request."""
        context = current()
        if context is not None:
            took_s = time.perf_counter() - start_s
            context.stages_s[stage] = context.stages_s.get(stage, 0.0) + took_s
