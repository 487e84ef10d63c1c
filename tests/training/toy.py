"""The smallest task: a regression with dropout, a batch norm, a convolution and a frozen layer."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from jotr_deploy.errors import DatasetError
from jotr_deploy.training.held_out import Figure, HeldOut
from jotr_deploy.training.run_config import Evaluation, TrainConfig


def nothing(step: int) -> None:
    pass


class Toy:
    def __init__(self, during: Callable[[int], None] = nothing) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model: nn.Module = nn.Sequential(
                nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Unflatten(1, (2, 8)), nn.Conv1d(2, 4, 8),
                nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 1),
            )  # fmt: skip
        self.model[-1].requires_grad_(False)
        self.during = during
        self.seen: list[int] = []

    def samples(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
        self.seen += indices
        return drawn(0, indices)

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        self.during(step)
        loss = (self.model(batch["x"]) - batch["y"]).abs().mean()
        return loss, {"half": loss / 2}

    def held_out(self, wanted: Evaluation) -> HeldOut:
        """The mean distance of ten other samples, in batches of whatever size."""

        def measure(batch: dict[str, Tensor]) -> dict[str, Tensor]:
            assert not self.model.training
            return {"error": (self.model(batch["x"]) - batch["y"]).abs()}

        return HeldOut(
            {"error": Figure("error", ""), "share": Figure("below one", "%", higher=True)},
            wanted.samples or 10,
            partial(drawn, 1000 * wanted.seed),
            measure,
            lambda rows: {"error": float(rows["error"].mean()), "share": 100 * float((rows["error"] < 1).mean())},
        )

    def save(self, path: Path) -> None:
        torch.save(self.model.state_dict(), path)


def drawn(first: int, indices: Sequence[int]) -> dict[str, np.ndarray]:
    x = np.stack([np.random.default_rng(first + index).standard_normal(8) for index in indices]).astype(np.float32)
    return {"x": x, "y": x[:, :1] ** 2}


class Refusing(Toy):
    """Has a sample that cannot be made."""

    def samples(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
        if 5 in indices:
            raise DatasetError("5.jpg: cannot be read", "put it there")
        return super().samples(indices)


def interrupt_at(step: int, number: signal.Signals) -> Callable[[int], None]:
    def during(now: int) -> None:
        if now == step:
            os.kill(os.getpid(), number)

    return during


def toy_config(**values: object) -> TrainConfig:
    return TrainConfig(**{"task": "toy", "steps": 12, "batch": 4, "lr": 0.01, **values})  # type: ignore[arg-type]
