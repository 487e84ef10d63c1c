"""Training tasks: their interface to the loop, and the registry of them."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from pydantic import BaseModel
from torch import Tensor, nn

from jotr_deploy.support.aliases import Array
from jotr_deploy.training.held_out import HeldOut
from jotr_deploy.training.parallel import launched_processes
from jotr_deploy.training.run_config import Evaluation, TrainConfig, TrainingError, validated


class Task(Protocol):
    """Training task: a network, its samples, the loss to minimise, and the weights to keep.

    A module of this package offers it as `Options`, a pydantic model of its table in the configuration (unknown keys
    refused), and `make(options: Options, seed: int) -> Task`; `_MODULES` names the module.
    """

    model: nn.Module
    """Module with all weights, learned loss weights included: optimised and kept in checkpoints.

    Frozen parts have `requires_grad` False. The loop calls `model.train()` once; a module that must stay in evaluation
    mode overrides `train`. Parameters of fewer than two dimensions (biases, norms, learned scalars) are not decayed.
    """

    def samples(self, indices: Sequence[int]) -> dict[str, Array]:
        """Samples of these indices as one batch, arrays with leading axis `len(indices)`.

        Runs in worker processes, each with a pickled copy of the task, in any order; depends on nothing but the task
        and each index. No index is repeated.
        """
        ...

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar to minimise, and parts of it to log.

        A plain method that uses `self.model`: the loop calls it inside the wrapped module, under autocast where the
        precision asks for it, with PyTorch's generators seeded by (seed, step, process). `batch` is `samples` on the
        device. Numbers that must be the same in all processes are drawn from `numpy` by (seed, step).
        """
        ...

    def held_out(self, wanted: Evaluation) -> HeldOut:
        """Samples that training never meets, and the figures measured on them; called before the first step.

        Its `measure` changes nothing of the task and draws nothing from PyTorch's generators.

        Raises:
            TrainingError: samples of the training, or options that the task does not have.
        """
        ...

    def save(self, path: Path) -> None:
        """Write the weights, at the end of a run and after the best evaluation, with the model in evaluation mode."""
        ...


_MODULES = {
    name: f"jotr_deploy.training.tasks.{name}_task"
    for name in ("jotr", "mesh", "qat", "prior", "detector", "pose", "features")
}


def make_task(config: TrainConfig) -> tuple[Task, TrainConfig]:
    """Task of a configuration, and the configuration with every option of the task and the number of steps filled in.

    Raises:
        TrainingError: an unknown task, an option that the task refuses, or epochs of a task without data sets.
    """
    if config.task not in _MODULES:
        raise TrainingError(f"task: {config.task!r} is not known", f"give one of {', '.join(_MODULES)}")
    module = importlib.import_module(_MODULES[config.task])
    options = validated(cast(type[BaseModel], module.Options), config.options, f"{config.task}.")
    resolved = config.model_copy(update={"options": options.model_dump(mode="json", exclude_none=True)})
    task = cast(Task, module.make(options, config.seed))
    return task, with_steps(resolved, getattr(task, "epoch", None), launched_processes())


def with_steps(config: TrainConfig, epoch: int | None, processes: int) -> TrainConfig:
    """Configuration with the number of steps of its epochs.

    Args:
        config: with `epochs`, `steps`, or both as a run's own configuration has them.
        epoch: samples of an epoch of the task; None if it draws its samples.
        processes: that train together.

    Raises:
        TrainingError: the task has no epochs, or they are not the steps that are given too.
    """
    if config.epochs is None:
        return config
    if epoch is None:
        raise TrainingError(
            f"epochs: the task {config.task} draws its samples and has no epoch here", "give steps instead"
        )
    steps = max(1, math.ceil(config.epochs * epoch / (config.batch * processes)))
    if config.steps not in (None, steps):
        raise TrainingError(
            f"steps: {config.steps}, but {config.epochs:g} epochs of {epoch} people are {steps} steps of "
            f"{config.batch * processes}",
            "leave out steps or epochs; or restore the data sets and the number of processes of that run",
        )
    return config.model_copy(update={"steps": steps})
