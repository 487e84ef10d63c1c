"""A window of a picture is that part of the picture, and a crop is what the runtime would cut from it."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scenes_by_hand import CLEAR, panel, people_at

from jotr_deploy.datasets.synthetic.labels import labels
from jotr_deploy.datasets.synthetic.render import render
from jotr_deploy.datasets.synthetic.scene import Scene, draw_scene
from jotr_deploy.datasets.synthetic.scene_crops import crop, picture
from jotr_deploy.geometry.crop import crop_from_image, square_box, transform_px
from jotr_deploy.runtime.crops import make_crops
from jotr_deploy.runtime.detections import Detections


def differing(a: np.ndarray, b: np.ndarray, levels: int) -> float:
    """Share of the pixels whose colours differ by more than so many levels of 255."""
    return float((np.abs(a.astype(int) - b.astype(int)).max(-1) > levels).mean())


@pytest.mark.parametrize("index", range(4))
def test_a_window_pixel_for_pixel_is_cut_from_the_picture(index: int) -> None:
    scene = draw_scene(9, index)
    whole, part = render(scene), render(scene, (100, 50, 260, 210), 160)
    assert whole.image_bgr.shape == (360, 480, 3)
    assert whole.image_bgr.dtype == np.uint8
    inner = slice(8, -8), slice(8, -8)  # the blur of the lens does not look beyond a window
    at = slice(50, 210), slice(100, 260)
    assert differing(whole.image_bgr[at][inner], part.image_bgr[inner], 1) < 2e-3
    assert (whole.person[at] != part.person).mean() < 1e-3
    assert (np.isinf(whole.depth_m[at]) == (part.person == -1)).mean() > 0.999


@pytest.mark.parametrize("index", range(4))
def test_direct_crops_agree_with_a_warp_of_a_finer_picture(index: int) -> None:
    scene = replace(draw_scene(10, index), lens=CLEAR)
    box = square_box(labels(scene).boxes_px[0])
    side, finer = 96, 4
    direct, fine = render(scene, box, side), render(scene, box, side * finer)
    # Pixel centres at integers: pixel 0 of both lies on the corner of the box.
    affine = np.array([[finer, 0, 0], [0, finer, 0]], np.float64)
    smooth = cv2.blur(fine.image_bgr, (finer, finer))
    warped = cv2.warpAffine(smooth, affine, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    error = np.abs(direct.image_bgr[2:-2, 2:-2].astype(int) - warped[2:-2, 2:-2])
    assert np.median(error) < 8
    shifted = np.abs(np.roll(direct.image_bgr, 1, 1)[2:-2, 2:-2].astype(int) - warped[2:-2, 2:-2])
    assert error.mean() < 0.8 * shifted.mean()  # one pixel off would be seen
    # A quarter pixel up and left of pixel i is near the fine pixel before 4 i.
    mask, fine_mask = direct.person == 0, np.roll(fine.person == 0, 1, (0, 1))[::finer, ::finer]
    assert (mask & fine_mask).sum() > 0.93 * (mask | fine_mask).sum()


def small_person() -> tuple[Scene, int]:
    """Somebody whose box is smaller than 160 px and in the picture."""
    for index in range(100):
        scene = draw_scene(11, index)
        for person, box in enumerate(labels(scene).boxes_px):
            square = square_box(box)
            if square[2] - square[0] < 150 and (box[:2] > 0).all() and (box[2:] < scene.size_px).all():
                return scene, person
    raise AssertionError("no such scene")


def test_a_crop_of_a_small_person_is_the_runtime_s() -> None:
    scene, person = small_person()
    found = crop(scene, person, 160)
    seen, known = picture(scene)
    one = Detections(found.box_px[None], np.zeros((1, 30, 3), np.float32), np.ones(1), np.full(1, -1))
    expected = np.round(make_crops(seen.image_bgr, one, 160).image[0].transpose(1, 2, 0)[..., ::-1] * 255)
    assert differing(found.image_bgr, expected, 4) < 5e-3  # OpenCV warps bytes at 1/32 px, the runtime warps floats
    np.testing.assert_array_equal(found.labels.joints_px[0], known.joints_px[person])
    np.testing.assert_array_equal(found.labels.vertices_m[0], known.vertices_m[person])
    np.testing.assert_allclose(found.people_joints_px, known.joints_px, atol=1e-2)
    np.testing.assert_allclose(found.people_boxes_px, known.boxes_px, atol=2.0)


@pytest.mark.parametrize("side", [64, 128, 256])
def test_joints_of_a_crop_lie_on_the_person(side: int) -> None:
    scene = people_at([(0.3, 0.2, 4.0)], [0.2])
    found = crop(scene, 0, side)
    joints = transform_px(crop_from_image(found.box_px, side), found.labels.joints_px[0].astype(np.float64))
    mask = render(scene, found.box_px, side).person == 0
    x, y = np.round(joints[:24]).astype(int).T
    assert mask[y, x].mean() > 0.9
    assert found.labels.joints_visible.all()
    assert found.labels.visible_fraction[0] == 1
    assert found.image_bgr.shape == (side, side, 3)


def test_a_crop_hides_what_it_does_not_show() -> None:
    scene = people_at([(0.0, 0.1, 3.0)], [0.0])
    x0, y0, x1, _ = labels(scene).boxes_px[0]
    upper = np.array([x0, y0 - 20, x1, y0 - 20 + x1 - x0])
    whole = crop(scene, 0, 64).labels
    cut = crop(scene, 0, 64, box_px=np.array([x0 + (x1 - x0) / 2, upper[1], x1 + (x1 - x0) / 2, upper[3]])).labels
    assert whole.visible_fraction[0] == 1
    assert cut.visible_fraction[0] < 0.6
    assert not cut.joints_visible[0, [2, 5, 17, 19, 21]].any()  # the right side, on the left of the picture
    assert cut.joints_visible[0, [16, 18, 20]].all()


@pytest.mark.parametrize("place", [(-0.5, -0.5), (0.7, 0.8), (3.0, 0.0)])
def test_outside_the_picture_is_black(place: tuple[float, float]) -> None:
    scene = people_at([(0.0, 0.1, 3.0)], [0.0])
    x, y = np.array(place) * scene.size_px
    window = np.array([x, y, x + 120, y + 120])
    seen = render(scene, window, 60)
    columns, rows = x + 2 * np.arange(60), y + 2 * np.arange(60)
    outside = ~(((rows >= -0.5) & (rows <= 119.5))[:, None] & ((columns >= -0.5) & (columns <= 159.5)))
    if outside.all():
        outside[:, 0] = False  # at least one column or pixel is always drawn
    assert not seen.image_bgr[outside].any()
    assert (seen.person[outside] == -1).all()
    assert crop(scene, 0, 60, box_px=window).image_bgr.shape == (60, 60, 3)


def test_layers_and_their_numbers() -> None:
    scene = panel(people_at([(-0.4, 0.1, 3.0), (0.4, 0.1, 4.0)], [0.0, 0.5]), (0.0, 0.8, 2.0), (0.9, 0.2))
    seen = render(scene)
    assert set(np.unique(seen.person)) == {-2, -1, 0, 1}
    assert np.abs(seen.depth_m[seen.person == -2] - 2).max() < 0.01
    assert np.abs(seen.depth_m[seen.person == 0] - 3).max() < 1
    assert np.isinf(seen.depth_m[seen.person == -1]).all()


def test_people_are_drawn_over_the_place_and_lights_shade_them() -> None:
    scene = people_at([(0.0, 0.1, 3.0)], [0.0])
    nobody = replace(scene, backdrop=replace(scene.backdrop, shadow=0.0))
    with_person = render(nobody)
    empty = render(replace(nobody, coarse_m=nobody.coarse_m + np.float32(50)))
    same = (with_person.image_bgr == empty.image_bgr).all(-1)
    assert same[cv2.dilate((with_person.person == 0).astype(np.uint8), np.ones((3, 3))) == 0].all()
    assert same[with_person.person == 0].mean() < 0.1
    assert len(np.unique(with_person.image_bgr[with_person.person == 0], axis=0)) > 50


def test_a_window_needs_a_side() -> None:
    with pytest.raises(ValueError, match="a window needs a side"):
        render(draw_scene(0, 0), (0, 0, 10, 10))


def test_a_crop_with_a_margin_is_the_crop_of_a_larger_box() -> None:
    scene = draw_scene(5, 1)
    plain = crop(scene, 0, 40)
    middle, half = (plain.box_px[:2] + plain.box_px[2:]) / 2, (plain.box_px[2] - plain.box_px[0]) / 2
    wide = crop(scene, 0, 60, margin=1.5)
    np.testing.assert_allclose(wide.box_px, np.concatenate([middle - 1.5 * half, middle + 1.5 * half]), rtol=1e-5)
    np.testing.assert_array_equal(wide.image_bgr, crop(scene, 0, 60, box_px=wide.box_px).image_bgr)
