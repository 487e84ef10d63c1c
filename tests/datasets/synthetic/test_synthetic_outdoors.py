"""Outdoor backdrops: the same for the same seed, for any camera, and part of a scene in any window."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from jotr_deploy.datasets.synthetic.natural_noise import scale
from jotr_deploy.datasets.synthetic.outdoors import crease, foliage_in_front, outdoor_backdrop, outdoor_picture
from jotr_deploy.datasets.synthetic.render import render
from jotr_deploy.datasets.synthetic.scene import draw_scene

CAMERA = draw_scene(5, 0).camera


@pytest.mark.parametrize("size_px", [(480, 360), (90, 160), (1, 1)])
def test_a_picture_has_its_size_and_depends_on_the_seed_alone(size_px):
    first, again, other = (outdoor_picture(np.random.default_rng(seed), CAMERA, size_px) for seed in (1, 1, 2))
    assert first.shape == (size_px[1], size_px[0], 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert size_px == (1, 1) or (first != other).any()


def test_any_camera_is_served():
    for index in range(12):
        scene = draw_scene(6, index)
        image = outdoor_picture(np.random.default_rng(index), scene.camera, (120, 90))
        assert image.shape == (90, 120, 3)
        assert image.std() > 5


def test_a_scene_in_front_of_it_is_the_same_in_any_window():
    scene = draw_scene(5, 0)
    backdrop = outdoor_backdrop(np.random.default_rng(0), scene.camera, scene.size_px)
    clear = replace(scene.lens, blur_px=0.0, noise=0.0)
    outside = replace(scene, backdrop=replace(backdrop, shadow=0.0), lens=clear)
    whole = render(outside)
    window = render(outside, window_px=np.array([100.0, 80.0, 200.0, 180.0]), side=100)
    np.testing.assert_array_equal(window.image_bgr, whole.image_bgr[80:180, 100:200])
    painted, behind = whole.image_bgr, whole.person == -1
    assert (painted[behind] != render(replace(scene, lens=clear)).image_bgr[behind]).any()


def test_twigs_cover_what_their_mask_says_and_creases_stay_within_theirs():
    image = np.full((90, 120, 3), 128, np.uint8)
    covered = [foliage_in_front(np.random.default_rng(seed), image := image.copy()) for seed in range(3)]
    assert sum(mask.sum() for mask in covered) > 0
    np.testing.assert_array_equal((image != 128).any(2), np.any(covered, axis=0))
    part = np.zeros((90, 120), bool)
    part[20:60, 30:50] = True
    creased = image.copy()
    crease(np.random.default_rng(0), creased, part)
    assert (creased[part] != image[part]).any()
    np.testing.assert_array_equal(creased[~part], image[~part])
    crease(np.random.default_rng(0), creased, np.zeros_like(part))


def test_a_part_is_scaled_and_an_empty_one_is_left_alone():
    image = np.full((4, 6, 3), 100, np.uint8)
    scale(image, np.zeros((4, 6), bool), 0.5)
    assert (image == 100).all()
    part = np.arange(24).reshape(4, 6) % 2 == 0
    scale(image, part, 0.5)
    np.testing.assert_array_equal(image[..., 0], np.where(part, 50, 100))
