"""Attempts at units: one owner at a time, deaths counted, poison named once, races won by one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from batch_world import batch, contents, film, state, worker

from jotr_deploy.errors import JotrDeployError
from jotr_deploy.serving.batch import claims
from jotr_deploy.serving.batch.batch_state import State
from jotr_deploy.serving.batch.claims import Seen, Watch, begun, last_attempt, owner, read_attempt


def gone() -> dict:
    """A process of this machine that has ended."""
    ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
    ended.wait()
    return {"host": socket.gethostname(), "pid": ended.pid, "born": 1.0}


def died(folder: Path, key: str, *owners: dict) -> None:
    """Attempts at a unit that nobody has ended."""
    for number, told in enumerate(owners, 1):
        (folder / f"{key}.{number}.attempt").write_text(json.dumps(told))


def test_of_several_at_once_one_begins(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for key in map(str, range(20)):
            found = list(pool.map(lambda _, key=key: begun(tmp_path, key, 1), range(8)))
            assert sum(attempt is not None for attempt in found) == 1
    assert len(list(tmp_path.iterdir())) == 20


def test_an_attempt_tells_how_it_goes_and_how_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT_S", 0.01)
    attempt = begun(tmp_path, "a", 1)
    assert attempt is not None
    with attempt:
        attempt.frames(7)
        while read_attempt(tmp_path, "a", 1).told["frames"] != 7:  # type: ignore[union-attr]
            pass
        assert Watch().alive("a", read_attempt(tmp_path, "a", 1))  # type: ignore[arg-type]
        attempt.end("done")
    lost, seen = last_attempt(tmp_path, "a")
    assert (lost, seen.number, seen.told["ended"]) == (0, 1, "done")  # type: ignore[union-attr]
    with pytest.raises(KeyboardInterrupt), begun(tmp_path, "a", 2):  # type: ignore[union-attr]
        raise KeyboardInterrupt
    lost, seen = last_attempt(tmp_path, "a")
    assert (lost, seen.number, seen.told["ended"]) == (0, 2, "stopped")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("told", "alive"),
    [
        ({**owner(), "ended": "done"}, False),
        (owner(), True),
        ({**owner(), "born": 5.0}, False),  # another process has this number now
        (gone(), False),
        ({"host": socket.gethostname()}, False),
        ({"host": "elsewhere", "pid": os.getpid(), "born": 1.0}, True),
        ({}, True),  # read while it was written
    ],
)
def test_the_living_are_told_from_the_dead(told: dict, alive: bool) -> None:
    assert Watch().alive("a", Seen(1, told, 5)) is alive


def test_who_is_silent_elsewhere_is_dead_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(claims.time, "monotonic", lambda: now_s)
    watch, elsewhere = Watch(), {"host": "elsewhere", "pid": 1, "born": 1.0}
    for at_s, mtime_ns, alive in ((100, 5, True), (270, 5, True), (279, 6, True), (458, 6, True), (460, 6, False)):
        now_s = at_s
        assert watch.alive("a", Seen(1, elsewhere, mtime_ns)) is alive


def test_two_deaths_are_enough(tmp_path: Path, squares: Path) -> None:
    plan = batch(squares, tmp_path / "out", film(tmp_path / "a.mp4", 2), film(tmp_path / "b.mp4", 2))
    died(State(plan, tmp_path / "out").folder, plan.units[0].key, gone(), gone())
    died(State(plan, tmp_path / "out").folder, plan.units[1].key, gone())
    worker(tmp_path / "out").work()
    counts = state(tmp_path / "out").counts()
    assert (counts.done, [each.path for each in counts.failed], counts.missing) == (1, [str(tmp_path / "a.mp4")], 0)
    assert counts.failed[0].cause == f"the process working on it died 2 times, the last time on {socket.gethostname()}"
    worker(tmp_path / "out").work()  # nothing is left to do
    assert state(tmp_path / "out").retry_failed() == 1
    worker(tmp_path / "out").work()
    assert (state(tmp_path / "out").counts().done, state(tmp_path / "out").retry_failed()) == (2, 0)


def test_more_deaths_are_allowed_on_request(tmp_path: Path, squares: Path) -> None:
    plan = batch(squares, tmp_path / "out", film(tmp_path / "a.mp4", 2))
    died(State(plan, tmp_path / "out").folder, plan.units[0].key, gone(), gone())
    for left in (tmp_path / "out" / "a" / ".run.dead", tmp_path / "out" / ".batch" / f".{plan.units[0].key}.npz.dead"):
        left.mkdir(parents=True)
    worker(tmp_path / "out", attempts=3).work()
    assert state(tmp_path / "out").counts().done == 1
    assert [path.name for path in tmp_path.glob("out/*/.*")] == []


def test_a_source_that_cannot_be_read_is_named_and_the_rest_is_done(tmp_path: Path, squares: Path) -> None:
    film(tmp_path / "a.mp4", 2)
    (tmp_path / "b.mp4").write_bytes(b"no film at all")
    batch(squares, tmp_path / "out", tmp_path / "a.mp4", tmp_path / "b.mp4")
    worker(tmp_path / "out").work()
    counts = state(tmp_path / "out").counts()
    assert counts.as_dict() == {
        "planned": 2, "done": 1, "in_hand": 0, "units": 2, "units_done": 1, "frames": 2, "frames_done": 2,
        "people": counts.people, "missing": 0,
        "failed": [{"source": str(tmp_path / "b.mp4"), "cause": counts.failed[0].cause,
                    "remedy": counts.failed[0].remedy}],
    }  # fmt: skip
    assert counts.failed[0].cause.startswith(f"{tmp_path / 'b.mp4'}: ")


def test_a_source_that_has_changed_is_not_processed(tmp_path: Path, squares: Path) -> None:
    source = film(tmp_path / "a.mp4", 2)
    batch(squares, tmp_path / "out", source)
    film(source, 3)
    worker(tmp_path / "out").work()
    (failure,) = state(tmp_path / "out").counts().failed
    assert failure.cause == f"{source}: has changed since the plan was made"


def test_two_that_race_for_a_shard_do_it_once(tmp_path: Path, squares: Path) -> None:
    plan = batch(squares, tmp_path / "out", film(tmp_path / "a.mp4", 12), shard=10)
    workers = [worker(tmp_path / "out") for _ in range(2)]
    for each in workers:
        assert each.model is not None
    with ThreadPoolExecutor(2) as pool:
        for unit in plan.units:
            done = list(pool.map(lambda each, unit=unit: each.do(unit), workers))
            assert sorted(map(str, done)) == ["None", "done"]
    assert len(list((tmp_path / "out" / ".batch").glob("*.attempt"))) == len(plan.units)


def test_slices_share_the_units_and_the_last_one_joins(tmp_path: Path, squares: Path) -> None:
    source = film(tmp_path / "a.mp4", 30)
    plan = batch(squares, tmp_path / "out", source, shard=10)
    for index in (2, 0, 1):
        assert not (tmp_path / "out" / "a").exists()
        worker(tmp_path / "out", slice=(index, 3)).work()
    assert state(tmp_path / "out").counts().done == 1
    from jotr_deploy.runtime.run import run

    run(worker(tmp_path / "out").model.bundle, str(source), tmp_path / "run", plan.options.for_run(1))
    assert contents(tmp_path / "out" / "a") == contents(tmp_path / "run")


def test_a_machine_unlike_that_of_the_plan_is_refused(tmp_path: Path, squares: Path) -> None:
    batch(squares, tmp_path / "out", film(tmp_path / "a.mp4", 2))
    file = tmp_path / "out" / "plan.json"
    told = json.loads(file.read_text())
    for field, cause in {
        "networks": "other networks", "version": "jotr-deploy is", "bundle_sha256": "not the bundle of the plan",
    }.items():  # fmt: skip
        file.write_text(json.dumps({**told, field: ["0" * 64] if field == "networks" else "0"}))
        with pytest.raises(JotrDeployError, match=cause):
            worker(tmp_path / "out").work()
    assert not list((tmp_path / "out" / ".batch").glob("*.attempt"))
