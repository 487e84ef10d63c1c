"""Which cells are to find whom."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jotr_deploy.runtime.finding import box_selection
from jotr_deploy.runtime.finding.detection.yolox import cells
from jotr_deploy.training.assign import RADIUS, assign, iou

SIZE = (96, 64)
CELL, STRIDE = (torch.from_numpy(each) for each in cells(SIZE, (8, 16, 32)))
CENTRE, STRIDE = (CELL + 0.5) * STRIDE, STRIDE[:, 0]
COUNT = len(CENTRE)


def people(*boxes: list[float], pictures: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes in 4 rows, the others empty."""
    true = torch.zeros(pictures, 4, 4)
    true[:, : len(boxes)] = torch.tensor(boxes).reshape(-1, 4)
    return true, torch.arange(4).expand(pictures, -1) < len(boxes)


def guesses(seed: int, pictures: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    size = 10 + 30 * torch.rand(pictures, COUNT, 2, generator=generator)
    boxes = torch.cat([CENTRE - size / 2, CENTRE + size / 2], -1)
    return boxes, torch.rand(pictures, COUNT, generator=generator).log()


def test_nobody_takes_nothing():
    found = assign(*guesses(0), *people(), CENTRE, STRIDE)
    assert not found.positive.any()
    assert not found.iou.any()
    assert found.person.shape == (1, COUNT)


@pytest.mark.parametrize("seed", range(5))
def test_everybody_takes_near_cells_and_at_least_one(seed):
    true, known = people([10, 10, 40, 60], [66, 5, 96, 40], [46, 48, 56, 64], pictures=2)
    found = assign(*guesses(seed, 2), true, known, CENTRE, STRIDE)
    middle = (true[..., :2] + true[..., 2:]) / 2
    for picture in range(2):
        assert set(found.person[picture][found.positive[picture]].tolist()) == {0, 1, 2}
        for cell in torch.nonzero(found.positive[picture]).flatten():
            away = (CENTRE[cell] - middle[picture, found.person[picture, cell]]).abs().max()
            assert away < RADIUS * STRIDE[cell]


def test_pictures_do_not_depend_on_each_other():
    boxes, score = guesses(0, 3)
    true, known = people([10, 10, 40, 60], [30, 5, 60, 60], pictures=3)
    true[1] += 7
    known[2, 1] = False
    together = assign(boxes, score, true, known, CENTRE, STRIDE)
    for k in range(3):
        alone = assign(boxes[[k]], score[[k]], true[[k]], known[[k]], CENTRE, STRIDE)
        for a, b in zip(together, alone, strict=True):
            assert torch.equal(a[k], b[0])


def test_a_person_takes_as_many_cells_as_their_best_ious_add_up_to():
    true, known = people([20, 10, 60, 50])
    boxes, score = guesses(1)
    near = torch.nonzero((CENTRE - torch.tensor([40.0, 30])).abs().amax(-1) < RADIUS * STRIDE).flatten()
    boxes[:] = 0
    boxes[0, near[:4]] = true[0, 0]
    boxes[0, near[4]] = torch.tensor([20.0, 10, 40, 50])  # half: 4.5 in all
    found = assign(boxes, score, true, known, CENTRE, STRIDE)
    assert torch.nonzero(found.positive[0]).flatten().tolist() == near[:4].tolist()
    assert found.iou[0, near[:4]].tolist() == [1, 1, 1, 1]


def test_of_equal_boxes_the_better_scored_cell_is_taken():
    true, known = people([20, 10, 60, 50])
    boxes, score = torch.zeros(1, COUNT, 4), torch.full((1, COUNT), -5.0)
    near = torch.nonzero((CENTRE - torch.tensor([40.0, 30])).abs().amax(-1) < RADIUS * STRIDE).flatten()
    score[0, near[2]] = -0.1
    assert torch.nonzero(assign(boxes, score, true, known, CENTRE, STRIDE).positive[0]).flatten().tolist() == [near[2]]


def test_a_cell_that_two_want_goes_to_the_nearer_box():
    true, known = people([20, 10, 60, 50], [22, 12, 62, 52])
    boxes = true[:, :1].expand(-1, COUNT, -1).clone()
    found = assign(boxes, torch.zeros(1, COUNT), true, known, CENTRE, STRIDE)
    mine = found.person[0][found.positive[0]] == 0
    assert mine.any()
    assert (found.iou[0][found.positive[0]][mine] == 1).all()


def test_iou_is_that_of_the_runtime(rng):
    low = rng.uniform(0, 20, (6, 2))
    boxes = np.concatenate([low, low + rng.uniform(0, 20, (6, 2))], 1)
    boxes[0] = 5
    pairs = torch.from_numpy(boxes)
    ratio, general = iou(pairs[:, None], pairs[None])
    np.testing.assert_allclose(ratio.numpy(), box_selection.iou(boxes, boxes), atol=1e-6)
    assert (general <= ratio + 1e-6).all()
    a, b = torch.tensor([0.0, 0, 1, 1]), torch.tensor([3.0, 0, 4, 1])
    assert iou(a, b)[1].item() == pytest.approx(-0.5)  # 2 of 4 around are neither's
