"""The loop: resumed to the bit, stopped by signals, refusing what does not fit."""

from __future__ import annotations

import json
import math
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import Refusing, Toy, interrupt_at, toy_config

from jotr_deploy.errors import DatasetError, MissingDependency, OutputError
from jotr_deploy.training import loop, optimizers
from jotr_deploy.training.data_loading import batches, indices_of
from jotr_deploy.training.loop import Fitted, fit
from jotr_deploy.training.run_config import TrainingError

pytestmark = pytest.mark.slow


def checkpoint(run: Path) -> dict:
    return torch.load(run / "checkpoint.pt", weights_only=True)


def require_equal(a: object, b: object, where: str = "") -> None:
    if isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor)
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert isinstance(b, dict)
        assert a.keys() == b.keys()
        for key in a:
            require_equal(a[key], b[key], f"{where}.{key}")
    else:
        assert a == b, where


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("precision", "muon"), [("fp32", None), ("bf16", None), ("bf16", 0.02)])
def test_resumed_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, precision: str, muon: float | None
) -> None:
    monkeypatch.setattr(optimizers, "MATRIX", 4)
    config = toy_config(precision=precision, matrix_lr=muon, kernel_lr=muon, schedule="cosine", warmup=3, seed=5)
    assert fit(Toy(), config, tmp_path / "whole") == Fitted(12, True)
    assert fit(Toy(interrupt_at(4, number)), config, tmp_path / "parts") == Fitted(5, False)
    assert not (tmp_path / "parts" / "weights.pt").exists()
    rest = Toy()
    torch.manual_seed(99)  # whatever else was drawn in between
    assert fit(rest, config, tmp_path / "parts", resume=True) == Fitted(12, True)
    assert rest.seen[:4] == [20, 21, 22, 23]
    require_equal(checkpoint(tmp_path / "parts"), checkpoint(tmp_path / "whole"))
    assert ({"matrices", "kernels"} <= checkpoint(tmp_path / "whole").keys()) is (muon is not None)
    require_equal(*(torch.load(tmp_path / run / "weights.pt") for run in ("parts", "whole")))


def test_the_usual_handlers_are_back_afterwards(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    fit(Toy(interrupt_at(1, signal.SIGINT)), toy_config(), tmp_path)
    assert signal.getsignal(signal.SIGINT) is before


def test_resuming_what_never_began_begins(tmp_path: Path) -> None:
    assert fit(Toy(), toy_config(steps=2), tmp_path / "run", resume=True) == Fitted(2, True)


def test_resuming_what_is_finished_changes_nothing(tmp_path: Path) -> None:
    fit(Toy(), toy_config(steps=2), tmp_path)
    before, task = checkpoint(tmp_path), Toy()
    assert fit(task, toy_config(steps=2), tmp_path, resume=True) == Fitted(2, True)
    assert task.seen == []
    require_equal(checkpoint(tmp_path), before)


def test_what_a_run_keeps(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from jotr_deploy.training.run_config import read_config

    config = toy_config(steps=40)
    lines: list[tuple[str, int, int]] = []
    fit(Toy(), config, tmp_path, progress=lambda *line: lines.append(line))
    names = {path.name for path in tmp_path.iterdir()}
    kept = {"config.toml", "environment.json", "events", "checkpoint.pt", "weights.pt"}
    assert names == kept | {"curves.jsonl", "curves.png"}
    assert read_config(tmp_path / "config.toml") == config
    about = json.loads((tmp_path / "environment.json").read_text())
    assert {"git_commit", "git_dirty"} < about.keys()
    assert about["versions"]["torch"]
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "half", "lr", "samples/s"}
    assert [event.step for event in events.Scalars("loss")] == [20, 40]
    np.testing.assert_allclose(events.Scalars("half")[0].value, events.Scalars("loss")[0].value / 2, rtol=1e-6)
    assert [(done, of) for _, done, of in lines] == [(step, 40) for step in range(1, 41)]
    assert "samples/s" in lines[-1][0]


def test_checkpoints_on_time(tmp_path: Path) -> None:
    seen = []

    def look(step: int) -> None:
        path = tmp_path / "checkpoint.pt"
        seen.append(checkpoint(tmp_path)["step"] if path.exists() else None)

    fit(Toy(look), toy_config(steps=4, checkpoint_minutes=1e-9), tmp_path)
    assert seen == [None, 1, 2, 3]


def test_the_frozen_part_stays(tmp_path: Path) -> None:
    task = Toy()
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    fit(task, toy_config(), tmp_path)
    after = task.model.state_dict()
    assert torch.equal(before["7.weight"], after["7.weight"])
    assert not torch.equal(before["0.weight"], after["0.weight"])


@pytest.mark.parametrize("longest", [None, 1e-3, 1e6])
def test_gradients_are_no_longer_than_wanted(tmp_path: Path, longest: float | None) -> None:
    def gradient(name: str, **values: float | None) -> torch.Tensor:
        fit(Toy(), toy_config(steps=1, **values), tmp_path / name)
        state = checkpoint(tmp_path / name)["optimizer"]["state"]
        return torch.cat([of["exp_avg"].flatten() for of in state.values()]) / 0.1  # AdamW's mean after one step

    free, found = gradient("free"), gradient("clipped", clip_norm=longest)
    torch.testing.assert_close(found, free * min(1.0, (longest or math.inf) / float(free.norm())))


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    fit(Toy(), toy_config(steps=1), tmp_path)
    with pytest.raises(TrainingError) as error:
        fit(Toy(), toy_config(steps=1), tmp_path)
    assert str(error.value) == f"{tmp_path}: already contains a run\ncontinue it with --resume, or give another -o"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"lr": 0.5}, "lr 0.01 there, 0.5 here"),
        ({"steps": 9, "batch": 8}, "steps 12 there, 9 here; batch 4 there, 8 here"),
        ({"options": {"depth": 2}}, "toy.depth None there, 2 here"),
    ],
)
def test_resuming_with_another_configuration(tmp_path: Path, changed: dict, named: str) -> None:
    fit(Toy(interrupt_at(0, signal.SIGTERM)), toy_config(), tmp_path)
    with pytest.raises(TrainingError) as error:
        fit(Toy(), toy_config(**changed), tmp_path, resume=True)
    assert error.value.cause == f"{tmp_path}: the run has another configuration ({named})"


def test_resuming_with_other_workers_is_fine(tmp_path: Path) -> None:
    fit(Toy(interrupt_at(0, signal.SIGTERM)), toy_config(steps=3), tmp_path)
    assert fit(Toy(), toy_config(steps=3, workers=1, checkpoint_minutes=1), tmp_path, resume=True).finished


class Sneaky:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("damage", ["truncated", "text", "pickled code", "another file"])
def test_a_damaged_checkpoint(tmp_path: Path, damage: str) -> None:
    fit(Toy(interrupt_at(0, signal.SIGTERM)), toy_config(), tmp_path)
    path, target = tmp_path / "checkpoint.pt", tmp_path / "touched"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-400])
    elif damage == "text":
        path.write_text("hello")
    elif damage == "pickled code":
        torch.save({"format": Sneaky(target)}, path)
    else:
        torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(
        TrainingError, match=r"checkpoint\.pt: (not the checkpoint|holds pickled code|a PyTorch archive, but damaged)"
    ) as error:
        fit(Toy(), toy_config(), tmp_path, resume=True)
    assert error.value.remedy == "start anew with another -o"
    assert not target.exists()


def test_a_loss_that_is_no_number_keeps_the_older_checkpoint(tmp_path: Path) -> None:
    task = Toy()

    def spoil(step: int) -> None:
        if step == 2:
            next(task.model.parameters()).data.fill_(math.nan)

    task.during = spoil
    with pytest.raises(TrainingError, match="the loss is NaN or infinite before step 3"):
        fit(task, toy_config(checkpoint_minutes=1e-9), tmp_path)
    assert checkpoint(tmp_path)["step"] == 2


def test_a_full_disk_keeps_the_older_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(Toy(interrupt_at(0, signal.SIGTERM)), toy_config(), tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match="No space left on device"):
        fit(Toy(), toy_config(), tmp_path, resume=True)
    monkeypatch.undo()
    assert checkpoint(tmp_path)["step"] == 1
    assert not list(tmp_path.glob(".*"))


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        fit(Toy(), toy_config(), tmp_path / "file" / "run")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_half_precision_needs_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match='"fp16" needs a GPU'):
        fit(Toy(), toy_config(precision="fp16"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("instructions", [True, False])
def test_who_trains_in_emulated_bfloat16_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    precision: str,
    instructions: bool,
) -> None:
    monkeypatch.setattr(loop, "multiplies_bfloat16", lambda: instructions)
    fit(Toy(), toy_config(steps=1, precision=precision), tmp_path / "run")
    assert ("emulated on this processor" in caplog.text) == (precision == "bf16" and not instructions)


@pytest.mark.parametrize("name", ["accelerate", "tensorboard"])
def test_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependency) as error:
        fit(Toy(), toy_config(), tmp_path / "run")
    assert error.value.remedy == "pip install '.[train]' in a clone of jotr-deploy"


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_index_is_used_once(processes: int) -> None:
    used = [i for step in range(4) for rank in range(processes) for i in indices_of(step, 5, rank, processes)]
    assert used == list(range(20 * processes))


def test_worker_processes_change_nothing() -> None:
    alone, helped = (list(batches(Toy().samples, range(2, 6), 3, workers=workers)) for workers in (0, 2))
    assert len(alone) == 4
    for a, b in zip(alone, helped, strict=True):
        require_equal(a, b)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_user_can_mend_is_said_by_workers_too(tmp_path: Path, workers: int) -> None:
    with pytest.raises(DatasetError) as error:
        fit(Refusing(), toy_config(workers=workers), tmp_path)
    assert (error.value.cause, error.value.remedy) == ("5.jpg: cannot be read", "put it there")
