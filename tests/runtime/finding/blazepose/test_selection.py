"""Who is a person of their own among candidates, with made numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from jotr_deploy.runtime.finding.blazepose.landmarks import BODY, POINTS, Poses
from jotr_deploy.runtime.finding.blazepose.person_rules import agree, distinct_rois, people
from jotr_deploy.runtime.finding.blazepose.source import EVERY, due
from jotr_deploy.runtime.finding.blazepose.windows import windows

Array = NDArray[Any]


def poses(*places: tuple[float, float, float], flag: float = 1.0) -> Poses:
    """Somebody of so many pixels' radius at each x, y, radius: joints on an ellipse, half as wide as tall."""
    angle = np.linspace(0, 2 * np.pi, BODY, endpoint=False)
    points = np.zeros((len(places), POINTS, 2))
    for one, (x, y, radius) in zip(points, places, strict=True):
        one[:BODY] = np.stack([x + radius / 2 * np.cos(angle), y + radius * np.sin(angle)], -1)
        one[BODY:] = [x, y]
        one[BODY + 1, 1] -= radius
    return Poses(points, np.ones((len(places), POINTS)), np.full(len(places), flag))


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        ([], []),
        ([(100, 100, 50), (200, 100, 50)], [0, 1]),
        ([(100, 100, 50), (103, 102, 50)], [0]),  # the same person again
        ([(100, 100, 50), (100, 125, 15)], [0]),  # a small one in somebody's legs
        ([(100, 100, 50), (135, 100, 50)], [0, 1]),  # somebody partly behind another
    ],
)
def test_people_are_neither_repeated_nor_covered(found: list[Any], kept: list[int]) -> None:
    assert people(poses(*found), np.linspace(1, 0.6, len(found))).tolist() == kept


def test_the_stronger_one_stays_and_who_is_no_person_goes() -> None:
    twice = poses((100, 100, 50), (103, 102, 50))
    assert people(twice, np.array([0.6, 0.9])).tolist() == [1]
    assert people(poses((100, 100, 50), flag=0.49), np.ones(1)).tolist() == []


def test_two_looks_agree_within_a_share_of_the_radius() -> None:
    first = poses((100, 100, 50), (100, 100, 50))
    assert agree(first, poses((105, 100, 50), (111, 100, 50))).tolist() == [True, False]


def test_rois_of_one_person_count_once() -> None:
    rois = poses((100, 100, 50), (110, 100, 50), (100, 100, 20), (150, 100, 50)).rois_px
    upside_down = rois[:1] * [1, -1] + [0, 200]
    assert distinct_rois(np.concatenate([rois, upside_down])).tolist() == [0, 2, 3, 4]
    assert distinct_rois(rois[:0]).tolist() == []


@pytest.mark.parametrize("size_px", [(1080, 1920), (720, 405), (64, 64), (1, 1)])
def test_windows_cover_the_picture_and_every_one_has_its_turn(size_px: tuple[int, int]) -> None:
    every = windows(size_px)
    assert all(w.x_px >= 0 and w.x_px + w.width_px <= size_px[0] for w in every)
    assert all(w.y_px >= 0 and w.y_px + w.height_px <= size_px[1] for w in every)
    looked = [due(every, turn, somebody=True) for turn in range(2 * EVERY * len(every))]
    assert {window for each in looked for window in each} == set(every)
    assert max(map(len, looked)) == 1
    assert all(every[0] in due(every, turn, somebody=False) for turn in range(4))
