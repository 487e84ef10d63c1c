"""SimOTA: assignment of a detector's cells to people, for a whole batch at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

RADIUS = 2.5  # of a person's candidates, in strides about the centre of the box
_IOU_WEIGHT = 3.0
_MOST_CELLS = 10
_NEVER = 1e6
_SMALL = 1e-8


class Assignment(NamedTuple):
    """Assignment of every cell of every picture."""

    person: Tensor  # (B, A) int64, row of the true boxes; 0 where unassigned
    positive: Tensor  # (B, A) bool, true where assigned
    iou: Tensor  # (B, A) IoU of the cell's box with that person's; 0 where unassigned


@torch.no_grad()
def assign(boxes: Tensor, log_score: Tensor, true: Tensor, known: Tensor, centre: Tensor, stride: Tensor) -> Assignment:
    """Assign to every person the cells with the lowest cost: as many as the sum of the ten best IoUs, at least one.

    The cost of a cell is the distance of its score from 1 and of its box from the person's; a contested cell goes to
    the person with the lower cost.

    Args:
        boxes: (B, A, 4) x0 y0 x1 y1 predicted by the cells.
        log_score: (B, A) logarithm of their scores.
        true: (B, G, 4) boxes of people, in the same frame.
        known: (B, G) bool, rows that contain a person.
        centre: (A, 2) of the cells.
        stride: (A,) of the cells.
    """
    middle = (true[..., :2] + true[..., 2:]) / 2
    distance = (centre - middle[:, :, None]).abs().amax(-1)  # (B, G, A)
    candidate = (distance < RADIUS * stride) & known[..., None]
    overlap = iou(true[:, :, None], boxes[:, None])[0] * candidate
    cost = _IOU_WEIGHT * -(overlap + _SMALL).log() - log_score[:, None] + _NEVER * ~candidate
    wanted = overlap.topk(_MOST_CELLS, -1).values.sum(-1).int().clamp(min=1)
    rank = cost.argsort(-1).argsort(-1)
    taken = (rank < wanted[..., None]) & candidate
    person = torch.where(taken, cost, 2 * _NEVER).argmin(1)
    positive = taken.any(1)
    return Assignment(person, positive, overlap.gather(1, person[:, None])[:, 0] * positive)


def iou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union, and its generalised form, of boxes (..., 4) x0 y0 x1 y1 that broadcast."""
    shared = _area(torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:]))
    around = _area(torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:]))
    union = _area(a[..., :2], a[..., 2:]) + _area(b[..., :2], b[..., 2:]) - shared
    ratio = shared / union.clamp(min=_SMALL)
    return ratio, ratio - (around - union) / around.clamp(min=_SMALL)


def _area(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp(min=0).prod(-1)
