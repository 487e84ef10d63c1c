"""Boxes and who they belong to."""

from __future__ import annotations

import numpy as np
import pytest

from jotr_deploy.evaluation.matching import match

NONE = np.zeros((0, 4))


@pytest.mark.parametrize(
    ("found", "scores", "true", "pairs"),
    [
        ([], [], [], []),
        ([[0, 0, 10, 10]], [1], [], []),
        ([], [], [[0, 0, 10, 10]], []),
        ([[0, 0, 10, 10]], [0.1], [[0, 0, 10, 10]], [(0, 0)]),
        ([[0, 0, 10, 10]], [1], [[5, 0, 15, 10]], []),  # a third
        ([[0, 0, 10, 10]], [1], [[0, 0, 10, 20]], [(0, 0)]),  # one half is enough
        # The surer one chooses first, and takes the best, not the first.
        ([[0, 0, 10, 10], [0, 0, 10, 9]], [0.2, 0.9], [[0, 0, 10, 10]], [(1, 0)]),
        ([[0, 0, 10, 10]], [1], [[0, 0, 10, 8], [0, 0, 10, 10]], [(0, 1)]),
        ([[0, 0, 10, 10], [0, 0, 10, 10]], [0.5, 0.5], [[0, 0, 10, 10], [0, 0, 10, 9]], [(0, 0), (1, 1)]),
    ],
)
def test_pairs(found: list, scores: list, true: list, pairs: list) -> None:
    made = match(np.reshape(found, (-1, 4)), np.array(scores), np.reshape(true, (-1, 4)))
    assert made.shape == (len(pairs), 2)
    assert [tuple(pair) for pair in made] == pairs
