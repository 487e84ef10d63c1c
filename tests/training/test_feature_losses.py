"""The losses of the features against plain loops, and bodies placed where they are seen."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from jotr_deploy.fitting.kernel_selection import Reach, select
from jotr_deploy.fitting.rays import GridCamera
from jotr_deploy.fitting.rendering import slot_weights, unit
from jotr_deploy.training.feature_losses import (
    background_cells,
    background_likeness,
    contrast,
    kernel_features,
    placed,
    placed_kernels,
)

KERNELS, BINS, CHANNELS = 6, 3, 5


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ring() -> Tensor:
    """Kernels in a ring, each with two neighbours."""
    index = torch.arange(KERNELS)
    return ((index[:, None] - index) % KERNELS == 1) | ((index - index[:, None]) % KERNELS == 1)


def test_the_cross_entropy_is_that_of_a_loop() -> None:
    samples, foreground = unit(draw(4, CHANNELS)), unit(draw(BINS, KERNELS, CHANNELS, seed=1))
    clutter, neighbours = unit(draw(7, CHANNELS, seed=2)), ring()
    kernels, bins = torch.tensor([0, 3, 3, 5]), torch.tensor([1, 0, 2, 2])
    each = []
    for sample, kernel, bin_ in zip(samples, kernels.tolist(), bins.tolist(), strict=True):
        others = 0.0
        for o in range(BINS):
            for k in range(KERNELS):
                if not neighbours[kernel, k]:  # the kernel's own other orientations do count
                    others += math.exp(float(sample @ foreground[o, k]) / 0.07)
        others += 0.005 * sum(math.exp(float(sample @ row) / 0.07) for row in clutter)
        each.append(math.log(others) - float(sample @ foreground[bin_, kernel]) / 0.07)
    found = contrast(samples, kernels, bins, foreground, clutter, neighbours)
    assert found.item() == pytest.approx(sum(each) / 4, rel=1e-9)


def test_nothing_seen_costs_nothing_and_has_a_gradient() -> None:
    samples = draw(0, CHANNELS).requires_grad_()
    none = torch.zeros(0, dtype=torch.long)
    loss = contrast(samples, none, none, draw(BINS, KERNELS, CHANNELS), draw(7, CHANNELS), ring())
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize(("counted", "rows"), [([1, 1, 1], [0, 1, 2]), ([0, 1, 1], [1, 2]), ([0, 0, 0], [])])
def test_the_likeness_of_the_background_is_that_of_a_loop(counted: list[int], rows: list[int]) -> None:
    samples, foreground = unit(draw(3, CHANNELS)), unit(draw(BINS, KERNELS, CHANNELS, seed=1))
    every = [float(samples[s] @ row) for s in rows for row in foreground.flatten(0, 1)]
    expected = sum(every) / len(every) if every else 0.0
    found = background_likeness(samples, torch.tensor(counted, dtype=torch.bool), foreground)
    assert found.item() == pytest.approx(expected, abs=1e-12)


def test_cells_of_the_background_are_among_those_allowed_and_come_once() -> None:
    allowed = torch.zeros(3, 40, dtype=torch.bool)
    allowed[0, 5:30] = True
    allowed[1, [3, 17]] = True  # fewer than are wanted
    cells, counted = background_cells(allowed, 10)
    assert counted.sum(1).tolist() == [10, 2, 0]
    for person in range(3):
        chosen = cells[person][counted[person]]
        assert allowed[person][chosen].all()
        assert len(set(chosen.tolist())) == len(chosen)


def test_the_feature_of_a_kernel_is_the_weighted_mean_of_its_cells() -> None:
    camera, count = GridCamera.of_crop(16), 8
    centres = draw(2, count, 3) * torch.tensor([0.5, 0.5, 0.3]) + torch.tensor([0, 0, 30.0])
    precision = torch.tensor(400.0, dtype=torch.float64)
    selection = select(centres, precision, 400.0, camera, Reach(4.6, 4.6, 1, only_masked=True))
    drawn = slot_weights(centres, precision, selection, 1.0, "peak")
    drawn[::3] = 0  # something stands before these cells
    features = draw(2, CHANNELS, 16, 16, seed=4).requires_grad_()
    found, seen = kernel_features(features, drawn, selection, count)
    totals = torch.zeros(2, count, CHANNELS + 1, dtype=torch.float64)
    for row, (person, cell) in enumerate(zip(selection.people.tolist(), selection.cells.tolist(), strict=True)):
        kernel, weight = int(selection.kernels[row, 0]) - person * count, float(drawn[row, 0])
        at = features[person, :, cell // 16, cell % 16].detach()
        totals[person, kernel, :-1] += weight * at
        totals[person, kernel, -1] += weight
    assert torch.equal(seen, totals[..., -1] > 0)
    assert 0 < seen.sum() < seen.numel()
    torch.testing.assert_close(found[seen], unit(totals[seen][:, :-1]))
    found[seen].sum().backward()
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()
    assert features.grad.any()


# ── placing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def body(people: int) -> tuple[Tensor, Tensor, Tensor]:
    """Kernels and joints of bodies, and where they stand."""
    place = torch.tensor([[0.1, -0.2, 9.0]]).double() + draw(people, 3, seed=7) * torch.tensor([0.2, 0.2, 1.0])
    return draw(people, 20, 3, seed=5) * 0.5, draw(people, 30, 3, seed=6) * 0.5, place


@pytest.mark.parametrize("focal", [1.6, 5000 / 256])
def test_a_body_is_placed_where_its_joints_are_seen(focal: float) -> None:
    _, joints, place = body(3)
    seen = joints + place[:, None]
    plane = focal * seen[..., :2] / seen[..., 2:]
    weight = torch.ones(3, 30, dtype=torch.float64)
    plane[0, :5] = 7.0  # wrong, and not known
    weight[0, :5] = 0
    found = placed(joints, plane, weight, torch.full((3,), focal, dtype=torch.float64))
    torch.testing.assert_close(found, place, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("focal", [1.6, 5000 / 256])
def test_kernels_lie_in_the_grid_where_the_camera_of_the_picture_saw_them(focal: float) -> None:
    kernels, joints, place = body(3)
    camera = GridCamera.of_crop(48)

    def plane(points: Tensor) -> Tensor:
        there = points + place[:, None]
        return focal * there[..., :2] / there[..., 2:]

    known, focals = torch.ones(3, 30, dtype=torch.float64), torch.full((3,), focal, dtype=torch.float64)
    moved = placed_kernels(kernels, joints, plane(joints) + 0.5, known, focals, camera)
    torch.testing.assert_close(camera.project(moved), (plane(kernels) + 0.5) * 48, atol=1e-3, rtol=0)
    depth, expected = moved[..., 2], kernels[..., 2]
    torch.testing.assert_close(depth - depth[:, :1], expected - expected[:, :1])
    scale = place[:, 2] * (5000 / 256) / focal  # as far away as looks as large
    torch.testing.assert_close(depth[:, 0] - expected[:, 0], scale, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("joints_known", [0, 5])
def test_who_is_not_known_well_enough_is_not_drawn(joints_known: int) -> None:
    kernels, joints, _ = body(2)
    known = torch.ones(2, 30, dtype=torch.float64)
    known[1, joints_known:] = 0
    fractions, focal = joints[..., :2] / 4 + 0.5, torch.full((2,), 4.0, dtype=torch.float64)
    camera = GridCamera.of_crop(48)
    moved = placed_kernels(kernels, joints, fractions, known, focal, camera)
    assert torch.isfinite(moved).all()
    selection = select(moved, torch.tensor(900.0), 900.0, camera, Reach(4.6, 4.6, 1, only_masked=True))
    assert 1 not in selection.people
