"""People before the camera of the picture: seen where they were, in the metres of one scene."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jotr_deploy.geometry.camera import camera_from_box, looking_at, project_px
from jotr_deploy.geometry.rotations import matrix_from_axis_angle
from jotr_deploy.geometry.scene_frame import before_camera, translation_m
from jotr_deploy.people import LAYOUT, People

FOCAL_PX, PRINCIPAL_PX = 1100.0, np.array([640.0, 350.0])


def people(places_m: np.ndarray, seed: int = 0) -> tuple[People, np.ndarray]:
    """People as a network that makes no error sees them, and their vertices in the scene, which is at `places_m`."""
    rng = np.random.default_rng(seed)
    count = len(places_m)
    body_m = rng.uniform([-0.4, -0.9, -0.25], [0.4, 0.9, 0.25], (count, 6890, 3))
    pelvis_px = places_m[:, :2] / places_m[:, 2:] * FOCAL_PX + PRINCIPAL_PX
    half_px = FOCAL_PX / places_m[:, 2:] * 1.1
    boxes_px = np.concatenate([pelvis_px - half_px, pelvis_px + half_px], 1).astype(np.float32)
    turn = looking_at(pelvis_px, FOCAL_PX, PRINCIPAL_PX)
    focal_px, principal_px = camera_from_box(boxes_px)
    values = {name: np.zeros((count, *shape), dtype) for name, (shape, dtype) in LAYOUT.items()}
    seen_m = body_m @ np.swapaxes(turn, -1, -2)
    values |= {
        "boxes_px": boxes_px, "focal_px": focal_px, "principal_px": principal_px, "vertices_m": seen_m,
        "joints_m": seen_m[:, :30], "pose_rad": rng.normal(0, 0.5, (count, 24, 3)),
        "translation_m": np.column_stack([np.zeros((count, 2)), places_m[:, 2] * focal_px / FOCAL_PX]),
    }  # fmt: skip
    return People(**values), body_m + places_m[:, None]


PLACES_M = np.array([[0.0, 0.2, 2.5], [1.2, 0.1, 4.0], [-2.5, 0.4, 5.0], [3.0, -0.5, 9.0]])


def test_they_stand_where_they_stood_and_are_seen_where_they_were() -> None:
    found, true_m = people(PLACES_M)
    placed = before_camera(found, FOCAL_PX, PRINCIPAL_PX)
    assert_allclose(placed.translation_m, PLACES_M, rtol=0.08, atol=0.03)
    assert_array_equal(placed.focal_px, np.float32(FOCAL_PX))
    assert_array_equal(placed.principal_px, np.tile(np.float32(PRINCIPAL_PX), (4, 1)))
    assert_allclose(placed.vertices_m, true_m - PLACES_M[:, None], atol=1e-5)
    before_px = project_px(found.vertices_camera_m, found.focal_px, found.principal_px)
    after_px = project_px(placed.vertices_camera_m, placed.focal_px, placed.principal_px)
    side_px = found.boxes_px[:, 2] - found.boxes_px[:, 0]
    moved = np.linalg.norm(before_px - after_px, axis=-1).mean(1) / side_px
    assert (moved < [0.03, 0.02, 0.02, 0.01]).all()  # perspective within the body, the less the further away


def test_the_root_turns_with_the_body_and_nothing_else_changes() -> None:
    found, _ = people(PLACES_M)
    placed = before_camera(found, FOCAL_PX, PRINCIPAL_PX)
    before, after = (matrix_from_axis_angle(each.pose_rad[:, 0]) for each in (found, placed))
    turn = after @ np.swapaxes(before, -1, -2)
    assert_allclose(found.joints_m @ np.swapaxes(turn, -1, -2), placed.joints_m, atol=1e-5)
    assert_array_equal(placed.pose_rad[:, 1:], found.pose_rad[:, 1:])
    moved = {"pose_rad", "translation_m", "focal_px", "principal_px", "joints_m", "vertices_m"}
    for name in LAYOUT.keys() - moved:
        assert_array_equal(getattr(placed, name), getattr(found, name))


def test_the_longer_the_lens_the_further_away_and_the_order_in_depth_stays() -> None:
    found, _ = people(PLACES_M)
    near, far = (before_camera(found, focal_px, PRINCIPAL_PX).translation_m[:, 2] for focal_px in (1100.0, 2200.0))
    assert_allclose(far / near, 2, rtol=0.05)
    assert (np.diff(near) > 0).all()
    assert (np.diff(far) > 0).all()


def test_nobody_and_somebody_broken() -> None:
    assert len(before_camera(People.none(), FOCAL_PX, PRINCIPAL_PX)) == 0
    found, _ = people(PLACES_M)
    found.translation_m[1] = np.nan
    found.joints_m[2] = np.inf
    placed = before_camera(found, FOCAL_PX, PRINCIPAL_PX)
    assert np.isnan(placed.translation_m[[1, 2]]).all()
    assert_array_equal(placed.translation_m[[0, 3]], before_camera(found[[0, 3]], FOCAL_PX, PRINCIPAL_PX).translation_m)


@pytest.mark.parametrize("place_m", [(0.0, 0.0, 3.0), (-1.0, 0.5, 2.0), (4.0, 1.0, 20.0)])
def test_points_that_are_seen_exactly_are_placed_exactly(place_m: tuple[float, float, float]) -> None:
    points_m = np.random.default_rng(1).normal(0, 0.4, (1, 30, 3))
    in_scene_m = points_m + place_m
    assert_allclose(translation_m(in_scene_m[..., :2] / in_scene_m[..., 2:], points_m), [place_m], rtol=1e-9, atol=1e-9)
