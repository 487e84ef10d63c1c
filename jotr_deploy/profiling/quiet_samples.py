"""Selection of samples taken while the rest of the machine was quiet and our own threads idle."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import psutil

BUSY_SHARE = 0.12
"""Largest share of all cores that other processes may use during a sample that counts."""
WINDOW_S = 0.2
"""Samples are judged in groups at least this long: the kernel counts processor time in ticks of 10 ms."""

Key = tuple[str, "str | int"]
"""Key of a sample: (network, batch), ("stage", name) or ("cold", network)."""

_BUSY_FIELDS = ("user", "nice", "system", "irq", "softirq", "steal")
_NAP_S = 0.005
_NAPS_AT_MOST = 60


@dataclass(frozen=True)
class Usage:
    """Clock and processor time at one moment, seconds."""

    wall_s: float
    machine_s: float  # of all processes, all cores
    own_s: float  # of this process and its ended children, all cores


def usage() -> Usage:
    """Read the clocks."""
    machine = psutil.cpu_times()
    children = os.times()
    own_s = time.process_time() + children.children_user + children.children_system
    return Usage(time.perf_counter(), sum(getattr(machine, name, 0.0) for name in _BUSY_FIELDS), own_s)


def others_share(before: Usage, after: Usage, cores: int) -> float:
    """Share of all cores that other processes used in between, 0..1."""
    others_s = (after.machine_s - before.machine_s) - (after.own_s - before.own_s)
    return max(others_s, 0.0) / (max(after.wall_s - before.wall_s, 1e-9) * cores)


@dataclass
class Samples:
    """Samples of one job in seconds, in the order they were taken."""

    quiet_s: list[float] = field(default_factory=list)
    busy_s: list[float] = field(default_factory=list)
    all_s: list[float] = field(default_factory=list)


class Judge:
    """Judge that sorts samples into quiet and busy, a window at a time.

    >>> judge = Judge()
    >>> judge.add({("mesh.onnx", 1): 0.08})
    >>> judge.close()
    >>> len(judge.samples["mesh.onnx", 1].all_s)
    1
    """

    def __init__(
        self,
        read: Callable[[], Usage] = usage,
        sleep: Callable[[float], None] = time.sleep,
        cores: int | None = None,
    ) -> None:
        self.samples: dict[Key, Samples] = defaultdict(Samples)
        self._read, self._sleep = read, sleep
        self._cores = cores or os.cpu_count() or 1
        self._pending: list[Mapping[Key, float]] = []
        self.restart()

    def restart(self) -> None:
        """Begin a window here, ignoring everything since the last sample."""
        self._start = self._read()

    def add(self, seconds: Mapping[Key, float]) -> None:
        """Take samples that end now; they are judged when the window is long enough."""
        self._pending.append(seconds)
        now = self._read()
        if now.wall_s - self._start.wall_s >= WINDOW_S:
            self._judge(now)

    def close(self) -> None:
        """Judge the pending samples, in a window of full length."""
        if not self._pending:
            return
        self._sleep(max(0.0, WINDOW_S - (self._read().wall_s - self._start.wall_s)))
        self._judge(self._read())

    def _judge(self, now: Usage) -> None:
        busy = others_share(self._start, now, self._cores) > BUSY_SHARE
        for seconds in self._pending:
            for key, value in seconds.items():
                samples = self.samples[key]
                (samples.busy_s if busy else samples.quiet_s).append(value)
                samples.all_s.append(value)
        self._pending, self._start = [], now


def settle() -> None:
    """Sleep until the threads of this process are idle.

    Engines keep their workers spinning after a call, OpenMP for about 10 ms and ONNX Runtime by default for
    about 40 ms, which would take cores from the next job: PyTorch straight after ONNX Runtime takes a third longer.
    """
    before = time.process_time()
    for _ in range(_NAPS_AT_MOST):
        time.sleep(_NAP_S)
        now = time.process_time()
        if now - before < 0.1 * _NAP_S:
            return
        before = now
