"""A dry run: what it finds, what it refuses, and that nothing of it is left."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import Refusing, Toy, interrupt_at, toy_config

from jotr_deploy.errors import DatasetError, OutputError
from jotr_deploy.training import dry_run
from jotr_deploy.training.dry_run import rehearse, together_s
from jotr_deploy.training.loop import fit
from jotr_deploy.training.reuse import Reused
from jotr_deploy.training.run_config import Evaluation, TrainingError
from jotr_deploy.training.tasks import with_steps

pytestmark = pytest.mark.slow


class Sharing(Toy):
    """Samples of shared pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures = Reused(str, uses=4, lag=2)


def test_a_dry_run(tmp_path: Path) -> None:
    config = toy_config(steps=100, evaluation=Evaluation(every=30, seed=9))
    found = rehearse(Sharing(), config, tmp_path / "runs" / "toy")
    assert list(tmp_path.iterdir()) == []
    assert (found.steps, found.batch, found.processes, found.done) == (100, 4, 1, 0)
    assert found.evaluations is not None
    assert (found.evaluations.times, found.evaluations.samples) == (5, 10)  # after 0, 30, 60, 90, 100 steps
    assert found.evaluations.figures == ("error", "share")
    assert found.loading.pictures == 100 + 3 * 2
    assert found.loading.pictures_bytes > 8
    assert found.memory_bytes > 1e7
    assert found.steps_s > 0
    assert found.total_s == pytest.approx(found.steps_s + found.evaluations.first_s + 4 * found.evaluations.later_s)
    assert found.parameters == sum(p.numel() for p in Toy().model.parameters() if p.requires_grad)


def test_the_disk_that_it_says_is_what_a_run_takes(tmp_path: Path) -> None:
    config = toy_config(steps=40, evaluation=Evaluation(every=20, seed=9))
    found = rehearse(Toy(), config, tmp_path / "run")
    fit(Toy(), config, tmp_path / "run")
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "run").iterdir()}
    asides = sizes["checkpoint.pt"] + sizes["best.pt"]
    kept = sum(sizes[name] for name in ("checkpoint.pt", "weights.pt", "best.pt"))
    assert kept + asides == pytest.approx(found.disk_bytes, rel=0.1)


def test_a_run_that_is_to_be_continued(tmp_path: Path) -> None:
    """Its steps count as done; the run itself stays as it is."""
    config = toy_config(evaluation=Evaluation(every=4, seed=9))
    fit(Toy(interrupt_at(5, signal.SIGTERM)), config, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    found = rehearse(Toy(), config, tmp_path, resume=True)
    assert (found.done, found.evaluations.times) == (6, 2)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    with pytest.raises(TrainingError, match="already contains a run"):
        rehearse(Toy(), config, tmp_path)
    with pytest.raises(TrainingError, match="another configuration"):
        rehearse(Toy(), toy_config(), tmp_path, resume=True)


def test_a_finished_run_has_nothing_left(tmp_path: Path) -> None:
    fit(Toy(), toy_config(steps=2), tmp_path)
    found = rehearse(Toy(), toy_config(steps=2), tmp_path, resume=True)
    assert (found.steps_s, found.total_s, found.samples_per_s) == (0, 0, 0)


def test_what_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = toy_config(evaluation=Evaluation(every=4, seed=9, figure="beauty"))
    with pytest.raises(TrainingError, match="has no 'beauty'"):
        rehearse(Toy(), config, tmp_path / "run")
    with pytest.raises(DatasetError, match=r"5\.jpg: cannot be read"):
        rehearse(Refusing(), toy_config(batch=8), tmp_path / "run")
    broken = Toy()
    next(broken.model.parameters()).data.fill_(torch.nan)
    with pytest.raises(TrainingError, match="the loss of the first step is NaN or infinite"):
        rehearse(broken, toy_config(), tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"run: cannot be written \(Not a directory\)"):
        rehearse(Toy(), toy_config(), tmp_path / "file" / "run")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(TrainingError, match=r"the run needs 0 MB, and 0 MB are free"):
        rehearse(Toy(), toy_config(), tmp_path / "run")
    assert {path.name for path in tmp_path.iterdir()} == {"file"}


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_too_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def too_much(step: int) -> None:
        raise error

    class Gpu:
        total_memory = 24e9

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Gpu)
    with pytest.raises(TrainingError, match="batch: 4 samples do not fit into the") as caught:
        rehearse(Toy(too_much), toy_config(), tmp_path / "run")
    assert caught.value.remedy.startswith("lower batch")


@pytest.mark.parametrize(
    ("load", "trained", "workers", "threads", "cores", "expected"),
    [
        (10, 20, 0, 2, 2, 30),  # one after the other
        (10, 20, 1, 1, 2, 20),  # the worker waits
        (30, 20, 1, 1, 2, 30),  # the training waits
        (30, 20, 4, 1, 8, 20),
        (30, 20, 1, 2, 2, 35),  # three threads on two cores
        (0, 0, 1, 1, 1, 0),
    ],
)
def test_loading_and_training_together(
    load: float, trained: float, workers: int, threads: int, cores: int, expected: float
) -> None:
    assert together_s(load, trained, workers, threads, cores) == expected


@pytest.mark.parametrize("samples", [0, 1, 7, 40, 400])
@pytest.mark.parametrize(("uses", "lag"), [(1, 1), (4, 8), (8, 2)])
def test_pictures_that_are_drawn(samples: int, uses: int, lag: int) -> None:
    drawn: list[int] = []
    reused = Reused(drawn.append, uses, lag)
    for index in range(samples):
        reused(index)
    assert 0 <= reused.drawn_for(samples) - len(drawn) < uses  # of the last, unfinished picture's sake


# ── epochs ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("values", "epoch", "processes", "steps"),
    [
        ({"steps": 7}, None, 1, 7),
        ({"steps": None, "epochs": 18}, 1_424_000, 64, 100_125),  # 256 a step
        ({"steps": None, "epochs": 0.001}, 10, 1, 1),
        ({"steps": None, "epochs": 2}, 10, 1, 5),
        ({"steps": 5, "epochs": 2}, 10, 1, 5),
    ],
)
def test_steps_of_epochs(values: dict[str, Any], epoch: int | None, processes: int, steps: int) -> None:
    resolved = with_steps(toy_config(**values), epoch, processes)
    assert resolved.last_step == steps
    assert with_steps(resolved, epoch, processes) == resolved


@pytest.mark.parametrize(
    ("epoch", "processes", "cause"),
    [
        (None, 1, "epochs: the task toy draws its samples and has no epoch here"),
        (10, 2, "steps: 5, but 2 epochs of 10 people are 3 steps of 8"),
        (20, 1, "steps: 5, but 2 epochs of 20 people are 10 steps of 4"),
    ],
)
def test_epochs_that_do_not_fit(epoch: int | None, processes: int, cause: str) -> None:
    with pytest.raises(TrainingError) as error:
        with_steps(toy_config(steps=5, epochs=2), epoch, processes)
    assert error.value.cause == cause


def test_a_worker_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    whole = dry_run._one_batch

    def one_batch(run: Any, workers: int, ahead: int = 0) -> Any:
        tried.append(workers)
        return whole(run, 0, ahead)

    monkeypatch.setattr(dry_run, "_one_batch", one_batch)
    assert rehearse(Toy(), toy_config(workers=2), tmp_path / "run").workers == 2
    assert tried == [1] + 8 * [0]
