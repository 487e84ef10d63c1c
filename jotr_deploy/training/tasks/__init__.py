"""Training tasks: their interface to the loop, and the registry of them."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from pydantic import BaseModel
from torch import Tensor, nn

from jotr_deploy.support.aliases import Array
from jotr_deploy.training.run_config import TrainConfig, TrainingError, validated


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

    def save(self, path: Path) -> None:
        """Write the final weights, `weights.pt`, at the end of a run, with the model in evaluation mode."""
        ...


_MODULES = {
    name: f"jotr_deploy.training.tasks.{name}_task"
    for name in ("jotr", "mesh", "qat", "prior", "detector", "pose", "features")
}


def make_task(config: TrainConfig) -> tuple[Task, TrainConfig]:
    """Task of a configuration, and the configuration with every option of the task filled in.

    Raises:
        TrainingError: an unknown task, or an option that the task refuses.
    """
    if config.task not in _MODULES:
        raise TrainingError(f"task: {config.task!r} is not known", f"give one of {', '.join(_MODULES)}")
    module = importlib.import_module(_MODULES[config.task])
    options = validated(cast(type[BaseModel], module.Options), config.options, f"{config.task}.")
    resolved = config.model_copy(update={"options": options.model_dump(mode="json", exclude_none=True)})
    return cast(Task, module.make(options, config.seed)), resolved
