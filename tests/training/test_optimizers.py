"""Which optimiser moves what, at which rate."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toy import toy_config

from jotr_deploy.training.optimizers import MATRIX, Muon, optimizers, orthogonalised, schedule
from jotr_deploy.training.run_config import TrainConfig


def config_of(**values: object) -> TrainConfig:
    return toy_config(steps=110, lr=1.0, **values)


@pytest.mark.parametrize(
    ("config", "step", "rate"),
    [
        (config_of(), 0, 1.0),
        (config_of(), 109, 1.0),
        (config_of(warmup=10), 0, 0.1),
        (config_of(warmup=10), 9, 1.0),
        (config_of(warmup=10), 109, 1.0),
        (config_of(schedule="cosine"), 55, 0.5),
        (config_of(schedule="cosine", warmup=10), 60, 0.5),
        (config_of(schedule="cosine", warmup=10), 109, 0.00024672),
        (config_of(schedule="cosine", warmup=200), 109, 0.55),
    ],
)
def test_schedule(config: TrainConfig, step: int, rate: float) -> None:
    assert config.lr * schedule(config, step) == pytest.approx(rate, rel=1e-4)


def test_weight_decay_is_for_matrices() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 2).requires_grad_(False))
    (adamw,) = optimizers(model, toy_config(weight_decay=0.1)).values()
    decayed, rest = adamw.param_groups
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3, 1, 1)]
    assert [tuple(p.shape) for p in rest["params"]] == [(4,)] * 3
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)


def test_muon_moves_large_matrices_alone() -> None:
    layers = [nn.Linear(MATRIX, MATRIX), nn.Linear(MATRIX, MATRIX - 1), nn.Conv2d(MATRIX, MATRIX, 1)]
    made = optimizers(nn.Sequential(*layers), toy_config(lr=1e-3, matrix_lr=2e-3, weight_decay=0.1, beta2=0.9))
    (group,) = made["matrices"].param_groups
    assert [p is layers[0].weight for p in group["params"]] == [True]
    assert (group["lr"], group["weight_decay"]) == (2e-3, 0.1)
    decayed, rest = made["optimizer"].param_groups
    assert [tuple(p.shape) for p in decayed["params"]] == [(MATRIX - 1, MATRIX), (MATRIX, MATRIX, 1, 1)]
    assert len(rest["params"]) == 3
    assert decayed["betas"] == (0.9, 0.9)
    assert list(optimizers(nn.Linear(2, 2), toy_config(matrix_lr=1.0))) == ["optimizer"]


def test_muon_moves_kernels_alone() -> None:
    layers = [nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 1), nn.Linear(MATRIX, MATRIX)]
    made = optimizers(nn.Sequential(*layers), toy_config(lr=1e-3, kernel_lr=2e-3, weight_decay=0.1))
    (group,) = made["kernels"].param_groups
    assert [tuple(p.shape) for p in group["params"]] == [(4, 3, 3, 3)]
    assert (group["lr"], group["initial_lr"], group["weight_decay"]) == (2e-3, 2e-3, 0.1)
    decayed = made["optimizer"].param_groups[0]["params"]
    assert [tuple(p.shape) for p in decayed] == [(8, 4, 1, 1), (MATRIX, MATRIX)]


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_kernel_moves_as_the_matrix_that_pytorch_moves(channels_last: bool) -> None:
    torch.manual_seed(0)
    values, gradient = torch.randn(2, 6, 4, 3, 3)
    matrix, kernel = nn.Parameter(values.flatten(1).clone()), nn.Parameter(values.clone())
    if channels_last:
        kernel.data = kernel.data.to(memory_format=torch.channels_last)
    expected = torch.optim.Muon([matrix], lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    moved = Muon([kernel], lr=0.1, weight_decay=0.1)
    for _ in range(3):
        matrix.grad, kernel.grad = gradient.flatten(1).clone(), gradient.clone()
        expected.step()
        moved.step()
    torch.testing.assert_close(kernel.flatten(1), matrix, atol=0.02, rtol=0)  # PyTorch's computes in bfloat16
    assert (kernel - values).abs().mean() > 0.01


@pytest.mark.parametrize("shape", [(8, 8), (5, 40), (40, 5), (1, 7), (7, 1)])
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    found = orthogonalised(matrix)
    assert ((torch.linalg.svdvals(found) > 0.6) & (torch.linalg.svdvals(found) < 1.3)).all()
    rounding = {"atol": 0.05, "rtol": 0}  # some processors compute it in bfloat16
    torch.testing.assert_close(orthogonalised(1000 * matrix), found, **rounding)
    torch.testing.assert_close(orthogonalised(matrix.T), found.T, **rounding)
    assert (orthogonalised(torch.zeros(shape)) == 0).all()


def test_a_kernel_without_a_gradient_stays() -> None:
    kernel = nn.Parameter(torch.ones(4, 2, 3))
    Muon([kernel], lr=0.1, weight_decay=0.0).step()
    assert (kernel == 1).all()
