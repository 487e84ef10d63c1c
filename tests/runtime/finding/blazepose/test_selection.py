"""Who is a person of their own among candidates, with made numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from runtime.finding.blazepose.made_people import poses

from jotr_deploy.runtime.finding.blazepose.landmarks import Poses
from jotr_deploy.runtime.finding.blazepose.person_rules import agree, best_alike, distinct_rois, explained, people, sure
from jotr_deploy.runtime.finding.blazepose.source import EVERY, due
from jotr_deploy.runtime.finding.blazepose.windows import windows


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


def with_joints(points: list[tuple[float, float]], radius: float = 50) -> Poses:
    """Somebody whose joints are at so many places by turns."""
    made = poses((100, 100, radius))
    made.points_px[0, :33] = np.resize(points, (33, 2))
    return made


def test_a_pose_in_anothers_legs_is_explained_by_them() -> None:
    standing = poses((100, 100, 50))
    legs = [(90, 90), (90, 120), (90, 150), (110, 90), (110, 120), (110, 150)]
    standing.points_px[0, [23, 25, 27, 24, 26, 28]] = legs
    in_legs = with_joints([(91, 100), (109, 110), (90, 148), (112, 130)], 20)
    beside = with_joints([(160, 100), (170, 110), (150, 148)], 50)
    both = Poses.joined(standing, in_legs, beside)
    assert explained(both)[0].tolist() == [pytest.approx(explained(both)[0, 0]), 1, 0]
    assert people(both, np.array([0.9, 0.85, 0.6])).tolist() == [0, 2]
    assert explained(Poses.joined()).shape == (0, 0)


def test_who_has_the_head_of_another_is_that_one() -> None:
    one, other = poses((100, 100, 50)), poses((140, 130, 50))
    assert people(Poses.joined(one, other), np.array([0.9, 0.8])).tolist() == [0, 1]
    other.points_px[0, :11] = one.points_px[0, :11]
    assert people(Poses.joined(one, other), np.array([0.9, 0.8])).tolist() == [0]


@pytest.mark.parametrize(("strength", "kept"), [(0.6, [0]), (0.85, [0, 1]), (1.6, [1, 0])])
def test_somebody_mostly_behind_another_is_one_where_they_are_strong(strength: float, kept: list[int]) -> None:
    wide = poses((100, 100, 50))
    wide.points_px[0, :33, 0] = 100 + 3 * (wide.points_px[0, :33, 0] - 100)
    behind = poses((60, 100, 40))
    assert people(Poses.joined(wide, behind), np.array([0.9, strength])).tolist() == kept


@pytest.mark.parametrize(
    ("score", "flag", "seen", "there"),
    [(0.9, 0.9, 33, True), (0.5, 0.9, 33, False), (0.9, 0.5, 33, False), (0.9, 0.9, 11, False), (0.9, 0.9, 12, True)],
)
def test_somebody_new_is_strong_and_has_a_face_and_shoulders(score: float, flag: float, seen: int, there: bool) -> None:
    look = poses((100, 100, 50), flag=flag)
    look.confidence[0, seen:] = 0.1
    assert sure(look, look, np.array([score])).tolist() == [there]


def test_a_candidate_has_the_best_score_of_those_that_are_alike() -> None:
    rois = poses((100, 100, 50), (103, 102, 50), (200, 100, 50)).rois_px
    assert best_alike(rois, np.array([0.5, 0.9, 0.7])).tolist() == [0.9, 0.9, 0.7]
    assert best_alike(rois[:0], np.zeros(0)).tolist() == []
