"""Results of a benchmark, as values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from jotr_deploy.profiling.environment import Environment
from jotr_deploy.profiling.interleave import Job, enough
from jotr_deploy.profiling.quiet_samples import Judge, Key

QUANTILES = tuple(range(0, 101, 5))
"""Percentages of `Timing.quantiles_ms`."""
GPU_PARTS = ("enqueue", "gpu", "h2d", "d2h")
GPU_PART = "{} {}"
"""Key of times that a GPU session measures itself, by network and part."""


@dataclass(frozen=True)
class Timing:
    """Statistics of the samples of one job."""

    p10_ms: float  # what the machine is capable of; the most repeatable figure
    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    kept: int
    dropped: int  # taken while the rest of the machine was busy
    busy: bool  # it was busy nearly all the time: no sample was dropped, and the figures are upper bounds
    quantiles_ms: tuple[float, ...] = ()  # of the kept samples at `QUANTILES`: their whole distribution

    @classmethod
    def of(cls, seconds: Sequence[float], dropped: int = 0, busy: bool = False) -> Timing:
        """Statistics of the kept samples, at least one."""
        milliseconds = np.asarray(seconds, np.float64) * 1000
        figures = [*np.percentile(milliseconds, (10, 50, 90, 99, *QUANTILES)), milliseconds.mean()]
        p10, p50, p90, p99, *quantiles, mean = (round(float(figure), 3) for figure in figures)
        return cls(p10, p50, p90, p99, mean, len(seconds), dropped, busy, tuple(quantiles))


@dataclass(frozen=True)
class BatchResult:
    """Results of one network at one batch size."""

    batch: int
    timing: Timing | None  # None: this network does not take this batch
    people_per_s: float | None  # batch / p50
    speed_up: float | None  # p50 of PyTorch eager / p50, same batch, same rounds
    gpu_ms: Mapping[str, float] | None = None  # p50 of "enqueue", "gpu", "h2d" and "d2h", where a GPU ran it


@dataclass(frozen=True)
class NetworkResult:
    """Results of one file of the bundle, or of PyTorch eager."""

    name: str
    engine: str
    precision: str
    device: str
    size_mb: float | None
    batches: tuple[BatchResult, ...]
    body_share: float | None  # of the time at the smallest batch: 1 - p10 without the body / p10
    cold_start_s: float | None  # process start to first result, median
    peak_memory_mb: float | None  # of that process, resident


@dataclass(frozen=True)
class StageResult:
    """Results of one stage of a frame."""

    name: str
    timing: Timing
    share: float | None  # of the sum of all stages' p50


@dataclass(frozen=True)
class BenchResult:
    """Everything `bench` prints."""

    bundle: str
    labels: tuple[str, ...]  # labels that accompany all results of this bundle
    timed: tuple[str, ...]  # definitions of the figures, for people
    networks: tuple[NetworkResult, ...]
    stages: tuple[StageResult, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    environment: Environment

    def as_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain


def timings(jobs: Sequence[Job], rounds: int, judge: Judge) -> dict[Key, Timing]:
    """Figures of one group. With too few undisturbed samples all of them count, and the figures are marked so."""
    busy = not enough(jobs, rounds, judge)
    found = {}
    for key in (key for job in jobs for key in job.keys):
        samples = judge.samples[key]
        kept, dropped = (samples.all_s, 0) if busy else (samples.quiet_s, len(samples.busy_s))
        if kept:
            found[key] = Timing.of(kept, dropped, busy)
    return found


def ratio(
    numerator: Timing | None, denominator: Timing | None, figure: Literal["p10_ms", "p50_ms"] = "p50_ms"
) -> float | None:
    """Ratio of a figure of two networks; None if one is missing, or the machine was busy.

    Cores taken by other processes cost some networks far more than others.
    """
    if numerator is None or denominator is None or numerator.busy or denominator.busy:
        return None
    above, below = getattr(numerator, figure), getattr(denominator, figure)
    return round(above / below, 4) if below else None


def batch_results(
    name: str, batches: Iterable[int], found: Mapping[Key, Timing], eager: str
) -> tuple[BatchResult, ...]:
    """Rows of one network."""
    rows = []
    for batch in batches:
        timing = found.get((name, batch))
        people = round(1000 * batch / timing.p50_ms, 2) if timing and timing.p50_ms else None
        parts = {part: found.get((GPU_PART.format(name, part), batch)) for part in GPU_PARTS}
        gpu_ms = {part: measured.p50_ms for part, measured in parts.items() if measured}
        rows.append(BatchResult(batch, timing, people, ratio(found.get((eager, batch)), timing), gpu_ms or None))
    return tuple(rows)
