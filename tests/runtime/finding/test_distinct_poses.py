"""Who was found twice."""

from __future__ import annotations

import numpy as np
import pytest

from jotr_deploy.runtime.finding.box_selection import LEAST_SHARED_JOINTS, distinct_poses, pose_similarity

BOX = np.array([100.0, 50.0, 200.0, 350.0])
SCALE = np.sqrt(100.0 * 300.0)


def person(rng: np.random.Generator, joints: int = 17) -> np.ndarray:
    keypoints = np.zeros((17, 3))
    keypoints[:joints] = rng.uniform([*BOX[:2], 0.2], [*BOX[2:], 1], (joints, 3))
    return keypoints


def moved(keypoints: np.ndarray, share: float) -> np.ndarray:
    return keypoints + np.array([share * SCALE, 0, 0])


def kept(*people: np.ndarray, boxes: np.ndarray | None = None) -> list[int]:
    stacked = np.array(people).reshape(-1, 17, 3)
    return distinct_poses(stacked, np.tile(BOX, (len(people), 1)) if boxes is None else boxes).tolist()


def among(keypoints: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    return pose_similarity(keypoints, boxes, keypoints, boxes)


def test_who_stays(rng: np.random.Generator) -> None:
    one, other = person(rng), person(rng)
    assert kept() == []
    assert kept(one) == [0]
    assert kept(one, one, other, one, other) == [0, 2]
    assert kept(one, moved(one, 0.03), moved(one, 0.5)) == [0, 2]


def test_people_without_joints_all_stay(rng: np.random.Generator) -> None:
    few = person(rng, LEAST_SHARED_JOINTS - 1)
    assert kept(few, few, person(rng), person(rng, 0), person(rng, 0)) == [0, 1, 2, 3, 4]


def test_a_person_like_one_who_is_gone_may_stay(rng: np.random.Generator) -> None:
    one = person(rng)
    chain = [moved(one, 0.09 * step) for step in range(3)]  # each like its neighbour, the last not like the first
    assert kept(*chain) == [0, 2]


def test_only_joints_of_both_count(rng: np.random.Generator) -> None:
    one = person(rng)
    half = one.copy()
    half[8:] = 0
    assert kept(one, half) == [0]


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1.0), (0.1, np.exp(-0.5)), (0.2, np.exp(-2.0))])
def test_similarity(rng: np.random.Generator, share: float, expected: float) -> None:
    one = person(rng)
    alike = among(np.array([one, moved(one, share)]), np.array([BOX, BOX]))
    np.testing.assert_allclose(alike, [[1, expected], [expected, 1]], rtol=1e-9)


def test_one_group_is_compared_with_another(rng: np.random.Generator) -> None:
    people, boxes = np.array([person(rng) for _ in range(3)]), np.tile(BOX, (3, 1))
    whole = among(people, boxes)
    for count in range(4):
        part = pose_similarity(people[:count], boxes[:count], people[count:], boxes[count:])
        np.testing.assert_array_equal(part, whole[:count, count:])


def test_the_smaller_box_is_the_measure(rng: np.random.Generator) -> None:
    one = person(rng)
    pair = np.array([one, moved(one, 0.1)])
    wide = np.array([BOX, [0, 0, 2000, 3000]])
    np.testing.assert_allclose(among(pair, wide), among(pair, np.array([BOX, BOX])), rtol=1e-12)
    point = np.array([[5.0, 5, 5, 5]] * 2)
    np.testing.assert_array_equal(among(pair, point), np.eye(2))
