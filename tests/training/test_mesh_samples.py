"""Samples of the mesh network: deterministic, in the frames of the network, with joints as a detector has them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from jotr_deploy.body.smpl import stand_in
from jotr_deploy.datasets.joint_errors import DEVIATION
from jotr_deploy.datasets.synthetic.scene import SceneOptions, draw_scene
from jotr_deploy.skeletons import SKELETONS, SMPL30_INDEX
from jotr_deploy.training.mesh_samples import (
    LEAST_VISIBLE,
    Given,
    Person,
    SceneSamples,
    draw_person,
    given_joints,
    mirrored,
    somebody,
    truth,
    vary,
)

SIDE, COUNT = 64, 12
COCO = [SMPL30_INDEX[name] for name in SKELETONS["coco17"]]


@pytest.fixture(scope="module")
def drawn() -> dict[str, np.ndarray]:
    return SceneSamples(7, SIDE, 1.1, 0.0)(range(COUNT))


def test_shapes_and_ranges(drawn: dict[str, np.ndarray]) -> None:
    shapes = {
        "image": (3, SIDE, SIDE), "joints": (30, 2), "joints_mask": (30,), "joints_img": (30, 3), "joints_known": (30,),
        "joints_cam": (30, 3), "pose": (24, 3), "betas": (10,),
    }  # fmt: skip
    assert {name: value.shape for name, value in drawn.items()} == {n: (COUNT, *shape) for n, shape in shapes.items()}
    assert {name: value.dtype for name, value in drawn.items()} == {
        name: np.dtype(np.uint8 if name == "image" else np.float32) for name in shapes
    }
    assert all(np.isfinite(value).all() for value in drawn.values())
    assert set(np.unique(drawn["joints_mask"])) == {0, 1}
    given = np.flatnonzero(drawn["joints_mask"].any(0))
    assert set(given) <= {*COCO, SMPL30_INDEX["Pelvis"], SMPL30_INDEX["Neck"]}
    assert 0.3 < drawn["joints_mask"][:, COCO].mean() < 1


def test_every_index_alone_is_as_in_company(drawn: dict[str, np.ndarray]) -> None:
    alone = SceneSamples(7, SIDE, 1.1, 0.0)([5])
    other = SceneSamples(8, SIDE, 1.1, 0.0)([5])
    for name, values in drawn.items():
        np.testing.assert_array_equal(alone[name][0], values[5], err_msg=name)
    assert (alone["image"] != other["image"]).any()


def test_a_pool_of_people_is_shown_again_but_not_alike() -> None:
    few = SceneSamples(7, SIDE, 1.1, 0.0, people=2)
    shown = few(range(8))
    assert len({tuple(betas) for betas in shown["betas"]}) == 2
    assert len({image.tobytes() for image in shown["image"]}) == 8
    np.testing.assert_array_equal(SceneSamples(7, SIDE, 1.1, 0.0, people=2)([5])["image"][0], shown["image"][5])


def test_given_joints_are_near_the_true_ones_of_the_same_frame(drawn: dict[str, np.ndarray]) -> None:
    distance = np.linalg.norm(drawn["joints"] / (SIDE / 4) - drawn["joints_img"][..., :2], axis=-1)
    given = (drawn["joints_mask"] > 0) & (drawn["joints_known"] > 0)
    assert 0.001 < np.median(distance[given]) < 0.05  # fractions of the crop


def test_depths_and_joints_are_those_of_the_pose(drawn: dict[str, np.ndarray]) -> None:
    import torch

    from jotr_deploy.body.joint_regression import JointsBody
    from jotr_deploy.body.lbs import SkinnedBody

    body = JointsBody(SkinnedBody(stand_in()))
    joints = body(torch.from_numpy(drawn["pose"]), torch.from_numpy(drawn["betas"])).numpy()
    np.testing.assert_allclose(drawn["joints_cam"], joints - joints[:, :1], atol=1e-4)
    np.testing.assert_allclose(drawn["joints_img"][..., 2], drawn["joints_cam"][..., 2] / 2 + 0.5, atol=1e-6)


def test_joints_are_dropped() -> None:
    kept, none = (SceneSamples(7, SIDE, 1.1, share)(range(COUNT)) for share in (0.5, 1.0))
    every = SceneSamples(7, SIDE, 1.1, 0.0)(range(COUNT))
    assert (kept["joints_mask"] <= every["joints_mask"]).all()
    assert 0.3 < kept["joints_mask"].sum() / every["joints_mask"].sum() < 0.7
    assert not none["joints_mask"].any()
    np.testing.assert_array_equal(none["joints"], every["joints"])


def test_somebody_who_can_be_seen() -> None:
    shares = []
    for index in range(COUNT):
        scene = draw_scene(7, index)
        cut, person = somebody(np.random.default_rng(index), scene, SIDE, 1.1)
        assert 0 <= person < len(scene)
        np.testing.assert_array_equal(cut.labels.pose_rad[0], scene.pose_rad[person])
        shares.append(float(cut.labels.visible_fraction[0]))
    assert sum(share >= LEAST_VISIBLE for share in shares) >= COUNT - 1


@pytest.mark.parametrize("uses", [2, 8])
def test_the_uses_of_a_person_differ(uses: int) -> None:
    """With 8 uses, person 300 is shown by sample 2400 for the first time, and again 256 people later."""
    samples = SceneSamples(7, SIDE, 1.1, 0.0, uses=uses)
    first, again = (samples.sample(index) for index in (uses * 300, uses * (300 + 256) + 1))
    np.testing.assert_array_equal(first["betas"], again["betas"])
    assert (first["image"] != again["image"]).mean() > 0.5
    assert not np.allclose(first["joints_cam"], again["joints_cam"], atol=1e-3)


@pytest.fixture(scope="module")
def person() -> Person:
    return draw_person(7, 3, 83, 1.1)


def bodies_agree(person: Person) -> None:
    """The joints are those of pose and shape."""
    import torch

    from jotr_deploy.body.joint_regression import JointsBody
    from jotr_deploy.body.lbs import SkinnedBody

    pose, betas = (torch.from_numpy(np.asarray(each, np.float32)[None]) for each in (person.pose_rad, person.betas))
    joints = JointsBody(SkinnedBody(stand_in()))(pose, betas).numpy()[0]
    np.testing.assert_allclose(person.joints_m, joints - joints[:1], atol=1e-4)


def test_a_mirror_twice_is_none(person: Person) -> None:
    once = mirrored(person)
    bodies_agree(once)
    np.testing.assert_array_equal(once.image, person.image[:, ::-1])
    left, right = SMPL30_INDEX["L_Wrist"], SMPL30_INDEX["R_Wrist"]
    np.testing.assert_allclose(once.joints_px[left, 0], 82 - person.joints_px[right, 0])
    for name, value in vars(mirrored(once)).items():
        np.testing.assert_allclose(value, getattr(person, name), atol=1e-9, err_msg=name)


@pytest.mark.parametrize("seed", range(4))
def test_variations_are_of_the_same_body_in_the_same_frame(person: Person, seed: int) -> None:
    varied = vary(np.random.default_rng(seed), person, SIDE)
    bodies_agree(varied)
    assert varied.image.shape == (SIDE, SIDE, 3)
    np.testing.assert_allclose(varied.joints_m[:, 2], person.joints_m[:, 2], atol=1e-9)  # about the optical axis
    scale = np.sqrt(varied.area_px2 / person.area_px2)
    spread = [np.linalg.norm(px - px.mean(0), axis=-1) for px in (person.joints_px, varied.joints_px)]
    np.testing.assert_allclose(spread[1], scale * spread[0], rtol=1e-9)
    # picture and body turn by the same angle
    bones = [np.asarray(each[1] - each[2]) for each in (person.joints_px, varied.joints_px)]
    turn = np.arctan2(*bones[1][::-1]) - np.arctan2(*bones[0][::-1])
    hips = [np.asarray(each[1] - each[2])[:2] for each in (person.joints_m, varied.joints_m)]
    turn_m = np.arctan2(*hips[1][::-1]) - np.arctan2(*hips[0][::-1])
    assert np.sin(turn - turn_m) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("visible", "inside", "share"), [(1, 1, 0.8875), (0, 1, 0.7125), (0, 0, 0.0)])
def test_which_joints_are_given(visible: int, inside: int, share: float) -> None:
    rng, flags = np.random.default_rng(0), np.ones(30, bool)
    person = Person(
        np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), 100.0,
        rng.uniform(20, 44, (30, 2)), flags & bool(visible), flags & bool(inside),
        np.zeros((0, 17, 2)), 100.0, np.zeros((30, 3)), np.zeros((24, 3)), np.zeros(10),
        np.zeros((17, 2)), np.zeros(17, bool),
    )  # fmt: skip
    drawn = [given_joints(rng, person, SIDE)[1][COCO] for _ in range(60)]
    assert np.mean(drawn) == pytest.approx(share, abs=0.05)


def test_joints_of_a_pose_network() -> None:
    """They are found in the picture as it is drawn, in a box near the true one, and vary with the person."""
    asked = []

    def pose(image_bgr: np.ndarray, box_px: np.ndarray) -> np.ndarray:
        asked.append((image_bgr, box_px))
        inside = box_px[:2] + (box_px[2:] - box_px[:2]) * np.linspace(0.2, 0.8, 17)[:, None]
        return np.concatenate([inside, np.ones((17, 1))], 1) * (np.arange(17) != 3)[:, None]

    person = draw_person(7, 3, 83, 1.1, [pose])
    ((image_bgr, box_px),) = asked
    np.testing.assert_array_equal(person.image, image_bgr[..., ::-1])
    seen = person.joints_px[COCO][person.visible[COCO]]
    assert (seen > box_px[:2] - 8).all()
    assert (seen < box_px[2:] + 8).all()
    np.testing.assert_array_equal(np.flatnonzero(~person.found), [3])
    for varied in (person, mirrored(mirrored(person)), vary(np.random.default_rng(0), person, 83)):
        low, high = (varied.found_px[joint] for joint in (0, 16))
        where = np.linalg.norm(varied.found_px - low, axis=1) / np.linalg.norm(high - low)
        np.testing.assert_allclose(np.delete(where, 3), np.delete(np.linspace(0, 1, 17), 3), atol=1e-6)
    rng = np.random.default_rng(1)
    cells = [given_joints(rng, person, 83)[0][COCO] for _ in range(200)]
    found = [np.allclose(each, np.where(person.found[:, None], person.found_px / 4, 0), atol=1e-5) for each in cells]
    assert 0.5 < np.mean(found) < 0.7
    assert not person.found[3]
    assert not draw_person(7, 3, 83, 1.1).found.any()


def test_pose_networks_take_turns() -> None:
    def finder(column: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        return lambda image_bgr, box_px: np.eye(17)[column][:, None] * np.ones(3)

    people = [draw_person(7, number, 83, 1.1, [finder(2), finder(5)]) for number in (0, 1, 4)]
    assert [int(person.found.argmax()) for person in people] == [2, 5, 2]


@pytest.mark.parametrize(
    ("shares", "least", "most"),
    [
        (Given(found=0, published=0), 1.0, 1.5),
        (Given(found=0, published=0, exact=1), 0.05, 0.6),
        (Given(found=1), 20.0, 20.0),
    ],
)
def test_joints_are_as_exact_as_asked_for(person: Person, shares: Given, least: float, most: float) -> None:
    """Median distance from the true joints over the deviation of the usual errors."""
    everywhere = replace(
        person, visible=np.ones(30, bool), inside=np.ones(30, bool), joints_px=np.full((30, 2), 40.0),
        found_px=np.full((17, 2), 40.0) + np.array((20 * DEVIATION * 83, 0)), found=np.ones(17, bool),
    )  # fmt: skip
    rng = np.random.default_rng(2)
    apart = []
    for _ in range(100):
        cells, mask = given_joints(rng, everywhere, 83, shares)
        apart.append(np.linalg.norm(4 * cells - 40, axis=1)[COCO][mask[COCO] > 0] / (DEVIATION * 83))
    assert least - 1e-4 <= np.median(np.concatenate(apart)) <= most + 1e-4


def test_wide_scenes_are_drawn_as_often_as_asked_for() -> None:
    usual, wide = (draw_person(7, 3, 83, 1.1, wide=share) for share in (0.0, 1.0))
    np.testing.assert_array_equal(usual.betas, draw_person(7, 3, 83, 1.1).betas)
    known = [draw_scene(7, 3, SceneOptions(wide=each)).betas for each in (False, True)]
    assert [any((row == person.betas).all() for row in rows) for person, rows in zip((usual, wide), known, strict=True)]
    assert all((known[0] != wide.betas).any(1))


def test_what_is_true_of_a_centred_person() -> None:
    joints_m = np.zeros((30, 3))
    joints_m[1] = 0.5, 0.25, 0.5
    joints_m[2] = 0, 0, 1.5  # beyond the depth box
    joints_px = np.full((30, 2), 32.0)
    joints_px[3] = -1.0, 32.0  # left of the crop
    found = truth(joints_px, joints_m, 64)
    np.testing.assert_allclose(found["joints_img"][0], [0.5, 0.5, 0.5])
    np.testing.assert_allclose(found["joints_img"][1], [0.5, 0.5, 0.75])
    np.testing.assert_allclose(found["joints_cam"][1], [0.5, 0.25, 0.5])
    assert list(np.flatnonzero(found["joints_known"] == 0)) == [2, 3]
