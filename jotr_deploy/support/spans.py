"""Timing of frames: named spans, recorded by the code that does the work."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

KEPT = 50_000
"""Spans kept: the last ones of a long source, about 5,000 frames or 10 MB. Totals include all of them."""
NO_FRAME = -1


class Span(NamedTuple):
    """One stage of one frame, timed by `time.perf_counter`."""

    stage: str
    frame: int  # 0-based position in the source, NO_FRAME for work that belongs to none
    start_s: float
    end_s: float
    thread: str  # name of the thread that did it; stages that overlap run in different threads

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.end_s - self.start_s


class Spans:
    """Spans of many frames, recorded by any number of threads.

    >>> spans = Spans()
    >>> with spans("crop", frame=0):
    ...     pass
    >>> [span.stage for span in spans.spans], list(spans.seconds)
    (['crop'], ['crop'])
    """

    def __init__(self) -> None:
        self._kept: deque[Span] = deque(maxlen=KEPT)
        self._totals_s: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, stage: str, frame: int = NO_FRAME) -> Iterator[None]:
        """Time the body of the `with` under a stage's name, also if it raises."""
        start_s = time.perf_counter()
        try:
            yield
        finally:
            self.record(stage, frame, start_s)

    def record(self, stage: str, frame: int, start_s: float) -> None:
        """Record a span from `start_s` until now, for callers that learn the frame's number only at the end."""
        span = Span(stage, frame, start_s, time.perf_counter(), threading.current_thread().name)
        with self._lock:
            self._kept.append(span)
            self._totals_s[stage] = self._totals_s.get(stage, 0.0) + span.seconds

    def add(self, stage: str, seconds: float) -> None:
        """Add time that another process spent in a stage."""
        with self._lock:
            self._totals_s[stage] = self._totals_s.get(stage, 0.0) + seconds

    def total(self, stage: str) -> float:
        """Seconds spent in a stage so far, including spans no longer kept."""
        return self._totals_s.get(stage, 0.0)

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages, in the order they were first seen."""
        with self._lock:
            return tuple(self._totals_s)

    @property
    def spans(self) -> tuple[Span, ...]:
        """The last `KEPT` spans, in the order they ended."""
        with self._lock:
            return tuple(self._kept)

    @property
    def seconds(self) -> dict[str, list[float]]:
        """Durations of the kept spans by stage, the stages in the order they were first seen."""
        with self._lock:
            found: dict[str, list[float]] = {stage: [] for stage in self._totals_s}
            for span in self._kept:
                found[span.stage].append(span.seconds)
        return found
