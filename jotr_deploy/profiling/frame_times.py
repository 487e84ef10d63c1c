"""Frame times from the spans of a run: time per stage, latency of a frame, and the stage that sets the rate."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jotr_deploy.profiling.bench_result import Timing
from jotr_deploy.support.spans import NO_FRAME, Span

BUSY = 0.9
"""Share of the time from which a thread counts as busy all the time."""


@dataclass(frozen=True)
class StageProfile:
    """Times of one stage. A sample is the sum of its spans in a frame; a span without a frame is its own sample."""

    name: str
    timing: Timing
    share: float  # of the summed time of all stages


@dataclass(frozen=True)
class Worker:
    """Work of one thread in steady state: between the ends of the first frame and the last, or all along."""

    thread: str
    busy: float  # share of that time spent in any stage, 0..1
    stages: Mapping[str, float]  # share of that time spent in each, the longest first


@dataclass(frozen=True)
class Link:
    """One stage on the critical path of a frame, means over all frames."""

    stage: str
    waits_ms: float  # from the end of the stage before it
    ms: float


@dataclass(frozen=True)
class FrameProfile:
    """Profile of a run. All fields are empty or None without spans."""

    stages: tuple[StageProfile, ...]  # in the order in which a frame passes through them
    frames: int  # frames that passed all stages, and are timed here
    latency: Timing | None  # of a frame, from the start of its first stage to the end of its last
    frames_per_s: float | None  # between the ends of the first and the last frame; None with fewer than two
    path: tuple[Link, ...]  # adds up to the mean latency
    workers: tuple[Worker, ...]  # the busiest first: it sets the rate

    @property
    def bound(self) -> str | None:
        """One line that names what sets the rate."""
        if self.frames == 1 or not self.workers or not self.workers[0].stages:
            return None
        busiest = self.workers[0]
        stage = next(iter(busiest.stages))
        busy = f"thread {busiest.thread} is busy {busiest.busy:.0%} of the time, {busiest.stages[stage]:.0%} in {stage}"
        if busiest.busy < BUSY:
            return f"no thread is busy all the time: the source sets the rate, or what no stage times; {busy}"
        return f"{stage} sets the rate: {busy}"

    def as_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for JSON."""
        return {**asdict(self), "bound": self.bound}


def frame_profile(spans: Sequence[Span]) -> FrameProfile:
    """Compute a profile from spans, in any order.

    A frame is timed from its first stage to its last if it passed all of them: it begins and ends with the same stages
    as most frames. Frames that a live source skipped, or whose beginning is no longer kept,
    only count in their stages.
    """
    spans = sorted(spans, key=lambda span: span.start_s)
    by_frame: dict[int, list[Span]] = defaultdict(list)
    for span in spans:
        if span.frame != NO_FRAME:
            by_frame[span.frame].append(span)
    whole = _whole(list(by_frame.values()))
    ends_s = sorted(map(_end_s, whole))
    steady = len(ends_s) > 1 and ends_s[-1] > ends_s[0]
    from_s, to_s = (ends_s[0], ends_s[-1]) if steady else (spans[0].start_s, _end_s(spans)) if spans else (0.0, 0.0)
    return FrameProfile(
        stages=_stages(spans),
        frames=len(whole),
        latency=Timing.of([_end_s(frame) - frame[0].start_s for frame in whole]) if whole else None,
        frames_per_s=round((len(ends_s) - 1) / (to_s - from_s), 3) if steady else None,
        path=_mean_path(whole),
        workers=_workers(spans, from_s, to_s),
    )


def _last(spans: Sequence[Span]) -> Span:
    return max(spans, key=lambda span: span.end_s)


def _end_s(spans: Sequence[Span]) -> float:
    return _last(spans).end_s


def _whole(frames: Sequence[list[Span]]) -> list[list[Span]]:
    """Frames, each sorted by start, that begin and end as most of them do."""
    if not frames:
        return []

    def ends(frame: list[Span]) -> tuple[str, str]:
        return frame[0].stage, _last(frame).stage

    (usual, _), *_ = Counter(map(ends, frames)).most_common(1)
    return [frame for frame in frames if ends(frame) == usual]


def _stages(spans: Sequence[Span]) -> tuple[StageProfile, ...]:
    """Stages in the order of their first appearance."""
    samples: dict[str, list[float]] = defaultdict(list)
    place: dict[tuple[str, int], int] = {}
    for span in spans:
        own, key = samples[span.stage], (span.stage, span.frame)
        if span.frame != NO_FRAME and key in place:
            own[place[key]] += span.seconds
        else:
            place[key] = len(own)
            own.append(span.seconds)
    whole_s = sum(map(sum, samples.values()))
    return tuple(
        StageProfile(name, Timing.of(own), round(sum(own) / whole_s, 4) if whole_s else 0.0)
        for name, own in samples.items()
    )


def critical_path(frame: Sequence[Span]) -> list[Span]:
    """Stages of one frame that waited for one another, from its last back to its first.

    A stage is preceded by the one that ended latest before it began; stages in parallel with that are not on the path.
    """
    path = [_last(frame)]
    while before := [span for span in frame if span.end_s <= path[-1].start_s and span not in path]:
        path.append(_last(before))
    return path[::-1]


def _mean_path(frames: Sequence[list[Span]]) -> tuple[Link, ...]:
    waits_s: dict[str, float] = defaultdict(float)
    own_s: dict[str, float] = defaultdict(float)
    for frame in frames:
        before_s = frame[0].start_s
        for span in critical_path(frame):
            own_s[span.stage] += span.seconds
            waits_s[span.stage] += span.start_s - before_s
            before_s = span.end_s
    scale = 1000 / max(len(frames), 1)
    return tuple(Link(name, round(waits_s[name] * scale, 3), round(own_s[name] * scale, 3)) for name in own_s)


def _workers(spans: Sequence[Span], from_s: float, to_s: float) -> tuple[Worker, ...]:
    """Work of every thread between two moments; nested spans count once."""
    by_thread: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        by_thread[span.thread].append(span)
    length_s = max(to_s - from_s, 1e-9)
    workers = []
    for thread, own in by_thread.items():
        busy_s, until_s = 0.0, from_s
        in_stage: dict[str, float] = defaultdict(float)
        for span in own:
            in_stage[span.stage] += max(min(span.end_s, to_s) - max(span.start_s, from_s), 0.0)
            busy_s += max(min(span.end_s, to_s) - max(span.start_s, until_s), 0.0)
            until_s = max(until_s, span.end_s)
        stages = sorted(((stage, s) for stage, s in in_stage.items() if s > 0), key=lambda pair: -pair[1])
        shares = {stage: round(seconds / length_s, 4) for stage, seconds in stages}
        workers.append(Worker(thread, round(busy_s / length_s, 4), shares))
    return tuple(sorted(workers, key=lambda worker: -worker.busy))
