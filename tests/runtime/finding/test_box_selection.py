"""Of boxes that show the same, the best stays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotr_deploy.geometry.boxes import iou
from jotr_deploy.runtime.finding.box_selection import nms

A, B, C = [0, 0, 10, 10], [0, 0, 10, 5], [20, 0, 30, 10]  # IoU of A and B is 0.5


@pytest.mark.parametrize(
    ("boxes", "scores", "limit", "kept"),
    [
        (np.zeros((0, 4)), [], 0.5, []),
        ([A], [0.1], 0.5, [0]),
        ([A, C], [0.1, 0.9], 0.5, [1, 0]),
        ([A, B], [0.1, 0.9], 0.4, [1]),
        ([A, B], [0.1, 0.9], 0.5, [1, 0]),  # at the limit, not above
        ([A, A], [0.5, 0.5], 0.5, [0]),  # equal scores: the first
        ([A, B, C], [0.9, 0.8, 0.7], 0.4, [0, 2]),
    ],
)
def test_which_boxes_stay(boxes, scores, limit, kept):
    result = nms(np.array(boxes, np.float32), np.array(scores, np.float32), limit)
    assert result.dtype == np.int64
    assert result.tolist() == kept


@given(st.integers(0, 2**31), st.integers(0, 30), st.floats(0, 1))
def test_what_stays_differs_and_what_went_had_a_better(seed, count, limit):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 20, (count, 2))
    boxes, scores = np.concatenate([low, low + rng.uniform(1, 20, (count, 2))], 1), rng.random(count)
    kept = nms(boxes, scores, limit)
    assert (np.diff(scores[kept]) <= 0).all()
    overlap = iou(boxes, boxes)
    assert (overlap[np.ix_(kept, kept)][~np.eye(len(kept), dtype=bool)] <= limit).all()
    for gone in set(range(count)) - set(kept.tolist()):
        better = kept[scores[kept] >= scores[gone]]
        assert (overlap[gone, better] > limit).any()
