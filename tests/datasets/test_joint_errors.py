from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotr_deploy.datasets import joint_errors
from jotr_deploy.datasets.joint_errors import KINDS, SIGMA, distance_px, disturb_joints, error_probabilities
from jotr_deploy.skeletons import SKELETONS, flip_pairs

AREA_PX2 = 100.0 * 180.0
NOBODY = np.zeros((0, 17, 2))
ALL, NONE = np.ones(17, bool), np.zeros(17, bool)
MIRROR = {a: b for pair in flip_pairs(SKELETONS["coco17"]) for a, b in (pair, pair[::-1])}
# Apart by more than any error reaches.
FAR = np.stack([np.arange(17) * 1000.0, np.zeros(17)], 1)


def many(count: int, *arguments: object, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([disturb_joints(rng, *arguments) for _ in range(count)])  # type: ignore[arg-type]


def only(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.full((len(KINDS), 17), 1e-12)
    table[KINDS.index(kind)] = 1
    monkeypatch.setattr(joint_errors, "error_probabilities", lambda valid, overlaps: table)


@pytest.mark.parametrize(
    ("kind", "joint", "valid", "overlaps", "probability"),
    [
        ("jitter", 0, 10, 0, 0.15), ("jitter", 0, 11, 0, 0.10), ("jitter", 14, 10, 0, 0.15),
        ("jitter", 16, 17, 0, 0.10), ("jitter", 1, 10, 0, 0.20), ("jitter", 10, 11, 0, 0.15),
        ("jitter", 11, 3, 0, 0.25), ("jitter", 12, 17, 5, 0.20),
        ("miss", 4, 5, 0, 0.15), ("miss", 5, 5, 0, 0.20), ("miss", 16, 0, 0, 0.20), ("miss", 7, 5, 0, 0.25),
        ("miss", 0, 6, 0, 0.10), ("miss", 15, 10, 0, 0.13), ("miss", 13, 10, 0, 0.15),
        ("miss", 3, 11, 0, 0.02), ("miss", 6, 17, 0, 0.05), ("miss", 12, 17, 0, 0.10),
        ("inversion", 2, 17, 0, 0.01), ("inversion", 8, 1, 2, 0.03), ("inversion", 11, 17, 0, 0.06),
        ("swap", 0, 10, 1, 0.02), ("swap", 5, 10, 1, 0.15), ("swap", 13, 10, 1, 0.10),
        ("swap", 0, 10, 0, 0.01), ("swap", 5, 11, 2, 0.06), ("swap", 16, 11, 2, 0.03),
        ("swap", 9, 15, 3, 0.15), ("swap", 9, 16, 3, 0.06),
        ("good", 0, 17, 0, 0.86), ("good", 11, 5, 1, 0.34),
    ],
)  # fmt: skip
def test_probabilities(kind: str, joint: int, valid: int, overlaps: int, probability: float) -> None:
    assert error_probabilities(valid, overlaps)[KINDS.index(kind), joint] == pytest.approx(probability)


@given(st.integers(0, 17), st.integers(0, 5))
def test_probabilities_sum_to_one(valid: int, overlaps: int) -> None:
    table = error_probabilities(valid, overlaps)
    assert table.min() > 0
    np.testing.assert_allclose(table.sum(0), 1)


@pytest.mark.parametrize("similarity", [0.85, 0.5, 0.1])
def test_a_distance_has_its_similarity(similarity: float) -> None:
    assert SIGMA[[0, 6, 11]].tolist() == [0.026, 0.079, 0.107]
    distance = distance_px(similarity, AREA_PX2)
    np.testing.assert_allclose(np.exp(-(distance**2) / (2 * AREA_PX2 * (2 * SIGMA) ** 2)), similarity)


def test_alone_the_shares_are_the_probabilities_without_inversion_and_swap() -> None:
    points = many(3000, FAR, NONE, AREA_PX2, NOBODY)
    radius = np.linalg.norm(points - FAR, axis=-1) / distance_px(0.1, AREA_PX2)
    edges = [0, *(distance_px(s, 1.0)[0] / distance_px(0.1, 1.0)[0] for s in (0.85, 0.5)), 1 + 1e-4]
    shares = np.stack([np.histogram(radius[:, j], edges)[0] for j in range(17)], 1) / len(points)
    table = error_probabilities(0, 0)[[KINDS.index(kind) for kind in ("good", "jitter", "miss")]]
    np.testing.assert_allclose(shares.sum(0), 1)
    np.testing.assert_allclose(shares, table / table.sum(0), atol=0.04)


def test_shares_of_inversion_and_swap() -> None:
    others = FAR + np.array([0, 500_000.0])
    points = many(3000, FAR, ALL, AREA_PX2, others[None])
    near = distance_px(0.5, AREA_PX2) * (1 + 1e-4)
    table = error_probabilities(17, 1)
    for joint in range(17):
        around = [others[joint]]
        if joint in MIRROR:
            around.append(others[MIRROR[joint]])
            distance = np.linalg.norm(points[:, joint] - FAR[MIRROR[joint]], axis=-1)
            inverted = distance < near[joint]
            if joint >= 11:
                assert distance[inverted].max() > 0.9 * near[joint]
            assert inverted.mean() == pytest.approx(table[KINDS.index("inversion"), joint], abs=0.02)
        distance = np.stack([np.linalg.norm(points[:, joint] - centre, axis=-1) for centre in around])
        swapped = distance < near[joint]
        if joint >= 5:
            assert distance[swapped].max() > 0.9 * near[joint]
        assert np.any(swapped, 0).mean() == pytest.approx(table[KINDS.index("swap"), joint], abs=0.02)
        for share in swapped:
            assert share.mean() > 0.3 * np.any(swapped, 0).mean()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("people", [1, 4])
def test_points_lie_where_their_kind_says(kind: str, people: int, monkeypatch: pytest.MonkeyPatch) -> None:
    only(kind, monkeypatch)
    rng = np.random.default_rng(people)
    own = rng.uniform(0, 60, (17, 2))
    others = rng.uniform(0, 60, (people, 17, 2))
    points = many(100, own, ALL, AREA_PX2, others)
    d85, d50, d10 = (distance_px(similarity, AREA_PX2) for similarity in (0.85, 0.5, 0.1))
    for joint in range(1, 17):
        mirror = MIRROR[joint]
        candidates = np.concatenate([own[[joint, mirror]], others[:, joint], others[:, mirror]])
        distance = np.linalg.norm(points[:, joint, None] - candidates, axis=-1)
        slack = 1e-3
        nearest = distance.argmin(1)
        if kind == "jitter":
            ok = (nearest == 0) & (distance[:, 0] > d85[joint] - slack) & (distance[:, 0] < d50[joint] + slack)
        elif kind == "good":
            ok = (nearest == 0) & (distance[:, 0] < d85[joint] + slack)
        elif kind == "inversion":
            ok = (nearest == 1) & (distance[:, 1] < d50[joint] + slack)
        elif kind == "swap":
            ok = distance[:, 2:].min(1) < np.minimum(distance[:, :2].min(1), d50[joint]) + slack
        else:
            ok = (distance.min(1) > d50[joint] - slack) & (distance.min(1) < d10[joint] + slack)
        if kind in ("good", "miss"):
            assert ok.all()
        else:  # where the kind cannot be had at all another takes its place
            assert ok.all() or not ok.any()


@pytest.mark.parametrize("kind", ["inversion", "swap"])
def test_what_cannot_be_had_is_left_out(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    only(kind, monkeypatch)
    points = many(50, FAR, NONE, AREA_PX2, NOBODY)
    assert (np.linalg.norm(points - FAR, axis=-1) <= distance_px(0.1, AREA_PX2) + 1e-3).all()


def test_a_joint_without_any_place_is_zero() -> None:
    everything_here = np.full((17, 2), 7.0)
    points = disturb_joints(np.random.default_rng(0), everything_here, ALL, 0.0, NOBODY)
    assert not points[1:].any()  # a mirrored joint at the same place is never farther than a radius of zero
    np.testing.assert_array_equal(points[0], [7, 7])


@given(st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_scale_and_origin_do_not_matter(seed: int, people: int) -> None:
    rng = np.random.default_rng(seed)
    own, others, visible = rng.uniform(0, 256, (17, 2)), rng.uniform(0, 256, (people, 17, 2)), rng.random(17) < 0.7
    before = own.copy()
    one = disturb_joints(np.random.default_rng(seed), own, visible, AREA_PX2, others)
    two = disturb_joints(np.random.default_rng(seed), 2 * own + 64, visible, 4 * AREA_PX2, 2 * others + 64)
    assert one.shape == (17, 2)
    assert one.dtype == np.float32
    np.testing.assert_allclose(two, 2 * one + 64, atol=1e-3)
    np.testing.assert_array_equal(own, before)
