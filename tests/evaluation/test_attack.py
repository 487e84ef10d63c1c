"""The adversarial protocol with a network whose error is a known function of what it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fake_scenes import truth
from numpy.testing import assert_allclose, assert_array_equal

from jotr_deploy.evaluation.attack import Attack, Attacked, person_errors_mm
from jotr_deploy.evaluation.measured_joints import EVALUATED_IN_SMPL30
from jotr_deploy.evaluation.measured_people import Truth
from jotr_deploy.evaluation.metrics import pa_mpjpe_mm
from jotr_deploy.evaluation.patches import patch_grid
from jotr_deploy.evaluation.textures import drawn_textures
from jotr_deploy.people import People
from jotr_deploy.runtime.crops import Crops
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.mesh import MAX_BATCH
from jotr_deploy.support.aliases import Array

SIDE = 224
GREY = 7 / 255
TEXTURES = drawn_textures(0, SIDE, 6)


def found_people(people: Detections, joints_m: Array, vertices_m: Array) -> People:
    """Nothing but joints and vertices is looked at."""
    count = len(people)
    shapes = {
        "joints_img": (15, 3), "pose_rad": (24, 3), "betas": (10,), "cam": (3,), "translation_m": (3,),
        "focal_px": (), "principal_px": (2,), "joints_used": (),
    }  # fmt: skip
    return People(
        boxes_px=people.boxes_px, scores=people.scores, track_ids=people.track_ids, keypoints_px=people.keypoints_px,
        joints_m=joints_m, vertices_m=vertices_m, **{name: np.zeros((count, *shape)) for name, shape in shapes.items()},
    )  # fmt: skip


class Network:
    """Is off by `wrong_mm(where the patch is, or None)` along x in every joint; keeps what it was given."""

    def __init__(self, known: Truth, wrong_mm: Callable[[tuple[int, int, int, int] | None], float]) -> None:
        self.known, self.wrong_mm = known, wrong_mm
        self.calls: list[int] = []
        self.masks: list[Array] = []
        self.images: list[Array] = []
        self.boxes: list[tuple[int, int, int, int] | None] = []

    def __call__(self, crops: Crops, people: Detections) -> People:
        assert len(crops) == len(people) == len(crops.joints_mask) == len(crops.joints)
        boxes = [patch_of(np.asarray(image)) for image in crops.image]
        self.calls.append(len(crops))
        self.masks.append(crops.joints_mask)
        self.images.append(np.array(crops.image))
        self.boxes += boxes
        wrong_m = np.array([self.wrong_mm(box) for box in boxes])[:, None, None] * (0.001, 0, 0)
        return found_people(people, self.known.joints_m + wrong_m, self.known.vertices_m + wrong_m)


def patch_of(image: Array) -> tuple[int, int, int, int] | None:
    """Where a crop of a grey picture is not grey."""
    rows, columns = np.nonzero((np.abs(image - GREY) > 1e-6).any(0))
    return (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if len(rows) else None


def scene(count: int = 1) -> tuple[Array, Detections, Truth, Array]:
    """A grey picture of people whose crop it is; true joints on a diagonal 7 px apart from (4, 4), all given."""
    joints_px = np.broadcast_to(4 + 7.0 * np.arange(30)[:, None], (count, 30, 2))
    boxes = np.tile([0.0, 0, SIDE, SIDE], (count, 1))
    given = Detections(boxes, np.dstack([joints_px, np.ones((count, 30))]), np.ones(count), np.full(count, -1))
    image_bgr = np.full((SIDE, SIDE, 3), 7, np.uint8)
    return image_bgr, given, truth(np.random.default_rng(0), count), joints_px


def attacked(networks: list[Any], stride: int, sizes: tuple[int, ...] = (40, 80), **options: Any) -> list[Attacked]:
    image_bgr, given, known, joints_px = scene()
    attack = Attack(networks, SIDE, [patch_grid(size, stride, SIDE) for size in sizes], TEXTURES, 5, **options)
    attack.add(image_bgr, given, known, joints_px, ["one"])
    return attack.finish()


def near(box: tuple[int, int, int, int] | None) -> float:
    """10 mm; with a patch 300 mm less its distance from (96, 48)."""
    return 10.0 if box is None else 300 - float(np.hypot(box[0] - 96, box[1] - 48))


def test_the_winner_is_where_the_error_is_largest() -> None:
    network = Network(scene()[2], near)
    (found,) = attacked([network], 16)
    assert_allclose(found.clean_mm, [[10, 0, 10]], atol=1e-4)
    for errors, count in zip(found.patched_mm, (13, 10), strict=True):
        assert errors.shape == (1, count**2, 3)
        assert divmod(int(errors[0, :, 0].argmax()), count) == (3, 6)  # row 48 / 16, column 96 / 16
        assert_allclose(errors[0, :, 0].max(), 300, atol=1e-4)
        assert_allclose(errors[0, 0], [300 - np.hypot(96, 48), 0, 300 - np.hypot(96, 48)], atol=1e-4)
    assert network.calls == [MAX_BATCH] * 16 + [14]  # 1 clean + 169 + 100


def test_all_places_of_the_published_grid_are_seen() -> None:
    network = Network(scene()[2], near)
    attacked([network], 10)
    assert sum(network.calls) == 1 + 20 * 20 + 16 * 16
    assert network.boxes[0] is None
    seen = network.boxes[1:401]
    assert seen[:2] == [(0, 0, 40, 40), (10, 0, 50, 40)]
    assert seen[-1] == (190, 190, 224, 224)
    assert len(set(seen)) == 400


def test_every_place_has_a_texture_of_its_own_and_all_networks_see_the_same() -> None:
    known = scene()[2]
    first, second = Network(known, near), Network(known, near)
    results = attacked([first, second], 56, (80,))
    images, others = np.concatenate(first.images), np.concatenate(second.images)
    assert_array_equal(images, others)
    assert_array_equal(results[0].patched_mm[0], results[1].patched_mm[0])
    corners = {image[:, y0:y1, x0:x1][:, :30, :30].tobytes() for image, box in zip(images, first.boxes, strict=True)
               if box for x0, y0, x1, y1 in [box]}  # fmt: skip
    assert len(corners) == len(images) - 1


def test_a_recorded_window_is_what_was_pasted() -> None:
    image_bgr, given, known, joints_px = scene(2)
    network = Network(known[np.array([0])], near)
    grid = patch_grid(80, 56, SIDE)
    attack = Attack([network], SIDE, [grid], TEXTURES, 5)
    attack.add(image_bgr, given, known, joints_px, ["a", "b"])
    images = np.concatenate(network.images)
    for person, index in ((0, 0), (0, 7), (1, 15)):
        x0, y0, x1, y1 = grid.boxes_px[index]
        patch = TEXTURES.patch(attack.window(person, grid, index), x1 - x0, y1 - y0)
        assert_array_equal(images[person * attack.crops_each + 1 + index][:, y0:y1, x0:x1], patch)
    assert attack.window(0, grid, 0) != attack.window(1, grid, 0)


def test_equal_seeds_give_equal_bits() -> None:
    def seen(seed: int) -> Array:
        network = Network(scene()[2], near)
        image_bgr, given, known, joints_px = scene()
        attack = Attack([network], SIDE, [patch_grid(80, 40, SIDE)], TEXTURES, seed)
        attack.add(image_bgr, given, known, joints_px, ["one"])
        return np.concatenate(network.images)

    assert_array_equal(seen(5), seen(5))
    assert (seen(5) != seen(6)).any()


def test_joints_under_a_patch_are_withheld_from_the_network() -> None:
    withheld, kept = Network(scene()[2], near), Network(scene()[2], near)
    attacked([withheld], 112, (40,))
    attacked([kept], 112, (40,), keep_joints=True)
    masks = np.concatenate(withheld.masks)
    assert withheld.boxes == [None, (0, 0, 40, 40), (112, 0, 152, 40), (0, 112, 40, 152), (112, 112, 152, 152)]
    assert masks[0].all()
    assert np.flatnonzero(masks[1] == 0).tolist() == [0, 1, 2, 3, 4, 5]  # 4, 11, .. 39 lie under 0 .. 40
    assert masks[2].all()  # the diagonal does not pass there
    assert (np.concatenate(kept.masks) == 1).all()


def test_joints_that_count_by_hand() -> None:
    """Joints 0, 1, .. are off by 1, 2, .. mm; the mean is over those in the crop and not under the patch."""
    image_bgr, given, known, joints_px = scene()
    joints_px = joints_px.copy()
    outside, unknown = EVALUATED_IN_SMPL30[0], EVALUATED_IN_SMPL30[1]
    joints_px[0, outside] = (SIDE, 100)
    joints_px[0, unknown] = np.nan
    chosen = list(EVALUATED_IN_SMPL30)
    wrong_mm = 1.0 + np.arange(14)

    def answer(crops: Crops, people: Detections) -> People:
        joints_m = np.repeat(known.joints_m, len(crops), 0)
        joints_m[:, chosen, 0] += wrong_mm / 1000
        return found_people(people, joints_m, np.repeat(known.vertices_m, len(crops), 0))

    grid = patch_grid(80, 40, SIDE)
    attack = Attack([answer], SIDE, [grid], TEXTURES, 0)
    attack.add(image_bgr, given, known, joints_px, ["one"])
    (found,) = attack.finish()
    inside = np.ones(14, bool)
    inside[:2] = False
    assert_allclose(found.clean_mm[0, 0], wrong_mm[inside].mean(), atol=1e-4)
    x, y = joints_px[0, chosen].T
    for index in (0, 6, 12, 24):
        x0, y0, x1, y1 = grid.boxes_px[index]
        counts = inside & ~((x >= x0) & (x < x1) & (y >= y0) & (y < y1))
        assert counts.sum() < 12 or index == 24
        assert_allclose(found.patched_mm[0][0, index, 0], wrong_mm[counts].mean(), atol=1e-4)
        moved, right = known.joints_m[0, chosen].copy(), known.joints_m[0, chosen]
        moved[:, 0] += wrong_mm / 1000
        assert_allclose(found.patched_mm[0][0, index, 1], pa_mpjpe_mm(moved[counts], right[counts]), atol=1e-3)
    assert_allclose(found.patched_mm[0][..., 2], 0, atol=1e-4)


def test_where_nothing_counts_there_is_no_error() -> None:
    (found,) = attacked([Network(scene()[2], near)], 10, (224,))
    assert found.patched_mm[0].shape == (1, 1, 3)
    assert np.isnan(found.patched_mm[0]).all()
    assert np.isfinite(found.clean_mm).all()


def test_what_is_not_finite_is_infinitely_wrong() -> None:
    _, given, known, _ = scene(1)
    many = given[np.zeros(4, np.int64)]
    joints_m, vertices_m = np.repeat(known.joints_m, 4, 0), np.repeat(known.vertices_m, 4, 0)
    joints_m[1, 3] = np.nan
    vertices_m[2, 5] = np.inf
    counted = np.ones((4, 14), bool)
    counted[3] = False
    errors = person_errors_mm(found_people(many, joints_m, vertices_m), known, counted)
    assert_allclose(errors[0], 0, atol=1e-3)
    assert np.isposinf(errors[1:3]).all()
    assert np.isnan(errors[3]).all()


def test_nobody() -> None:
    image_bgr, given, known, joints_px = scene(0)
    network = Network(known, near)
    attack = Attack([network, network], SIDE, [patch_grid(40, 10, SIDE)], TEXTURES, 0)
    for add in (False, True):
        if add:
            attack.add(image_bgr, given, known, joints_px, [])
        for found in attack.finish():
            assert found.clean_mm.shape == (0, 3)
            assert [errors.shape for errors in found.patched_mm] == [(0, 400, 3)]
    assert attack.joints_px.shape == (0, 30, 2)
    assert network.calls == []


def test_progress_counts_crops_of_everybody() -> None:
    seen: list[tuple[int, int]] = []
    image_bgr, given, known, joints_px = scene(2)
    network = Network(known[np.array([0])], near)
    attack = Attack([network], SIDE, [patch_grid(80, 40, SIDE)], TEXTURES, 0, tick=lambda *crops: seen.append(crops))
    attack.add(image_bgr, given, known, joints_px, ["a", "b"])
    assert attack.crops_each == 26
    assert seen == [(16, 26), (26, 26), (42, 52), (52, 52)]
    attack.expected = 9
    attack.add(image_bgr, given, known, joints_px, ["c"])
    assert seen[4:] == [(68, 9 * 26), (78, 9 * 26)]


@pytest.mark.parametrize("shift", [(0.0, 0.0), (30.0, -12.0)])
def test_joints_are_looked_up_in_the_crop(shift: tuple[float, float]) -> None:
    image_bgr, given, known, joints_px = scene()
    boxes = given.boxes_px + np.tile(shift, 2)
    moved = Detections(boxes, given.keypoints_px, given.scores, given.track_ids)
    attack = Attack([Network(known, near)], SIDE, [patch_grid(80, 40, SIDE)], TEXTURES, 0)
    attack.add(image_bgr, moved, known, joints_px, ["one"])
    assert_allclose(attack.joints_px, joints_px - shift)
