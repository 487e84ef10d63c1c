"""Where the time of a frame goes: named spans, measured by whoever does the work."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Spans:
    """Durations by stage, in the order they were first seen.

    >>> spans = Spans()
    >>> with spans("crop"):
    ...     pass
    >>> list(spans.seconds)
    ['crop']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time the body of the `with` under a stage's name."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage].append(time.perf_counter() - start)

    def total(self, stage: str) -> float:
        """Seconds spent in a stage so far."""
        return sum(self.seconds.get(stage, ()))
