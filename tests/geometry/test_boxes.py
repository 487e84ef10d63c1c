"""Boxes."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose

from jotr_deploy.geometry.boxes import iou, widened

NONE = np.zeros((0, 4))


def test_iou_of_known_boxes() -> None:
    box = [[0, 0, 10, 20]]
    others = [[0, 0, 10, 20], [5, 0, 15, 20], [0, 10, 10, 30], [10, 0, 20, 20], [50, 50, 60, 60], [3, 3, 3, 3]]
    assert_allclose(iou(box, others), [[1, 1 / 3, 1 / 3, 0, 0, 0]])
    assert iou(NONE, others).shape == (0, 6)
    assert iou(others, NONE).shape == (6, 0)
    assert_allclose(iou([[1, 1, 1, 1]], [[1, 1, 1, 1]]), [[0]])


def test_widened_about_the_middle() -> None:
    assert widened(NONE, 1.2).shape == (0, 4)
    assert_allclose(widened(np.array([[0, 0, 10, 20], [5, 5, 5, 5]]), 1.2), [[-1, -2, 11, 22], [5, 5, 5, 5]])
