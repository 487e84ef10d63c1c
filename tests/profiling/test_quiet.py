import pytest

from jotr_deploy.profiling import quiet_samples
from jotr_deploy.profiling.quiet_samples import WINDOW_S, Judge, Usage, others_share, settle

CORES = 4
START = Usage(100.0, 5000.0, 30.0)


class Machine:
    """A clock that moves when told, with others who use a share of the cores."""

    def __init__(self, others=0.0):
        self.now, self.others, self.slept = START, others, 0.0

    def work(self, seconds, own_cores=2.0):
        busy = seconds * CORES * self.others + seconds * own_cores
        now = self.now
        self.now = Usage(now.wall_s + seconds, now.machine_s + busy, now.own_s + seconds * own_cores)

    def sleep(self, seconds):
        self.slept += seconds
        self.work(seconds, own_cores=0)

    def judge(self):
        return Judge(lambda: self.now, self.sleep, CORES)


@pytest.mark.parametrize(
    ("wall_s", "machine_s", "own_s", "share"),
    [
        (1.0, 0.0, 0.0, 0.0),  # an idle machine
        (1.0, 2.0, 2.0, 0.0),  # all of it is ours
        (1.0, 2.5, 2.0, 0.125),
        (1.0, 4.0, 0.0, 1.0),
        (1.0, 1.9, 2.0, 0.0),  # the kernel's clock ticks slower than ours
        (0.0, 0.0, 0.0, 0.0),  # no time has passed
    ],
)
def test_share_of_the_others(wall_s, machine_s, own_s, share):
    after = Usage(START.wall_s + wall_s, START.machine_s + machine_s, START.own_s + own_s)
    assert others_share(START, after, CORES) == pytest.approx(share)


@pytest.mark.parametrize(("others", "kept"), [(0.0, 3), (0.11, 3), (0.13, 0), (0.5, 0)])
def test_samples_count_while_the_others_are_quiet(others, kept):
    machine = Machine(others)
    judge = machine.judge()
    for _ in range(3):
        machine.work(WINDOW_S)
        judge.add({("net", 1): WINDOW_S})
    samples = judge.samples["net", 1]
    assert (len(samples.quiet_s), len(samples.busy_s), len(samples.all_s)) == (kept, 3 - kept, 3)


def test_short_samples_are_judged_together():
    machine = Machine()
    judge = machine.judge()
    for others in (0.0, 0.0, 0.0, 0.9):  # the last quarter spoils all of it
        machine.others = others
        machine.work(WINDOW_S / 4 + 0.001)
        judge.add({("net", 1): 1.0, ("stage", "draw"): 2.0})
    assert judge.samples["net", 1].busy_s == [1.0] * 4
    assert judge.samples["stage", "draw"].busy_s == [2.0] * 4
    machine.others = 0.0
    machine.work(WINDOW_S)
    judge.add({("net", 1): 3.0})
    assert judge.samples["net", 1].quiet_s == [3.0]


def test_what_is_left_is_judged_in_a_full_window():
    machine = Machine()
    judge = machine.judge()
    machine.work(WINDOW_S / 4)
    judge.add({("net", 1): 0.05})
    assert not judge.samples["net", 1].all_s
    judge.close()
    assert machine.slept == pytest.approx(WINDOW_S * 3 / 4)
    assert judge.samples["net", 1].quiet_s == [0.05]


def test_closing_without_samples_changes_nothing():
    machine = Machine()
    judge = machine.judge()
    judge.close()
    assert machine.slept == 0
    assert not judge.samples


def test_what_happens_between_measurements_does_not_count():
    machine = Machine(others=1.0)
    judge = machine.judge()
    machine.work(10)
    machine.others = 0.0
    judge.restart()
    machine.work(WINDOW_S)
    judge.add({("net", 1): 1.0})
    assert judge.samples["net", 1].quiet_s == [1.0]


def test_the_clocks_only_move_forward():
    before = quiet_samples.usage()
    sum(range(100_000))
    after = quiet_samples.usage()
    assert after.wall_s > before.wall_s
    assert after.own_s > before.own_s
    assert after.machine_s >= before.machine_s


@pytest.mark.parametrize(
    ("use", "naps"),
    [
        ([0.0], 1),  # idle at once
        ([0.005, 0.004, 0.0001], 3),  # spinning, then idle
        ([0.005] * 1000, 60),  # never idle: someone else's thread; give up
    ],
)
def test_settle_waits_for_idle_threads(monkeypatch, use, naps):
    slept, used = [], [0.0]
    monkeypatch.setattr(
        quiet_samples.time, "sleep", lambda seconds: (slept.append(seconds), used.append(use[len(slept) - 1]))
    )
    monkeypatch.setattr(quiet_samples.time, "process_time", lambda: sum(used))
    settle()
    assert len(slept) == naps
