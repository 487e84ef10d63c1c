"""Held-out scenes: drawn for real, few of them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from outcome import Outcome

from jotr_deploy.datasets.synthetic.labels import labels
from jotr_deploy.datasets.synthetic.scene import draw_scene
from jotr_deploy.evaluation import protocols
from jotr_deploy.evaluation.held_out_scenes import HeldOut, held_out, noisy_joints
from jotr_deploy.geometry.camera import looking_at
from jotr_deploy.geometry.crop import square_box
from jotr_deploy.skeletons import SKELETONS, SMPL30, SMPL30_INDEX
from jotr_deploy.support.aliases import Array

COCO = [SMPL30_INDEX[name] for name in SKELETONS["coco17"]]


@pytest.fixture(scope="module")
def scenes() -> list[HeldOut]:
    return [held_out(1000, index, 1.1) for index in range(6)]


def test_what_a_scene_gives(scenes: list[HeldOut]) -> None:
    assert sum(len(scene.boxes_px) for scene in scenes) > 6
    for scene in scenes:
        count = len(scene.boxes_px)
        assert scene.image_bgr.dtype == np.uint8
        assert scene.truth.joints_m.shape == (count, 30, 3)
        assert scene.truth.vertices_m.shape == (count, 6890, 3)
        assert (scene.truth.joints_m[:, 0] == 0).all()
        assert np.abs(scene.truth.vertices_m).max() < 1.6  # relative to the pelvis
        assert_allclose(scene.given.boxes_px, square_box(scene.boxes_px, 1.1))
        height = scene.boxes_px[:, 3] - scene.boxes_px[:, 1]
        assert_array_equal(scene.tall, height >= 64)
        assert_array_equal(scene.counted, (height >= 64) & (scene.truth.visible_fraction >= 0.25))


def test_the_truth_is_seen_along_the_ray_to_the_middle_of_the_box(scenes: list[HeldOut]) -> None:
    """Joints turned back into the scene's camera are those of the labels; a body keeps its size."""
    known = labels(draw_scene(1000, 0))
    middle_px = (known.boxes_px[:, :2] + known.boxes_px[:, 2:]) / 2
    turn = looking_at(middle_px, known.focal_px, known.principal_px)
    back = scenes[0].truth.joints_m @ turn
    assert_allclose(back, known.joints_m - known.joints_m[:, :1], atol=1e-5)
    assert not np.allclose(scenes[0].truth.joints_m, back, atol=1e-3)


def test_hidden_joints_are_guessed(scenes: list[HeldOut]) -> None:
    hidden = np.concatenate([~scene.truth.joints_visible[:, COCO] for scene in scenes])
    given = np.concatenate([scene.given.keypoints_px[:, COCO, 2] > 0 for scene in scenes])
    assert 0 < given[hidden].mean() < given[~hidden].mean()  # some are beyond the picture
    for scene in scenes:
        found = scene.given.keypoints_px[:, COCO]
        assert (found[found[..., 2] == 0] == 0).all()
    everybody = np.concatenate([scene.given.keypoints_px for scene in scenes])
    never = {"Torso", "Spine", "Chest", "Head", "Head_top"}
    assert not everybody[:, [SMPL30.index(name) for name in never], 2].any()
    assert everybody[:, SMPL30_INDEX["Neck"], 2].any()


def test_a_scene_is_all_in_its_seed_and_index(scenes: list[HeldOut]) -> None:
    assert pickle.dumps(held_out(1000, 3, 1.1)) == pickle.dumps(scenes[3])
    assert not np.array_equal(held_out(1001, 3, 1.1).image_bgr, scenes[3].image_bgr)


def people(count: int) -> tuple[Array, Array]:
    """Square boxes in a row, and joints in them."""
    rng = np.random.default_rng(0)
    left = 200.0 * np.arange(count)
    boxes = np.stack([left, np.zeros(count), left + 100, np.full(count, 100.0)], -1)
    return boxes, boxes[:, None, :2] + rng.uniform(0, 100, (count, 30, 2))


def test_noise_belongs_to_a_person() -> None:
    crops, joints = people(3)
    every = np.ones((3, 30), bool)
    noisy = noisy_joints(1000, 0, crops, joints, every, every)
    assert_array_equal(noisy_joints(1000, 0, crops[:2], joints[:2], every[:2], every[:2]), noisy[:2])
    for seed, index in ((1001, 0), (1000, 1)):
        assert (noisy_joints(seed, index, crops, joints, every, every) != noisy).any()
    assert noisy_joints(1000, 0, crops[:0], joints[:0], every[:0], every[:0]).shape == (0, 30, 3)
    assert not noisy_joints(1000, 0, crops, joints, every, ~every).any()


def test_noise_grows_with_the_crop_and_where_a_joint_is_hidden() -> None:
    crops, joints = people(40)
    crops[20:] *= 3
    every = np.ones((40, 30), bool)
    for visible, factor in ((every, 1), (~every, 3)):
        noisy = noisy_joints(1000, 0, crops, joints, visible, every)[:, COCO]
        found = noisy[..., 2] > 0
        assert found.mean() == pytest.approx(0.85, abs=0.03)
        errors = noisy[..., :2] - joints[:, COCO]
        for some, side in ((slice(0, 20), 100), (slice(20, 40), 300)):
            assert errors[some][found[some]].std() == pytest.approx(factor * 2.5 / 128 * side, rel=0.1)
            assert errors[some][found[some]].mean() == pytest.approx(0, abs=0.003 * factor * side)


def test_held_out_scenes_travel_between_processes(scenes: list[HeldOut]) -> None:
    back = pickle.loads(pickle.dumps(scenes[0]))
    assert [f.name for f in fields(back)] == [f.name for f in fields(HeldOut)]
    assert_array_equal(back.image_bgr, scenes[0].image_bgr)


@pytest.mark.slow
def test_processes_do_not_change_the_result(
    cli: Callable[..., Outcome], tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(workers: int) -> str:
        monkeypatch.setattr(protocols, "worker_count", lambda pieces, threads: workers)
        outcome = cli("eval", tiny_bundle, "--scenes", 20, "--device", "cpu", "--threads", 1, "--json")
        assert outcome.code == 0, outcome.err
        return outcome.out

    assert json.loads(found(2))["errors"]["people"]["all"]["people"] > 20
    assert found(2) == found(0)
