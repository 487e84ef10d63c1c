"""Errors over the visible joints and PCKh, by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fake_scenes import FakeNetwork, truth
from numpy.testing import assert_allclose, assert_array_equal

from jotr_deploy.evaluation.attack import Attack
from jotr_deploy.evaluation.measured_joints import EVALUATED, EVALUATED_IN_SMPL30, H36MRegressor, by_name
from jotr_deploy.evaluation.measured_people import Truth
from jotr_deploy.evaluation.metrics import pa_mpjpe_mm
from jotr_deploy.evaluation.patches import patch_grid
from jotr_deploy.evaluation.textures import drawn_textures
from jotr_deploy.evaluation.visible_joints import JointErrors, JointSetFigures, TruePlaces, VisibleJoints
from jotr_deploy.geometry.camera import camera_from_box, project_px
from jotr_deploy.people import People
from jotr_deploy.runtime.crops import Crops
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.support.aliases import Array

CHOSEN = list(EVALUATED_IN_SMPL30)
NECK, TOP = EVALUATED.index("Neck"), EVALUATED.index("Head_top")
SIDE = 256
DEPTH_M = 5000 / 256  # where a metre is as long as the side of the crop


def known(count: int) -> Truth:
    made = truth(np.random.default_rng(0), count)
    return replace(made, joints_visible=np.ones((count, 30), bool))


def people(true: Truth, wrong_mm: Array) -> People:
    """People at the depth where a millimetre is a thousandth of the crop's side, off by (N, 14) mm along x."""
    count = len(true.joints_m)
    boxes_px = np.tile([0.0, 0, SIDE, SIDE], (count, 1))
    focal, principal = camera_from_box(boxes_px)
    joints_m = true.joints_m.copy()
    joints_m[:, CHOSEN, 0] += wrong_mm / 1000
    given = Detections(boxes_px, np.zeros((count, 30, 3)), np.ones(count), -np.ones(count))
    crops = Crops(np.zeros((count, 3, 4, 4), np.float32), np.zeros((count, 30, 2)), np.zeros((count, 30)), boxes_px)
    plain = FakeNetwork(joints_m, true.vertices_m)(crops, given)
    translation = np.tile([0, 0, DEPTH_M], (count, 1))
    return replace(plain, translation_m=translation, focal_px=focal, principal_px=principal)


def places_of(true: Truth, visible: Array) -> TruePlaces:
    """The true joints where the camera of the crop sees them."""
    right = people(true, np.zeros((len(true.joints_m), 14)))
    in_camera_m = true.joints_m[:, CHOSEN] + right.translation_m[:, None]
    return TruePlaces(project_px(in_camera_m, right.focal_px, right.principal_px), visible)


def errors(true: Truth, wrong_mm: Array, visible: Array) -> JointErrors:
    return JointErrors.of(people(true, wrong_mm), true, places_of(true, visible), by_name)


def test_joints_are_pooled_over_people() -> None:
    """One of the first person's joints is visible, off by 30 mm; four of the second's are, off by 10."""
    wrong_mm = np.array([[30.0], [10.0]]) * np.ones((2, 14))
    visible = np.zeros((2, 14), bool)
    visible[0, 3], visible[1, :4] = True, True
    found = VisibleJoints.of(errors(known(2), wrong_mm, visible))
    assert (found.visible.people, found.visible.joints, found.visible.mpjpe_mm) == (2, 5, (30 + 4 * 10) / 5)
    assert (found.all.people, found.all.joints, found.all.mpjpe_mm) == (2, 28, 20)


def test_visible_joints_alone_decide_the_alignment() -> None:
    rng, true = np.random.default_rng(1), known(2)
    wrong_mm, visible = rng.normal(0, 50, (2, 14)), rng.random((2, 14)) < 0.6
    found, got = people(true, wrong_mm), errors(true, wrong_mm, visible)
    for person in range(2):
        points, right = (each[person, CHOSEN] for each in (found.joints_m, true.joints_m))
        assert_allclose(got.aligned_mm[person].mean(), pa_mpjpe_mm(points, right), rtol=1e-6)
        seen = visible[person]
        expected = pa_mpjpe_mm(points[seen], right[seen])
        assert_allclose(got.aligned_by_visible_mm[person, seen].mean(), expected, rtol=1e-6)
        assert_allclose(got.mpjpe_mm[person], np.abs(wrong_mm[person, seen]).mean(), rtol=1e-4)


def test_pckh_by_hand() -> None:
    """Every person's joint counts against half of the distance from neck to head top, as the picture has it."""
    true = known(2)
    visible = np.ones((2, 14), bool)
    visible[1, 0] = False
    places = places_of(true, visible)
    heads_px = np.linalg.norm(places.joints_px[:, NECK] - places.joints_px[:, TOP], axis=-1)
    shares = np.full((2, 14), 0.4)
    shares[0, 0], shares[1, 0], shares[0, 1], shares[1, 2] = 0.4, 0.6, 0.6, 0.6
    found = people(true, np.zeros((2, 14)))
    depth_m = found.translation_m[:, 2, None] + true.joints_m[:, CHOSEN, 2]
    wrong_m = shares * heads_px[:, None] * depth_m / found.focal_px[:, None]
    got = errors(true, wrong_m * 1000, visible)
    assert_allclose(got.in_heads, shares, rtol=1e-3)
    found_of = VisibleJoints.of(got)
    assert found_of.all.pckh == round((0.5 + 0.5 + 0.5 + 11) / 14, 3)
    assert found_of.visible.pckh == round((1 + 0.5 + 0.5 + 11) / 14, 3)


def test_the_limit_itself_is_right() -> None:
    one = np.full((1, 14), 0.5)
    assert JointSetFigures.of(one, one, one, np.ones((1, 14), bool)).pckh == 1
    assert JointSetFigures.of(one, one, one + 1e-9, np.ones((1, 14), bool)).pckh == 0


def test_what_is_not_known_in_the_picture_does_not_count() -> None:
    true = known(2)
    places = places_of(true, np.ones((2, 14), bool))
    places.joints_px[0, 3] = np.nan
    places.joints_px[1, TOP] = np.nan  # then nothing of the person is known in heads
    got = JointErrors.of(people(true, np.zeros((2, 14))), true, places, by_name)
    assert np.flatnonzero(np.isnan(got.in_heads[0])).tolist() == [3]
    assert np.isnan(got.in_heads[1]).all()
    assert VisibleJoints.of(got).visible.pckh == 1


def test_who_is_behind_the_camera_is_wrong_in_the_picture() -> None:
    true = known(1)
    behind = replace(people(true, np.zeros((1, 14))), translation_m=np.array([[0.0, 0, -9]]))
    got = JointErrors.of(behind, true, places_of(true, np.ones((1, 14), bool)), by_name)
    assert np.isposinf(got.in_heads).all()
    assert VisibleJoints.of(got).all == JointSetFigures(1, 14, 0.0, 0.0, 0.0)


def test_numbers_that_are_not_finite() -> None:
    true = known(2)
    found = people(true, np.zeros((2, 14)))
    found.vertices_m[0, 5] = np.nan
    got = JointErrors.of(found, true, places_of(true, np.ones((2, 14), bool)), by_name)
    assert np.isposinf(got.distance_mm[0]).all()
    assert np.isfinite(got.distance_mm[1]).all()
    figures = VisibleJoints.of(got).visible
    assert (figures.mpjpe_mm, figures.pa_mpjpe_mm, figures.pckh) == (None, None, 0.5)


@pytest.mark.parametrize("count", [0, 2])
def test_nothing_is_visible(count: int) -> None:
    got = errors(known(count), np.full((count, 14), 9.0), np.zeros((count, 14), bool))
    assert np.isnan(got.mpjpe_mm).all()
    assert VisibleJoints.of(got).visible == JointSetFigures(0, 0, None, None, None)
    assert VisibleJoints.of(got).all.joints == 14 * count
    assert len(JointErrors.concatenate([got, got])) == 2 * count


def test_which_joints_are_visible() -> None:
    true = known(1)
    hidden, outside, edge = (EVALUATED_IN_SMPL30[n] for n in (2, 5, 7))
    true.joints_visible[0, hidden] = False
    joints_px = np.full((1, 30, 2), 20.0)
    joints_px[0, outside], joints_px[0, edge] = (110, 20), (10, 109.9)
    boxes_px = np.array([[10.0, 10, 110, 110]])
    places = TruePlaces.in_crops(joints_px[:, CHOSEN], joints_px, boxes_px, true)
    assert places is not None
    assert np.flatnonzero(~places.visible[0]).tolist() == [2, 5]
    assert TruePlaces.in_crops(None, joints_px, boxes_px, true) is None


def test_joints_of_a_regressor_in_the_camera() -> None:
    rows = np.zeros((17, 6890))
    rows[np.arange(17), np.arange(17)] = 1
    vertices_m = np.random.default_rng(0).normal(0, 1, (2, 6890, 3))
    evaluated = H36MRegressor(rows)
    placed = evaluated.placed(np.zeros((2, 30, 3)), vertices_m)
    assert placed.shape == (2, 14, 3)
    assert_array_equal(placed[:, 0], vertices_m[:, 1])  # without the pelvis
    between = placed - evaluated(np.zeros((2, 30, 3)), vertices_m)
    assert_allclose(between, np.repeat(vertices_m[:, :1], 14, 1))


def test_under_attack_the_worst_place_is_that_of_the_visible_joints() -> None:
    """The network is off most where the patch is at the top left, but only in a joint that a thing hides anyway."""
    true = known(1)
    hidden = EVALUATED_IN_SMPL30[4]
    true.joints_visible[0, hidden] = False
    joints_px = np.full((1, 30, 2), 250.0)  # no patch of the grid but the last covers them
    grey = np.full((SIDE, SIDE, 3), 7, np.uint8)
    given = Detections(np.array([[0.0, 0, SIDE, SIDE]]), np.zeros((1, 30, 3)), np.ones(1), -np.ones(1))

    def network(crops: Crops, many: Detections) -> People:
        wrong_mm = np.zeros((len(crops), 14))
        for own, image in zip(wrong_mm, crops.image, strict=True):
            rows, _ = np.nonzero((np.abs(image - 7 / 255) > 1e-6).any(0))
            if len(rows):
                own[4 if rows.min() == 0 else slice(None)] = 2000 if rows.min() == 0 else 30
        return people(true[np.zeros(len(crops), np.int64)], wrong_mm)

    grid: Any = patch_grid(80, 72, SIDE)
    attack = Attack([network], SIDE, [grid], drawn_textures(0, SIDE, 3), 0)
    evaluated_px = places_of(true, np.ones((1, 14), bool)).joints_px
    attack.add(grey, given, true, joints_px, ["one"], evaluated_px)
    (found,) = attack.finish()
    assert grid.place(int(np.nanargmax(found.patched_mm[0][0, :, 0])))[0] == 0
    clean, worst = found.joints
    assert_allclose(clean.mpjpe_mm, [0], atol=1e-3)
    assert_allclose(worst.mpjpe_mm, [30], atol=1e-3)
    assert worst.visible.sum() == 13
    assert VisibleJoints.of(worst).all.mpjpe_mm == 30
    plain = Attack([network], SIDE, [grid], drawn_textures(0, SIDE, 3), 0)
    plain.add(grey, given, true, joints_px, ["one"])
    assert [len(each) for each in plain.finish()[0].joints] == [0, 0]
