"""Who is followed, and the error of motion by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jotr_deploy.datasets.published.annotation import Annotation, Fit
from jotr_deploy.evaluation.published.acceleration import NOT_FOLLOWED, acceleration_errors_mm, tracks_of
from jotr_deploy.support.aliases import Array


def person(sequence: str, frame: int, shape: float | None, gender: Any = "male") -> Annotation:
    fit = None if shape is None else Fit(np.zeros((24, 3)), np.full(10, shape), np.zeros(3), gender)
    return Annotation(
        f"{sequence}/{frame}/{shape}", Path("a.jpg"), (9, 9), np.zeros(4), np.zeros((30, 3)),
        fit=fit, sequence=sequence, frame=frame,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("people", "tracks"),
    [
        ([], []),
        ([("a", 0, 0.1), ("a", 0, 0.2), ("a", 1, 0.2), ("a", 1, 0.1)], [0, 1, 1, 0]),  # in any order
        ([("a", 0, 0.1), ("b", 1, 0.1)], [0, 1]),  # other sequences, other people
        ([("a", 0, 0.1, "male"), ("a", 0, 0.1, "female")], [0, 1]),
        ([("a", 0, 0.1), ("a", 1, 0.1), ("a", 1, 0.1), ("a", 2, 0.1)], [0, -1, -1, 0]),  # twins in frame 1
        ([("", 0, 0.1), ("", 1, 0.1)], [-1, -1]),  # pictures without a sequence
        ([("a", 0, None), ("a", 1, None)], [-1, -1]),  # no truth
    ],
)
def test_who_is_who(people: list[Any], tracks: list[int]) -> None:
    assert_array_equal(tracks_of([person(*each) for each in people]), tracks)
    assert NOT_FOLLOWED == -1


def along(positions_m: list[float]) -> Array:
    """(N, 14, 3) every joint off by these metres along y."""
    return np.broadcast_to(np.array(positions_m)[:, None, None] * (0, 1, 0), (len(positions_m), 14, 3))


def test_by_hand() -> None:
    """Off by 0, 0, 1, 0 mm: second differences of 1 and of -2 mm at the frames between."""
    who, errors = acceleration_errors_mm(along([0, 0, 0.001, 0]), np.zeros(4, int), np.arange(4))
    assert_array_equal(who, [1, 2])
    assert_allclose(errors, [1, 2])


def test_a_steady_error_is_no_error_of_motion() -> None:
    _, errors = acceleration_errors_mm(along([0.1, 0.2, 0.3, 0.4, 0.5]), np.zeros(5, int), np.arange(5))
    assert_allclose(errors, np.zeros(3), atol=1e-12)


@pytest.mark.parametrize(
    ("tracks", "frames", "measured"),
    [
        ([], [], []),
        ([0], [0], []),
        ([0, 0], [0, 1], []),
        ([0, 0, 0], [0, 1, 2], [1]),
        ([0, 0, 0], [2, 0, 1], [2]),  # the order of the file does not matter
        ([0, 0, 0], [0, 1, 3], []),  # a gap
        ([0, 0, 0, 0, 0, 0], [0, 1, 2, 4, 5, 6], [1, 4]),  # never across it
        ([0, 1, 0, 1, 0, 1], [0, 0, 1, 1, 2, 2], [2, 3]),
        ([0, 0, 1], [0, 1, 2], []),
        ([-1, -1, -1], [0, 1, 2], []),
    ],
)
def test_who_is_measured(tracks: list[int], frames: list[int], measured: list[int]) -> None:
    gap_m = along([0.0] * len(tracks))
    who, errors = acceleration_errors_mm(gap_m, np.array(tracks, int), np.array(frames, int))
    assert sorted(who) == measured
    assert errors.shape == (len(measured),)


def test_people_are_apart() -> None:
    """Two people in turns: each has the error of their own frames."""
    gap_m = along([0, 0.5, 0.001, 0.5, 0, 0.5])
    who, errors = acceleration_errors_mm(gap_m, np.array([0, 1] * 3), np.array([7, 7, 8, 8, 9, 9]))
    assert dict(zip(who.tolist(), errors.round(9).tolist(), strict=True)) == {2: 2.0, 3: 0.0}
