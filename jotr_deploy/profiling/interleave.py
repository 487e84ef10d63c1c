"""Interleaved measurement: everything compared runs in the same rounds, so that a slow minute affects it all."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from jotr_deploy.profiling.quiet_samples import Judge, Key, settle
from jotr_deploy.support.aliases import Progress

WARM_UP_CALLS = 3
SAMPLES_AT_LEAST, SAMPLES_AT_MOST = 10, 200
ENOUGH = 5
"""Fewest undisturbed samples of a group; with fewer it is measured again, then reported as busy."""


@dataclass(frozen=True)
class Job:
    """Action that is done once a round."""

    keys: tuple[Key, ...]  # keys of its timings
    run: Callable[[], Mapping[Key, float]]  # returns the seconds of every key


Groups = Mapping[str, Sequence[Job]]
"""Jobs that are compared with one another, by the group's name."""


def timed(key: Key, call: Callable[[], object], parts: Mapping[Key, Callable[[], float]] = MappingProxyType({})) -> Job:
    """Job of one call; its result is freed outside the sample.

    `parts` are called afterwards, for seconds that the callee itself measured of the call.
    """

    def run() -> Mapping[Key, float]:
        start = time.perf_counter()
        result = call()
        seconds = time.perf_counter() - start
        del result
        return {key: seconds, **{part: measured() for part, measured in parts.items()}}

    return Job((key, *parts), run)


def warm_up(groups: Groups, seconds: float, progress: Progress) -> dict[str, float]:
    """Run every job `WARM_UP_CALLS` times, or until its group has used its share of the seconds.

    Returns:
        The seconds that a round of each group takes.
    """
    costs = {}
    for done, (name, jobs) in enumerate(groups.items()):
        progress("warming up", done, len(groups))
        begin = time.perf_counter()
        for _ in range(WARM_UP_CALLS):
            start = time.perf_counter()
            for job in jobs:
                settle()
                job.run()
            costs[name] = time.perf_counter() - start
            if time.perf_counter() - begin > seconds / len(groups):
                break
    return costs


def plan_rounds(costs: Mapping[str, float], seconds: float) -> dict[str, int]:
    """Rounds by group: an equal share of the time for each, within the limits on the number of samples."""
    share = seconds / max(len(costs), 1)
    return {
        name: min(max(int(share / max(cost, 1e-9)), SAMPLES_AT_LEAST), SAMPLES_AT_MOST) for name, cost in costs.items()
    }


def schedule(plan: Mapping[str, int]) -> Iterator[tuple[str, ...]]:
    """Groups of each round: the longest is in every round, the others spread evenly over all rounds.

    >>> list(schedule({"batch 1": 4, "batch 16": 2}))
    [('batch 1',), ('batch 1', 'batch 16'), ('batch 1',), ('batch 1', 'batch 16')]
    """
    rounds = max(plan.values(), default=0)
    for index in range(rounds):
        yield tuple(name for name, count in plan.items() if (index + 1) * count // rounds > index * count // rounds)


def collect(
    groups: Groups, plan: Mapping[str, int], judge: Judge, step: str, progress: Progress, at_most_s: float = math.inf
) -> None:
    """Measure, then continue, at most as long again, until there are enough undisturbed samples.

    After `at_most_s` seconds only groups that have had fewer than `ENOUGH` rounds go on.
    """
    end = time.perf_counter() + at_most_s
    count = dict.fromkeys(plan, 0)

    def wanted(name: str, again: bool) -> bool:
        late = time.perf_counter() > end and count[name] >= ENOUGH
        return not late and not (again and enough(groups[name], plan[name], judge))

    rounds = list(schedule(plan))
    for again in (False, True):
        judge.restart()
        for done, scheduled in enumerate(rounds):
            names = [name for name in scheduled if wanted(name, again)]
            if names:
                progress(f"{step} again, the machine was busy" if again else step, done, len(rounds))
            for name in names:
                count[name] += 1
                for job in groups[name]:
                    settle()
                    judge.add(job.run())
        judge.close()


def enough(jobs: Sequence[Job], rounds: int, judge: Judge) -> bool:
    """True if all jobs of a group have enough undisturbed samples; if there are few, all must be undisturbed."""

    def has(key: Key) -> bool:
        samples = judge.samples[key]
        return len(samples.quiet_s) >= max(1, min(ENOUGH, rounds, len(samples.all_s)))

    return all(has(key) for job in jobs for key in job.keys)
