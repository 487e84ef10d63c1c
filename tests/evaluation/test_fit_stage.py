"""Patches in the extractor's crops, and evaluations behind a fit that moves everybody by a known amount."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fake_scenes import FakeNetwork, fake_scene, truth
from numpy.testing import assert_allclose, assert_array_equal

from jotr_deploy.evaluation.attack import Attack
from jotr_deploy.evaluation.collector import Collector
from jotr_deploy.evaluation.fit_stage import FitCounts, FitStage, paste
from jotr_deploy.evaluation.measured_people import Truth
from jotr_deploy.evaluation.patches import covered, patch_grid
from jotr_deploy.evaluation.textures import drawn_textures
from jotr_deploy.fitting.fitted_people import Fits
from jotr_deploy.people import People
from jotr_deploy.runtime.crops import Crops
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.support.aliases import Array

SIDE, FIT_SIDE = 128, 96
GREY = 7 / 255


class FakeFitter:
    """Moves the vertices and joints of everybody but the first of a call by `moved_mm(image)` along x."""

    side, cells = FIT_SIDE, FIT_SIDE // 4

    def __init__(self, moved_mm: Callable[[Array], float] = lambda image: 5.0) -> None:
        self.moved_mm = moved_mm
        self.crops: list[Crops] = []
        self.inside: list[Array] = []

    def __call__(self, crops: Crops, people: People, inside: Array) -> Fits:
        self.crops.append(crops)
        self.inside.append(inside)
        moved_m = np.array([self.moved_mm(np.asarray(image)) for image in crops.image])[:, None, None] * (0.001, 0, 0)
        accepted = np.arange(len(people)) > 0
        moved_m = np.where(accepted[:, None, None], moved_m, 0)
        fitted = replace(people, joints_m=people.joints_m + moved_m, vertices_m=people.vertices_m + moved_m)
        nothing, everybody = np.zeros(len(people)), np.ones(len(people), bool)
        occlusion = np.zeros((len(people), self.cells, self.cells), bool)
        return Fits(
            fitted, everybody, ~everybody, accepted, ~everybody, ~everybody, nothing, nothing, {}, {}, occlusion
        )


def stage(fitter: Any) -> FitStage:
    return FitStage(fitter, "default")


# ── patches ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("crop_side", "fit_side"), [(128, 128), (128, 96), (256, 320), (256, 64), (64, 320)])
def test_a_pixel_is_covered_where_its_place_in_the_other_crop_is(
    rng: np.random.Generator, crop_side: int, fit_side: int
) -> None:
    places = np.stack(np.meshgrid(*[np.arange(fit_side) * crop_side / fit_side] * 2), -1).reshape(-1, 2)
    for _ in range(20):
        low = rng.integers(0, crop_side, 2)
        box_px = np.concatenate([low, np.minimum(low + rng.integers(1, 60, 2), crop_side)])
        image = np.full((3, fit_side, fit_side), -1, np.float32)
        paste(image, rng.random((3, box_px[3] - box_px[1], box_px[2] - box_px[0]), np.float32), box_px, crop_side)
        expected = covered(places, box_px[None]).reshape(fit_side, fit_side)
        assert_array_equal((image >= 0).all(0), expected)
        assert_array_equal((image >= 0).any(0), expected)


def test_at_the_same_resolution_the_patch_is_itself(rng: np.random.Generator) -> None:
    image, patch = np.zeros((3, SIDE, SIDE), np.float32), rng.random((3, 20, 30), np.float32)
    paste(image, patch, np.array([10, 40, 40, 60]), SIDE)
    assert_array_equal(image[:, 40:60, 10:40], patch)


@pytest.mark.parametrize("fit_side", [96, 160, 320])
def test_a_patch_is_sampled_at_the_same_place(fit_side: int) -> None:
    """Its pixels hold their own column and row; at the far edges there is no next pixel to interpolate with."""
    x0, y0, x1, y1 = box_px = np.array([13, 50, 77, 90])
    columns, rows = np.meshgrid(np.arange(x0, x1), np.arange(y0, y1))
    image = np.full((3, fit_side, fit_side), np.nan, np.float32)
    paste(image, np.stack([columns, rows, rows], 0).astype(np.float32), box_px, SIDE)
    down, right = np.nonzero(np.isfinite(image[0]))
    scale = SIDE / fit_side
    assert_allclose(image[0, down, right], np.minimum(right * scale, x1 - 1), atol=0.04)  # OpenCV counts in 1/32 px
    assert_allclose(image[1, down, right], np.minimum(down * scale, y1 - 1), atol=0.04)


@pytest.mark.parametrize("box_px", [(5, 5, 5, 9), (0, 0, 0, 0), (5, 5, 6, 6)])
def test_a_patch_between_two_pixels_covers_none(box_px: tuple[int, ...]) -> None:
    image = np.zeros((3, 32, 32), np.float32)
    x0, y0, x1, y1 = box_px
    paste(image, np.ones((3, y1 - y0, x1 - x0), np.float32), np.array(box_px), SIDE)
    assert not image.any()


# ── people ───────────────────────────────────────────────────────────────────────────────────────────────────────


def collected(fitter: FakeFitter, scenes: list[Any], wrong_m: float = 0.0) -> Any:
    joints_m = np.concatenate([np.zeros((0, 30, 3)), *(scene.truth.joints_m for scene in scenes)])
    vertices_m = np.concatenate([np.zeros((0, 6890, 3)), *(scene.truth.vertices_m for scene in scenes)])
    networks: list[Any] = [FakeNetwork(joints_m, vertices_m), FakeNetwork(joints_m + wrong_m, vertices_m)]
    collector = Collector(networks, fit=stage(fitter))
    for scene in scenes:
        collector.add(scene.image_bgr, scene.given, scene.truth)
    return collector, collector.finish()


def test_the_fit_starts_from_each_network_and_the_start_is_kept() -> None:
    scenes = [fake_scene(0, index) for index in range(4)]  # of 0 to 3 people
    fitter = FakeFitter()
    collector, (first, second) = collected(fitter, scenes, 0.001)
    moved = 5.0 * (np.arange(6) > 0)
    assert_allclose(first.before_fit.samples.joints_mm, 0, atol=1e-3)
    assert_allclose(first.samples.joints_mm, np.repeat(moved[:, None], 14, 1), atol=1e-3)
    off = np.sqrt(3)
    assert_allclose(second.before_fit.samples.joints_mm, off, atol=1e-3)
    expected = np.sqrt((moved + 1) ** 2 + 2)
    assert_allclose(second.samples.joints_mm, np.repeat(expected[:, None], 14, 1), atol=1e-3)
    assert first.before_fit.before_fit is None
    assert collector.fit_counts == FitCounts(people=6, tried=6, accepted=5, mirrored=0)
    assert [len(crops) for crops in fitter.crops] == [6, 6]  # the people of several pictures in one batch


def test_the_extractor_sees_the_same_squares() -> None:
    scene = fake_scene(0, 3)
    fitter = FakeFitter()
    collected(fitter, [scene])
    crops = fitter.crops[0]
    assert crops.image.shape == (3, 3, FIT_SIDE, FIT_SIDE)
    assert_array_equal(crops.boxes_px, scene.given.boxes_px)
    low, side = scene.given.boxes_px[:, None, :2], (scene.given.boxes_px[:, 2] - scene.given.boxes_px[:, 0])
    cells = (scene.given.keypoints_px[..., :2] - low) / side[:, None, None] * FakeFitter.cells
    assert_allclose(crops.joints, cells, atol=1e-3)
    assert fitter.inside[0].shape == (3, 24, 24)


def test_nobody_is_fitted() -> None:
    collector, (first, second) = collected(FakeFitter(), [])
    assert len(first.samples) == len(first.before_fit.samples) == len(second.samples) == 0
    assert collector.fit_counts == FitCounts()


# ── under attack ─────────────────────────────────────────────────────────────────────────────────────────────────


def corner_of(image: Array) -> tuple[float, float] | None:
    """Low corner of a patch on a grey crop, as a share of its side."""
    rows, columns = np.nonzero((np.abs(image - GREY) > 1e-6).any(0))
    return (columns.min() / image.shape[-1], rows.min() / image.shape[-1]) if len(rows) else None


def attack(fitter: FakeFitter, wrong_mm: Callable[[Array], float], **options: Any) -> tuple[Any, list[Crops]]:
    """One person whose crop the whole picture is, under 3 x 3 patches; crops as the network is given them."""
    known: Truth = truth(np.random.default_rng(0), 1)
    joints_px = np.broadcast_to(2 + 4.0 * np.arange(30)[:, None], (1, 30, 2))
    given = Detections(
        np.array([[0.0, 0, SIDE, SIDE]]), np.dstack([joints_px, np.ones((1, 30))]), np.ones(1), -np.ones(1)
    )
    seen: list[Crops] = []

    def network(crops: Crops, people: Detections) -> People:
        seen.append(crops)
        plain = FakeNetwork(np.repeat(known.joints_m, len(crops), 0), np.repeat(known.vertices_m, len(crops), 0))
        wrong_m = np.array([wrong_mm(image) for image in crops.image])[:, None, None] * (0.001, 0, 0)
        found = plain(crops, people)
        return replace(found, joints_m=found.joints_m + wrong_m, vertices_m=found.vertices_m + wrong_m)

    made = Attack(
        [network], SIDE, [patch_grid(80, 72, SIDE)], drawn_textures(0, SIDE, 3), 0, fit=stage(fitter), **options
    )
    made.add(np.full((SIDE, SIDE, 3), 7, np.uint8), given, known, joints_px, ["one"])
    (found,) = made.finish()
    return found, seen


def test_each_answer_has_a_worst_place_of_its_own() -> None:
    """The start is worst with the patch at the top left, what the fit makes of it at the bottom right."""

    def start(image: Array) -> float:
        corner = corner_of(image)
        return 10.0 if corner is None else 100 - 50 * sum(corner)

    def fitted(image: Array) -> float:
        corner = corner_of(image)
        return 0.0 if corner is None else 200 * sum(corner)

    found, _ = attack(FakeFitter(fitted), start)
    errors, before = found.patched_mm[0][0, :, 0], found.before_fit.patched_mm[0][0, :, 0]
    assert (before.argmax(), errors.argmax()) == (0, 8)
    corner = np.array([0, 1, 2]) * 41 / SIDE
    sums = (corner[:, None] + corner).ravel()
    assert_allclose(before, 100 - 50 * sums, atol=0.01)
    shown = np.ceil(np.array([0, 41, 82]) * FIT_SIDE / SIDE) / FIT_SIDE
    assert_allclose(errors, before + 200 * (shown[:, None] + shown).ravel(), atol=0.01)
    assert_allclose(found.clean_mm, found.before_fit.clean_mm)


@pytest.mark.parametrize("keep_joints", [False, True])
def test_the_extractor_is_under_the_same_patches(keep_joints: bool) -> None:
    fitter = FakeFitter()
    _, seen = attack(fitter, lambda image: 0.0, keep_joints=keep_joints)
    for crops, shown in zip(seen, fitter.crops, strict=True):
        assert_array_equal(crops.joints_mask, shown.joints_mask)
        assert_allclose(shown.joints, crops.joints * FIT_SIDE / SIDE, rtol=1e-5)
        for image, other in zip(crops.image, shown.image, strict=True):
            there, here = ((np.abs(each - GREY) > 1e-6).any(0) for each in (image, other))
            places = np.floor(np.arange(FIT_SIDE) * SIDE / FIT_SIDE).astype(int)
            assert_array_equal(here, there[np.ix_(places, places)])
    masks = np.concatenate([crops.joints_mask for crops in seen])
    assert masks[0].all()
    assert masks[1:].all() == keep_joints
