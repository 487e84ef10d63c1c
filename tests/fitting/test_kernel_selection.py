"""Windows find what a look at every cell finds: the same kernels in the same slots."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_volume_rendering import WIDE, cloud
from torch import Tensor

from jotr_deploy.fitting import kernel_selection
from jotr_deploy.fitting.kernel_selection import Reach, Selection, select
from jotr_deploy.fitting.rays import GridCamera, ray_gaussian

CAMERA = GridCamera(600.0, (15.0, 10.0), 20, 32)


def dense(centres: Tensor, precision: Tensor, reach: Reach) -> dict[tuple[int, int], list[int]]:
    """(person, cell) -> kernels, nearest first: every kernel against every cell."""
    found = {}
    for person in range(len(centres)):
        some = precision if precision.ndim == 0 else precision[person]
        for cell in range(CAMERA.cells):
            row, column = divmod(cell, CAMERA.width)
            place = torch.tensor([column, row], dtype=centres.dtype)
            hit = ray_gaussian(centres[person], CAMERA.directions(*place), some)
            met = (hit.q < reach.q_max) & (hit.depth_m > 0)
            if met.any() and (not reach.only_masked or bool((hit.q[met] < reach.q_mask).any())):
                depth = torch.where(met, hit.depth_m, np.inf)
                found[person, cell] = depth.argsort()[: min(reach.per_ray, int(met.sum()))].tolist()
    return found


def listed(found: Selection, count: int) -> dict[tuple[int, int], list[int]]:
    return {
        (person, cell): [kernel - person * count for kernel, there in zip(kernels, filled, strict=True) if there]
        for person, cell, kernels, filled in zip(
            found.people.tolist(), found.cells.tolist(), found.kernels.tolist(), found.filled.tolist(), strict=True
        )
    }


@pytest.mark.parametrize("only_masked", [False, True])
@pytest.mark.parametrize("isotropic", [True, False])
@pytest.mark.parametrize("per_ray", [1, 4, 60])
def test_the_same_as_every_kernel_against_every_cell(only_masked: bool, isotropic: bool, per_ray: int) -> None:
    centres, matrices = cloud()
    centres[1, :, 2] -= 21  # near the camera, where windows are wide and partly outside
    precision = torch.tensor(400.0, dtype=torch.float64) if isotropic else matrices
    reach = replace(WIDE, q_mask=1.5, per_ray=per_ray, only_masked=only_masked)
    found = select(centres, precision, 400.0 if isotropic else 300.0, CAMERA, reach)
    assert listed(found, 40) == dense(centres, precision, reach)
    assert len(found.cells) > 50


def test_a_few_people_at_once_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    centres, precision = cloud(people=5)
    whole = select(centres, precision, 300.0, CAMERA, WIDE)
    monkeypatch.setattr(kernel_selection, "PAIRS_AT_ONCE", 1)
    parts = select(centres, precision, 300.0, CAMERA, WIDE)
    for name in ("people", "cells", "kernels", "filled", "slots", "per_kernel", "mask"):
        assert torch.equal(getattr(whole, name), getattr(parts, name)), name


def test_slots_are_listed_by_kernel() -> None:
    centres, precision = cloud()
    found = select(centres, precision, 300.0, CAMERA, WIDE)
    of_slot = found.kernels.flatten()[found.slots]
    assert (of_slot.diff() >= 0).all()
    assert torch.equal(torch.bincount(of_slot, minlength=80), found.per_kernel)
    assert int(found.per_kernel.sum()) == int(found.filled.sum())


def test_what_is_behind_another_is_not_visible() -> None:
    centres = torch.tensor([[[0.0, 0.0, 20.0], [0.0, 0.0, 20.4], [0.3, 0.0, 21.0]]], dtype=torch.float64)
    found = select(centres, torch.tensor(4000.0).double(), 4000.0, CAMERA, WIDE)
    assert found.visible(3).tolist() == [[True, False, True]]


@pytest.mark.parametrize("z", [-20.0, 0.0, 0.01, float("nan"), float("inf")])
def test_kernels_that_are_not_before_the_camera_are_not_met(z: float) -> None:
    centres = torch.tensor([[[0.0, 0.0, 20.0], [0.0, 0.0, z]]], dtype=torch.float64)
    found = select(centres, torch.tensor(4000.0).double(), 4000.0, CAMERA, WIDE)
    assert found.visible(2).tolist() == [[True, False]]


def test_the_mask_reaches_as_far_as_its_own_limit() -> None:
    centres = torch.tensor([[[0.0, 0.0, 20.0]]], dtype=torch.float64)
    found = select(centres, torch.tensor(500.0).double(), 500.0, CAMERA, Reach(12.0, 4.6, 3, False))
    q = ray_gaussian(centres[0], found.directions, torch.tensor(500.0).double()).q
    assert torch.equal(found.mask, q < 4.6)
    assert 0 < int(found.mask.sum()) < len(found.cells)
