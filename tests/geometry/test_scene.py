"""The one camera that stands in for everybody's own."""

from __future__ import annotations

import numpy as np
import pytest

from jotr_deploy.geometry.camera import camera_from_box, project_px
from jotr_deploy.geometry.scene_frame import image_centre_px, scene_error_px, scene_focal_px, scene_translation_m
from jotr_deploy.people import LAYOUT, People

SIZE = (1920, 1080)


def people_in(boxes_px, z_m):
    boxes = np.array(boxes_px, np.float32).reshape(-1, 4)
    rng = np.random.default_rng(0)
    fields = {name: np.zeros((len(boxes), *shape), dtype) for name, (shape, dtype) in LAYOUT.items()}
    fields["boxes_px"] = boxes
    fields["focal_px"], fields["principal_px"] = camera_from_box(boxes)
    fields["translation_m"] = np.column_stack([rng.uniform(-0.3, 0.3, (len(boxes), 2)), z_m])
    fields["vertices_m"] = rng.uniform(-0.5, 0.5, (len(boxes), 6890, 3))
    return People(**fields)


TWO = people_in([(100, 200, 700, 800), (1200, 100, 1500, 400)], [40.0, 44.0])


@pytest.mark.parametrize("focal_px", [None, 1500.0, 30000.0])
def test_every_pelvis_stays_on_its_pixel(focal_px):
    focal = scene_focal_px(TWO) if focal_px is None else focal_px
    places = scene_translation_m(TWO, SIZE, focal_px)
    seen = project_px(places[:, None], np.full(2, focal), np.tile(image_centre_px(SIZE), (2, 1)))
    np.testing.assert_allclose(seen, project_px(TWO.translation_m[:, None], TWO.focal_px, TWO.principal_px), atol=1e-2)


@pytest.mark.parametrize("focal_px", [None, 1500.0])
def test_depth_follows_the_focal_length(focal_px):
    focal = scene_focal_px(TWO) if focal_px is None else focal_px
    z = scene_translation_m(TWO, SIZE, focal_px)[:, 2]
    np.testing.assert_allclose(focal / z, TWO.focal_px / TWO.translation_m[:, 2], rtol=1e-6)


def test_the_smaller_in_the_picture_stands_farther_away():
    near, far = scene_translation_m(TWO, SIZE)[:, 2]
    assert far > 2 * near


def test_a_person_alone_in_the_middle_keeps_their_place():
    centre = image_centre_px(SIZE)
    one = people_in([(*(centre - 300), *(centre + 300))], [40.0])
    np.testing.assert_allclose(scene_translation_m(one, SIZE), one.translation_m, rtol=1e-6)
    np.testing.assert_allclose(scene_error_px(one, SIZE), 0, atol=1e-3)


def test_the_error_is_small_for_the_published_camera_and_grows_for_a_wide_one():
    usual, wide = scene_error_px(TWO, SIZE), scene_error_px(TWO, SIZE, 1500.0)
    assert usual.shape == (2,)
    assert np.all((usual > 0.01) & (usual < 15))
    assert np.all(wide > 3 * usual)


def test_nobody():
    nobody = People.none()
    assert scene_translation_m(nobody, SIZE).shape == (0, 3)
    assert scene_error_px(nobody, SIZE).shape == (0,)
    assert scene_focal_px(nobody) == 1.0
