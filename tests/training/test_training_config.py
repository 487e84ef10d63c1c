"""Configurations: read, set over, written again; what does not fit is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_scenes import prior_file
from tiny import TINY

from jotr_deploy.config import ModelConfig
from jotr_deploy.training.run_config import Evaluation, TrainConfig, TrainingError, read_config
from jotr_deploy.training.tasks import make_task
from jotr_deploy.training.tasks.mesh_task import MeshTask, Options

REPOSITORY = Path(__file__).parents[2]
PLAIN = 'task = "mesh"\nsteps = 10\nbatch = 2\nlr = 1e-3\n[mesh]\nprior = "p.pt"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "train.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_read(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, PLAIN))
    expected = TrainConfig(task="mesh", steps=10, batch=2, lr=1e-3, options={"prior": "p.pt"})
    assert config == expected
    assert (config.seed, config.schedule, config.precision, config.checkpoint_minutes) == (0, "constant", "fp32", 5.0)


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("lr=0.5", {"lr": 0.5}),
        ("steps = 3", {"steps": 3}),
        ("precision=bf16", {"precision": "bf16"}),
        ('schedule="cosine"', {"schedule": "cosine"}),
        ("mesh.intra=0.1", {"options": {"prior": "p.pt", "intra": 0.1}}),
        ("mesh.prior=a=b.pt", {"options": {"prior": "a=b.pt"}}),
        ("mesh.model.d_model=96", {"options": {"prior": "p.pt", "model": {"d_model": 96}}}),
    ],
)
def test_set(tmp_path: Path, override: str, changed: dict) -> None:
    path = write(tmp_path, PLAIN)
    assert read_config(path, [override]) == read_config(path).model_copy(update=changed)


@pytest.mark.parametrize(
    ("written", "override", "steps", "epochs"),
    [
        ("epochs = 18", None, None, 18),
        ("epochs = 18", "steps=5", 5, None),
        ("steps = 10", "epochs=0.5", None, 0.5),
        ("steps = 10", "steps=5", 5, None),
    ],
)
def test_one_length_takes_the_place_of_the_other(
    tmp_path: Path, written: str, override: str | None, steps: int | None, epochs: float | None
) -> None:
    config = read_config(write(tmp_path, PLAIN.replace("steps = 10", written)), [override] if override else [])
    assert (config.steps, config.epochs) == (steps, epochs)


def test_the_table_of_evaluations(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, PLAIN), ["evaluation.every=100", "evaluation.patience=3"])
    assert config.evaluation == Evaluation(every=100, patience=3)
    assert read_config(write(tmp_path, config.as_toml())) == config
    with pytest.raises(TrainingError, match=r"evaluation\.minutes"):
        read_config(write(tmp_path, PLAIN), ["evaluation.every=100", "evaluation.minutes=3"])


@pytest.mark.parametrize("path", ['C:\\a "b"', "/data/\U0001f600/é.pt", "a\nb\t\x7f", ""])
def test_what_is_written_is_what_was_read(path: str, tmp_path: Path) -> None:
    table = {"prior": path, "model": {"d_model": 96}, "freeze_bn": True, "list": [1, 2.5, "x"], "a.b": {}}
    config = TrainConfig(task="mesh", steps=10, batch=2, lr=1e-5, weight_decay=0.0, options=table)
    assert read_config(write(tmp_path, config.as_toml())) == config


@pytest.mark.parametrize(
    ("text", "overrides", "cause", "remedy"),
    [
        ("task = ", [], "{path}: not TOML (Invalid value", "correct it; https://toml.io"),
        (
            PLAIN + "[other]\na = 1\n",
            [],
            "other: unknown key",
            "known are batch, beta2, checkpoint_minutes, clip_norm, epochs, evaluation, kernel_lr, lr",
        ),
        (PLAIN, ["speed=3"], "speed: unknown key", "known are batch"),
        (PLAIN, ["lr=-1"], "lr: Input should be greater than 0", "correct it in the configuration"),
        (PLAIN, ["precision=fp8"], "precision: Input should be 'fp32', 'bf16' or 'fp16'", "correct it"),
        (PLAIN, ["lr"], "--set lr: not key=value", "give one such as lr=1e-3"),
        (PLAIN, ["lr.x=1"], "--set lr.x=1: lr is not a table", "only tables have keys below them"),
        ('task = "mesh"\nbatch = 2\nlr = 1e-3\n', [], "steps: neither steps nor epochs is given", "correct it"),
        ("steps = 3\nbatch = 2\nlr = 1e-3\n", [], "task: Field required", "correct it"),
        ('task = "mesh"\nmesh = 3\n', [], "{path}: mesh is not a table", "write its options under [mesh]"),
        (PLAIN.replace("[mesh]", "[options]"), [], "options: unknown key", "write the task's options under [mesh]"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, text: str, overrides: list[str], cause: str, remedy: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(TrainingError) as error:
        read_config(path, overrides)
    assert error.value.cause.startswith(cause.format(path=path))
    assert error.value.remedy.startswith(remedy)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no such configuration"):
        read_config(tmp_path / "none.toml")


def test_a_task_fills_in_its_options(tmp_path: Path) -> None:
    table = {"prior": str(prior_file(tmp_path)), "model": {**TINY.model_dump(), "d_model": 64}}
    task, resolved = make_task(TrainConfig(task="mesh", steps=1, batch=1, lr=1e-3, options=table))
    assert isinstance(task, MeshTask)
    assert task.model.network.config.d_model == 64
    assert resolved.options["drop_joints"] == 0.1
    assert Options(**resolved.options) == task.options
    assert read_config(write(tmp_path, resolved.as_toml())) == resolved


@pytest.mark.parametrize(
    ("task", "options", "cause"),
    [
        ("dance", {}, "task: 'dance' is not known"),
        ("mesh", {}, "mesh.prior: needed without mesh.start"),
        ("mesh", {"prior": "p", "speed": 1}, "mesh.speed: unknown key"),
        ("mesh", {"prior": "p", "model": {"width": 1}}, "mesh.model.width: Extra inputs are not permitted"),
        ("mesh", {"prior": "p", "model": {"d_model": 90}}, "mesh.model: d_model 90 must be a multiple"),
    ],
)
def test_options_that_do_not_fit(task: str, options: dict, cause: str) -> None:
    with pytest.raises(TrainingError) as error:
        make_task(TrainConfig(task=task, steps=1, batch=1, lr=1e-3, options=options))
    assert error.value.cause.startswith(cause)


def test_the_mesh_network_of_the_starter_bundle_is_small() -> None:
    from jotr_deploy.model.jotr import JOTR

    config = Options(**read_config(REPOSITORY / "configs/starter/mesh.toml").options).model
    parameters = sum(parameter.numel() for parameter in JOTR(ModelConfig.model_validate(config), None).parameters())
    assert 1e6 < parameters < 3e6
