"""Pictures used more than once: which sample shows which, and how often one is drawn."""

from __future__ import annotations

import pickle
from collections import Counter
from itertools import pairwise

import pytest

from jotr_deploy.training.reuse import Pool, Reused


class Drawing:
    """Draws its number, and counts."""

    def __init__(self) -> None:
        self.drawn: list[int] = []

    def __call__(self, number: int) -> int:
        self.drawn.append(number)
        return number


@pytest.mark.parametrize(("uses", "lag"), [(1, 1), (2, 3), (4, 8)])
def test_every_picture_is_used_so_often_and_drawn_once(uses: int, lag: int) -> None:
    draw = Drawing()
    reused = Reused(draw, uses, lag)
    samples = [reused(index) for index in range(100 * uses)]
    used = Counter(number for number, _ in samples)
    done = 100 - uses * lag
    assert all(used[number] == uses for number in range(done))
    assert all(Counter(draw.drawn)[number] == 1 for number in range(done))
    assert len(set(samples)) == len(samples)  # no picture has the same use twice


def test_the_uses_of_a_picture_are_apart() -> None:
    reused = Reused(Drawing(), uses=4, lag=8)
    where = [index for index in range(400) if reused(index)[0] == 40]
    assert [b - a for a, b in pairwise(where)] == [33, 33, 33]


def test_a_sample_depends_on_its_number_alone() -> None:
    forward, backward = Reused(Drawing(), 4, 8), Reused(Drawing(), 4, 8)
    samples = [forward(index) for index in range(200)]
    assert [backward(index) for index in reversed(range(200))] == samples[::-1]


def test_what_is_kept_stays_in_its_process() -> None:
    reused = Reused(Drawing(), 2, 2)
    reused(10)
    other = pickle.loads(pickle.dumps(reused))
    assert other(10) == reused(10)
    assert other.draw.drawn == [5, 5]  # what came along in the list, and what it drew itself


@pytest.mark.parametrize("size", [1, 7])
def test_a_pool_shows_everybody_once_a_round_in_changing_order(size: int) -> None:
    draw = Drawing()
    pool = Pool(draw, size, seed=3)
    rounds = [[pool(size * use + place) for place in range(size)] for use in range(4)]
    for use, samples in enumerate(rounds):
        assert sorted(samples) == [(number, use) for number in range(size)]
    assert sorted(draw.drawn) == list(range(size))
    orders = {tuple(number for number, _ in samples) for samples in rounds}
    assert len(orders) == (4 if size > 1 else 1)
    other_seed = Pool(Drawing(), size, seed=4)
    assert ([other_seed(place) for place in range(size)] == rounds[0]) == (size == 1)


def test_a_sample_of_a_pool_depends_on_its_number_alone() -> None:
    pool, backward = Pool(Drawing(), 7, seed=3), Pool(Drawing(), 7, seed=3)
    samples = [pool(index) for index in range(30)]
    assert [backward(index) for index in reversed(range(30))] == samples[::-1]
    other = pickle.loads(pickle.dumps(pool))
    assert other(20) == samples[20]
