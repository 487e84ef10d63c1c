"""A batch by Ray, on one machine; the loss of a node is in `benchmarks/batch.py`."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from batch_world import batch, contents, film, state, worker

from jotr_deploy.errors import JotrDeployError, SessionError
from jotr_deploy.serving.batch.batch_worker import WorkerSettings
from jotr_deploy.serving.batch.ray_workers import _Todo, run_by_ray, work_on


def test_units_that_need_others_wait_and_none_is_given_for_ever(tmp_path: Path, squares: Path) -> None:
    plan = batch(squares, tmp_path / "out", film(tmp_path / "a.mp4", 20), shard=10)
    first, second, join = plan.units
    settings = WorkerSettings(str(tmp_path / "out"), threads=1)
    todo = _Todo(state(tmp_path / "out"), settings)
    assert [todo.next([]), todo.next([first]), todo.next([first, second])] == [first, second, None]
    assert [todo.next([second]), todo.next([second]), todo.next([second])] == [first, first, None]
    for unit in (first, second):
        assert work_on(settings.as_text(), unit.key) == {}
    assert todo.next([]) == join
    assert work_on(settings.as_text(), join.key) == {}
    assert todo.next([]) is None
    assert state(tmp_path / "out").counts().done == 1


def test_a_machine_that_cannot_work_says_why(tmp_path: Path, squares: Path) -> None:
    plan = batch(squares, tmp_path / "out", film(tmp_path / "a.mp4", 2))
    file = tmp_path / "out" / "plan.json"
    file.write_text(file.read_text().replace(f'"bundle": "{squares}"', f'"bundle": "{tmp_path}/gone"'))
    answer = work_on(WorkerSettings(str(tmp_path / "out"), threads=2).as_text(), plan.units[0].key)
    assert answer["cause"].startswith(f"{tmp_path}/gone: ")


def test_a_bug_names_the_log_that_has_its_traceback(
    tmp_path: Path, squares: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr("jotr_deploy.serving.batch.batch_worker.run", fails)
    ways: dict[str, Callable[[Path, str], object]] = {
        f"a log of Ray on {socket.gethostname()}": lambda output, key: work_on(
            WorkerSettings(str(output), threads=1).as_text(), key
        ),
        "a log in .batch/logs": lambda output, key: worker(output).work(),
    }
    for number, (log, work) in enumerate(ways.items()):
        output = tmp_path / f"out{number}"
        work(output, batch(squares, output, film(tmp_path / "a.mp4", 2)).units[0].key)
        (failure,) = state(output).counts().failed
        assert failure.cause == "ZeroDivisionError: by nothing"
        assert failure.remedy == f"this is a bug; {log} has the traceback"


class RayError(Exception):
    """Stand-in for the base class of Ray's errors."""


class RayTaskError(RayError):
    """Stand-in for what Ray makes of an exception of a task: its text is the tracebacks, in colours."""


def stand_in_for_ray(monkeypatch: pytest.MonkeyPatch, init: Callable[..., None], get: Callable[..., Any]) -> None:
    """A Ray of one processor: `init` connects, `get` gives the answer of a task, which is not worked on."""
    ray = SimpleNamespace(
        init=init, get=get, shutdown=lambda: None, wait=lambda tasks, timeout: (tasks, []),
        remote=lambda **_: lambda function: SimpleNamespace(remote=lambda settings, key: key),
        cluster_resources=lambda: {"CPU": 1.0},
        exceptions=SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "ray", ray)


def raising(error: Exception) -> Callable[..., None]:
    def fails(*_: object, **__: object) -> None:
        raise error

    return fails


TASK = "\x1b[36mray::work_on()\x1b[39m (pid=8, ip=10.0.0.2)\n"
NO_IMPORT = (
    f"{TASK}RuntimeError: The remote function failed to import on the worker. This may be because needed library "
    f"dependencies are not installed:\n\n{TASK}      ^^^^\nModuleNotFoundError: No module named 'jotr_deploy'"
)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RayError("the process died\nand more"), None),
        (RayTaskError(NO_IMPORT), "ModuleNotFoundError: No module named 'jotr_deploy'"),
        (RayTaskError(f"{TASK}  File 'a.py', line 1\nValueError: one\nand two"), "ValueError: one"),
        (RayTaskError(f"{TASK}  File 'a.py', line 1\nStopIteration"), "StopIteration"),
        (RayTaskError("all else"), "all else"),
        (RayTaskError(""), "RayTaskError"),
    ],
)
def test_what_a_task_raised_is_told(
    tmp_path: Path, squares: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str | None
) -> None:
    stand_in_for_ray(monkeypatch, lambda **_: None, raising(error))
    batch(squares, tmp_path / "out", film(tmp_path / "a.mp4", 2))
    given = (state(tmp_path / "out"), WorkerSettings(str(tmp_path / "out")), "auto", lambda: None, lambda: 0)
    if reason is None:
        assert run_by_ray(*given) == "the process died"
        return
    with pytest.raises(JotrDeployError) as refusal:
        run_by_ray(*given)
    assert refusal.value.cause == f"a machine of the cluster cannot work: {reason}"
    assert (
        refusal.value.remedy
        == "install the same jotr-deploy on every node of the cluster, or see Ray's logs on the nodes"
    )


def test_an_error_of_ours_keeps_its_words_under_ray(
    tmp_path: Path, squares: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = batch(squares, tmp_path / "out", film(tmp_path / "a.mp4", 2))
    settings = WorkerSettings(str(tmp_path / "out"))
    monkeypatch.setattr(
        "jotr_deploy.serving.batch.batch_worker.open_model", raising(SessionError("no CUDA", "use CPU"))
    )
    answer = work_on(settings.as_text(), plan.units[0].key)
    stand_in_for_ray(monkeypatch, lambda **_: None, lambda task: answer)
    with pytest.raises(JotrDeployError) as refusal:
        run_by_ray(state(tmp_path / "out"), settings, "auto", lambda: None, lambda: 0)
    assert (refusal.value.cause, refusal.value.remedy) == ("a machine of the cluster cannot work: no CUDA", "use CPU")


MISMATCH = (
    "Version mismatch: The cluster was started with:\n    Ray: 2.44.1\n    Python: 3.10.12\n"
    "This process on node 10.0.0.3 was started with:\n    Ray: 2.44.1\n    Python: 3.12.13\n"
)
START = "start one: ray start --head; then give --ray auto, or its address"


@pytest.mark.parametrize(
    ("error", "cause", "remedy"),
    [
        (
            RuntimeError(MISMATCH),
            "Version mismatch: The cluster was started with: Ray: 2.44.1 Python: 3.10.12 "
            "This process on node 10.0.0.3 was started with: Ray: 2.44.1 Python: 3.12.13",
            "use the Ray and Python of the cluster here",
        ),
        (ConnectionError("Could not find any\nmore"), "no cluster can be reached (Could not find any)", START),
        (ConnectionError(), "no cluster can be reached (ConnectionError)", START),
    ],
)
def test_a_cluster_that_cannot_be_used(
    tmp_path: Path, squares: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, cause: str, remedy: str
) -> None:
    stand_in_for_ray(monkeypatch, raising(error), raising(error))
    batch(squares, tmp_path / "out", film(tmp_path / "a.mp4", 2))
    with pytest.raises(JotrDeployError) as refusal:
        run_by_ray(state(tmp_path / "out"), WorkerSettings(str(tmp_path / "out")), "auto", lambda: None, lambda: 0)
    assert (refusal.value.cause, refusal.value.remedy) == (f"--ray auto: {cause}", remedy)


@pytest.mark.slow
def test_ray_gives_the_results_of_workers(tmp_path: Path, squares: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="needs Ray: pip install '.[ray]'")
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # stay on loopback
    source = film(tmp_path / "a.mp4", 20)
    for name in ("ray", "plain"):
        batch(squares, tmp_path / name, source, shard=10)
    ray.init(num_cpus=1, include_dashboard=False)
    run_by_ray(
        state(tmp_path / "ray"), WorkerSettings(str(tmp_path / "ray"), threads=1), "auto", lambda: None, lambda: 0
    )
    worker(tmp_path / "plain").work()
    assert contents(tmp_path / "ray" / "a") == contents(tmp_path / "plain" / "a")


def test_no_cluster_is_a_mistake(tmp_path: Path, squares: Path) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install '.[ray]'")
    batch(squares, tmp_path / "out", film(tmp_path / "a.mp4", 2))
    with pytest.raises(JotrDeployError, match="no cluster can be reached"):
        run_by_ray(state(tmp_path / "out"), WorkerSettings(str(tmp_path / "out")), "auto", lambda: None, lambda: 0)
