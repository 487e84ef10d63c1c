"""Bounded admission: how many requests, and how many bytes of their bodies, the server holds at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jotr_deploy.serving.refusals import Refused

RETRY_AFTER_S = 1


class Admission:
    """Counts of what is held. A request that would exceed them is refused at once, and costs next to nothing.

    A body counts while it is received, a request once its body is complete: clients that stall use up no place.
    """

    def __init__(self, requests: int, body_bytes: int) -> None:
        self.limit, self.most_bytes = requests, body_bytes
        self.admitted, self.held_bytes = 0, 0
        self._lock = threading.Lock()

    def check(self) -> None:
        """Refuse a request before its body is read.

        Raises:
            Refused: there is no room.
        """
        if self.admitted >= self.limit:
            raise self._full()

    def enter(self) -> None:
        """Admit a request; `leave` ends it.

        Raises:
            Refused: there is no room.
        """
        with self._lock:
            if self.admitted >= self.limit:
                raise self._full()
            self.admitted += 1

    def leave(self) -> None:
        """End an admitted request."""
        with self._lock:
            self.admitted -= 1

    @contextmanager
    def holding(self) -> Iterator[Callable[[int], None]]:
        """A function that counts further bytes of one body, which are released at the end of the block.

        It raises Refused if the bodies of all requests take too much memory.
        """
        held = 0

        def add(count: int) -> None:
            nonlocal held
            with self._lock:
                if self.held_bytes + count > self.most_bytes:
                    raise self._full("memory")
                self.held_bytes += count
                held += count

        try:
            yield add
        finally:
            with self._lock:
                self.held_bytes -= held

    def _full(self, reason: str = "full") -> Refused:
        return Refused(
            429,
            f"the server is full: {self.admitted} requests are waiting or being worked on",
            f"try again in {RETRY_AFTER_S} s",
            retry_after_s=RETRY_AFTER_S,
            reason=reason,
        )
