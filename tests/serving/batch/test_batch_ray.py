"""A batch by Ray, on one machine; the loss of a node is in `benchmarks/batch.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
from batch_world import batch, contents, film, state, worker

from jotr_deploy.errors import JotrDeployError
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
