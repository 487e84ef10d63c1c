"""From networks and truth to figures."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from fake_scenes import FakeNetwork, fake_scene, truth
from numpy.testing import assert_allclose

from jotr_deploy.evaluation.collector import Collector
from jotr_deploy.evaluation.error_statistics import Errors, Figures, JointFigures, mean, rounded
from jotr_deploy.evaluation.measured_joints import BODY_PARTS, EVALUATED, EVALUATED_IN_SMPL30
from jotr_deploy.evaluation.measured_people import Samples, Truth
from jotr_deploy.skeletons import SMPL30


def everybody(scenes: list[Any]) -> Truth:
    known = [scene.truth for scene in scenes]
    return Truth(**{f.name: np.concatenate([getattr(t, f.name) for t in known]) for f in fields(Truth)})


def collected(networks: list[Any], scenes: list[Any]) -> list[Samples]:
    collector = Collector(networks)
    for scene in scenes:
        collector.add(scene.image_bgr, scene.given, scene.truth)
    return [measured.samples for measured in collector.finish()]


def test_the_joints_that_count() -> None:
    assert EVALUATED == (
        "R_Hip", "R_Knee", "R_Ankle", "L_Hip", "L_Knee", "L_Ankle", "Neck", "Head_top", "L_Shoulder", "L_Elbow",
        "L_Wrist", "R_Shoulder", "R_Elbow", "R_Wrist",
    )  # fmt: skip
    assert tuple(SMPL30[index] for index in EVALUATED_IN_SMPL30) == EVALUATED


def test_every_joint_is_in_one_part() -> None:
    assert list(BODY_PARTS) == ["head", "torso", "arms", "hands", "legs"]
    assert sorted(index for part in BODY_PARTS.values() for index in part) == list(range(30))
    assert [SMPL30[index] for index in BODY_PARTS["hands"]] == ["L_Hand", "R_Hand"]


def test_known_errors_reach_the_figures() -> None:
    scenes = [fake_scene(0, index) for index in range(40)]
    known = everybody(scenes)
    right = FakeNetwork(known.joints_m, known.vertices_m)
    shifted = known.joints_m + np.array([0, 0, 0.03])
    shifted[:, 0] = 0
    wrong = FakeNetwork(shifted, known.vertices_m + np.array([0.003, 0.004, 0]))
    exact, off = collected([right, wrong], scenes)
    assert right.calls == wrong.calls
    assert max(right.calls) <= 16
    assert min(right.calls[:-1]) > 12  # calls are filled with the people of several pictures
    assert len(exact) == len(off) == len(known.joints_m)
    figures = Errors.of(off).people
    assert figures["all"] == Figures(len(off), 30.0, 0.0, 5.0)
    assert figures["mostly visible"].people == (known.visible_fraction >= 0.9).sum() > 0
    assert figures["mostly visible"].people + figures["occluded"].people == len(off)
    # People hold float32, so a thousandth of a millimetre may be left.
    assert Errors.of(exact).people["all"] == Figures(len(exact), 0.0, 0.0, 0.0)


def test_visible_and_hidden_joints_are_apart() -> None:
    known = truth(np.random.default_rng(0), 50)
    found = known.joints_m + np.where(known.joints_visible, 0.01, 0.05)[..., None] * (1, 0, 0)
    samples = collected([FakeNetwork(found, known.vertices_m)], [as_scene(known)])[0]
    joints = Errors.of(samples).joints
    assert list(joints) == ["all", *EVALUATED]
    for row in joints.values():
        assert (row.visible_mpjpe_mm, row.hidden_mpjpe_mm) == (10.0, 50.0)
    chosen = known.joints_visible[:, EVALUATED_IN_SMPL30]
    assert (joints["all"].visible, joints["all"].hidden) == (chosen.sum(), (~chosen).sum())
    assert joints["R_Hip"].visible == chosen[:, 0].sum()


def as_scene(known: Truth) -> Any:
    from types import SimpleNamespace

    from jotr_deploy.runtime.detections import Detections

    boxes = np.tile([0.0, 0, 10, 10], (len(known.joints_m), 1))
    return SimpleNamespace(image_bgr=np.zeros((20, 20, 3), np.uint8), given=Detections.from_boxes(boxes), truth=known)


def test_nobody_gives_no_figures() -> None:
    nobody = truth(np.random.default_rng(0), 0)
    for samples in (
        collected([FakeNetwork(nobody.joints_m, nobody.vertices_m)], [])[0],
        collected([FakeNetwork(nobody.joints_m, nobody.vertices_m)], [as_scene(nobody)])[0],
    ):
        assert len(samples) == 0
        assert Errors.of(samples).people["all"] == Figures(0, None, None, None)
        assert Errors.of(samples).joints["Neck"] == JointFigures(0, None, None, 0, None, None)


def test_what_is_not_finite_is_no_figure() -> None:
    known = truth(np.random.default_rng(0), 3)
    found = known.joints_m.copy()
    found[1, EVALUATED_IN_SMPL30[0]] = np.nan
    mesh = known.vertices_m.copy()
    mesh[2, 17] = np.inf
    samples = collected([FakeNetwork(found, mesh)], [as_scene(known)])[0]
    assert samples.finite.tolist() == [True, False, False]
    assert Figures.of(samples) == Figures(3, None, None, None)


@pytest.mark.parametrize(
    ("value", "kept"), [(1.23449, 1.234), (-1e-9, 0.0), (float("nan"), None), (float("inf"), None)]
)
def test_rounding(value: float, kept: float | None) -> None:
    assert rounded(value) == kept
    assert str(rounded(value)) == str(kept)


def test_means() -> None:
    assert mean(np.array([1.0, 2.0])) == 1.5
    assert mean(np.zeros(0)) is None
    assert_allclose(mean(np.array([0.1] * 7, np.float32)), 0.1)
