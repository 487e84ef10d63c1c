import time
from collections import Counter, defaultdict
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotr_deploy.profiling import interleave
from jotr_deploy.profiling.interleave import Job, collect, enough, plan_rounds, schedule, timed, warm_up
from jotr_deploy.profiling.quiet_samples import Samples


def no_progress(step, done, total):
    pass


class Verdicts:
    """A judge who finds the named keys busy a number of times."""

    def __init__(self, busy=None):
        self.samples, self.order, self.busy = defaultdict(Samples), [], Counter(busy or {})

    def restart(self):
        pass

    def add(self, seconds):
        for key, value in seconds.items():
            samples = self.samples[key]
            self.order.append(key)
            self.busy[key] -= 1
            (samples.busy_s if self.busy[key] >= 0 else samples.quiet_s).append(value)
            samples.all_s.append(value)

    def close(self):
        pass


@pytest.fixture(autouse=True)
def idle_machine(monkeypatch):
    monkeypatch.setattr(interleave, "settle", lambda: None)


def job(name):
    return Job(((name, 1),), lambda: {(name, 1): 0.001})


@pytest.mark.parametrize(
    ("costs", "seconds", "plan"),
    [
        ({}, 30, {}),  # nothing to measure
        ({"a": 1.0}, 30, {"a": 30}),
        ({"a": 0.5, "b": 1.0}, 30, {"a": 30, "b": 15}),
        ({"a": 0.5, "b": 100.0}, 30, {"a": 30, "b": 10}),  # never fewer than 10
        ({"a": 0.001}, 30, {"a": 200}),  # never more than 200
        ({"a": 0.0}, 30, {"a": 200}),
        ({"a": 1.0}, 0, {"a": 10}),
    ],
)
def test_rounds_share_the_time(costs, seconds, plan):
    assert plan_rounds(costs, seconds) == plan


def test_an_empty_plan_has_no_rounds():
    assert list(schedule({})) == []


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 60), min_size=1))
def test_every_group_has_its_rounds_spread_evenly(plan):
    rounds = list(schedule(plan))
    assert len(rounds) == max(plan.values())
    assert Counter(name for names in rounds for name in names) == plan
    for name in plan:
        at = [index for index, names in enumerate(rounds) if name in names]
        gaps = [later - earlier for earlier, later in pairwise(at)]
        assert not gaps or max(gaps) - min(gaps) <= 1


def test_all_of_a_round_take_turns():
    judge = Verdicts()
    collect({"g": [job("a"), job("b"), job("c")]}, {"g": 2}, judge, "measuring", no_progress)
    assert [key[0] for key in judge.order] == list("abcabc")


def test_only_what_was_disturbed_is_measured_again():
    judge = Verdicts(busy={("b", 1): 8})
    steps = []
    groups = {"first": [job("a")], "second": [job("b"), job("c")]}
    collect(groups, {"first": 10, "second": 10}, judge, "measuring", lambda step, done, total: steps.append(step))
    counts = {key[0]: (len(s.quiet_s), len(s.busy_s)) for key, s in judge.samples.items()}
    assert counts == {"a": (10, 0), "b": (5, 8), "c": (13, 0)}  # until there are enough
    assert list(dict.fromkeys(steps)) == ["measuring", "measuring again, the machine was busy"]


@pytest.mark.parametrize(("rounds", "samples"), [(10, 5), (3, 3), (5, 5)])
def test_when_the_time_is_over_the_fewest_rounds_are_still_run(rounds, samples):
    judge = Verdicts()
    collect({"g": [job("a")]}, {"g": rounds}, judge, "measuring", no_progress, at_most_s=-1)
    assert len(judge.samples["a", 1].all_s) == samples


def test_a_busy_machine_is_not_waited_for():
    judge = Verdicts(busy={("a", 1): 1000})
    collect({"g": [job("a")]}, {"g": 10}, judge, "measuring", no_progress)
    assert len(judge.samples["a", 1].busy_s) == 20


@pytest.mark.parametrize(
    ("quiet", "busy", "rounds", "is_enough"),
    [
        (5, 30, 35, True),
        (4, 6, 10, False),
        (0, 10, 10, False),
        (0, 0, 10, False),  # none at all
        (3, 0, 3, True),  # few were planned
        (2, 1, 3, False),
        (2, 0, 10, True),  # few were taken: time was over
        (1, 1, 10, False),
    ],
)
def test_how_many_quiet_samples_are_enough(quiet, busy, rounds, is_enough):
    judge = Verdicts()
    judge.samples["a", 1] = Samples([0.1] * quiet, [0.1] * busy, [0.1] * (quiet + busy))
    assert enough([job("a")], rounds, judge) is is_enough


def test_warm_up_calls_everything_three_times():
    calls = Counter()
    groups = {"g": [timed(("a", 1), lambda: calls.update("a")), timed(("b", 1), lambda: calls.update("b"))], "none": []}
    costs = warm_up(groups, 1000, no_progress)
    assert calls == {"a": 3, "b": 3}
    assert costs.keys() == {"g", "none"}


@pytest.mark.parametrize(("seconds", "calls"), [(0, 1), (1000, 3)])
def test_warm_up_of_slow_calls_is_shorter(seconds, calls):
    done = []
    warm_up({"g": [timed(("a", 1), lambda: done.append(1))]}, seconds, no_progress)
    assert len(done) == calls


def test_a_timed_call_gives_its_seconds():
    calls = []
    ((key, seconds),) = timed(("a", 4), lambda: calls.append(1) or time.sleep(0.002)).run().items()
    assert (key, calls) == (("a", 4), [1])
    assert seconds >= 0.002
