import numpy as np
import pytest

from jotr_deploy.profiling.bench_result import Timing, batch_results, ratio, timings
from jotr_deploy.profiling.interleave import Job
from jotr_deploy.profiling.quiet_samples import Judge, Samples

A, B = ("a", 1), ("b", 1)
JOBS = [Job((A,), dict), Job((B,), dict)]


def judged(**samples):
    judge = Judge()
    judge.samples.update({(name, 1): Samples(q, b, q + b) for name, (q, b) in samples.items()})
    return judge


def at(p50_ms):
    return Timing.of([p50_ms / 1000])


def test_percentiles_in_milliseconds():
    timing = Timing.of(list(np.arange(101) / 1000), dropped=3)
    every_5th = tuple(map(float, range(0, 101, 5)))
    assert timing == Timing(10.0, 50.0, 90.0, 99.0, 50.0, kept=101, dropped=3, busy=False, quantiles_ms=every_5th)


@pytest.mark.parametrize(
    ("a", "b", "rounds", "found"),
    [
        (([], []), ([], []), 10, {}),  # nothing was measured
        (([0.1] * 6, [0.9] * 4), ([0.2] * 10, []), 10, {A: (100, 6, 4, False), B: (200, 10, 0, False)}),
        # one of two disturbed nearly always: both are taken as they are, so that they still compare
        (([0.1] * 2, [0.3] * 8), ([0.2] * 10, []), 10, {A: (300, 10, 0, True), B: (200, 10, 0, True)}),
        (([], [0.3] * 10), ([], [0.2] * 10), 10, {A: (300, 10, 0, True), B: (200, 10, 0, True)}),
        (([0.1] * 3, []), ([0.2] * 3, []), 3, {A: (100, 3, 0, False), B: (200, 3, 0, False)}),
    ],
)
def test_dropped_samples_or_a_busy_machine(a, b, rounds, found):
    timed = timings(JOBS, rounds, judged(a=a, b=b))
    assert {key: (t.p50_ms, t.kept, t.dropped, t.busy) for key, t in timed.items()} == found


@pytest.mark.parametrize(
    ("numerator", "denominator", "value"),
    [
        (at(3), at(2), 1.5),
        (None, at(2), None),
        (at(3), None, None),
        (at(3), at(0), None),
        (at(3), Timing.of([0.002], busy=True), None),
        (Timing.of([0.003], busy=True), at(2), None),
    ],
)
def test_ratio_of_medians(numerator, denominator, value):
    assert ratio(numerator, denominator) == value


def test_ratio_of_another_figure():
    assert ratio(Timing.of([1, 1, 4]), Timing.of([2, 2, 3]), "p10_ms") == 0.5


def test_rows_of_a_network():
    found = {("net", 1): at(50), ("net", 4): at(100), ("eager", 4): at(150)}
    rows = batch_results("net", (1, 4, 16), found, "eager")
    assert [(row.batch, row.people_per_s, row.speed_up) for row in rows] == [
        (1, 20.0, None),
        (4, 40.0, 1.5),
        (16, None, None),
    ]
    assert rows[2].timing is None


def test_no_batches_no_rows():
    assert batch_results("net", (), {}, "eager") == ()
