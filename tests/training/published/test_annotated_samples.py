"""Samples of data sets: labels, fits and masks by hand, joints with errors, nothing but the number decides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_sets import (
    PLAIN,
    SETS,
    SIZE_PX,
    body,
    joints_of,
    noise_picture,
    posed,
    regressor_h36m,
)
from miniature import STICK_MM, write_miniature

from jotr_deploy.datasets.joint_errors import COCO17_IN_SMPL30
from jotr_deploy.datasets.published.annotation import Annotation, Camera
from jotr_deploy.datasets.published.sets import read_set
from jotr_deploy.errors import DatasetError
from jotr_deploy.geometry.rotations import matrix_from_axis_angle
from jotr_deploy.skeletons import H36M17, JOTR15_IN_SMPL30, SKELETONS, SMPL30_INDEX
from jotr_deploy.training.published import published_samples as module
from jotr_deploy.training.published.augmented_crops import Variation, crop_from_picture
from jotr_deploy.training.published.fitted_bodies import FittedBodies
from jotr_deploy.training.published.published_samples import AnnotatedSamples, disturbed
from jotr_deploy.training.published.sample_order import AnnotatedPeople
from jotr_deploy.training.published.truth import fit_truth, labels_in_crop, measured_truth

SIDE = 64
VARIED = Variation(1.1, 1.1, np.deg2rad(20), True, np.ones(3))
BOTH = pytest.mark.parametrize("variation", [PLAIN, VARIED], ids=["plain", "varied"])


@pytest.fixture(scope="module")
def bodies() -> FittedBodies:
    return FittedBodies(body(), regressor_h36m())


def truth(person: Annotation, variation: Variation, bodies: FittedBodies) -> dict[str, Any]:
    affine = crop_from_picture(person.box_px, person.size_px, variation, SIDE)
    labels = labels_in_crop(person, affine, variation)
    return {
        **measured_truth(person, labels, variation, SIDE),
        **fit_truth(bodies(person), affine, variation, SIDE),
    }


# ── the truth ────────────────────────────────────────────────────────────────────────────────────────────────────


@BOTH
def test_a_fit_lands_on_the_labels_that_were_made_of_it(bodies: FittedBodies, variation: Variation) -> None:
    """Through the fit's frame, its translation, the camera, the crop, a mirror and a turn."""
    found = truth(posed(1), variation, bodies)
    assert found["is_3d"] == found["is_fit"] == 1
    np.testing.assert_allclose(found["fit_img"], found["joints_img"][list(JOTR15_IN_SMPL30)], atol=1e-4)
    np.testing.assert_array_equal(found["fit_known"], found["joints_known"][list(JOTR15_IN_SMPL30)])
    assert found["joints_known"].sum() > 20
    joints_m = joints_of(found["pose"], found["betas"])
    np.testing.assert_allclose(joints_m - joints_m[0], found["joints_cam"], atol=2e-3)  # of an all but symmetric body


def test_the_root_is_in_the_camera_frame(bodies: FittedBodies) -> None:
    person = posed(2)
    assert person.fit is not None
    assert person.fit.camera_from_fit is not None
    expected = person.fit.camera_from_fit[:, :3] @ matrix_from_axis_angle(person.fit.pose_rad[0])
    found = truth(person, PLAIN, bodies)["pose"]
    np.testing.assert_allclose(matrix_from_axis_angle(found[0]), expected, atol=1e-6)
    np.testing.assert_allclose(found[1:], person.fit.pose_rad[1:], atol=1e-6)


def test_types(bodies: FittedBodies) -> None:
    shapes = {
        "joints_img": (30, 3), "joints_known": (30,), "joints_cam": (30, 3), "joints_cam_known": (30,), "is_3d": (),
        "fit_img": (15, 3), "fit_known": (15,), "pose": (24, 3), "betas": (10,), "is_fit": (),
    }  # fmt: skip
    for person in (posed(1), posed(1, is_3d=False), posed(1, fit=None)):
        found = truth(person, VARIED, bodies)
        assert {name: value.shape for name, value in found.items()} == shapes
        assert {value.dtype for value in found.values()} == {np.dtype(np.float32)}


def test_without_depth(bodies: FittedBodies) -> None:
    deep, flat = (truth(posed(1, is_3d=is_3d), VARIED, bodies) for is_3d in (True, False))
    assert flat["is_3d"] == 0
    assert not flat["joints_img"][:, 2].any()
    assert not flat["joints_cam"].any()
    assert not flat["joints_cam_known"].any()
    np.testing.assert_array_equal(flat["joints_img"][:, :2], deep["joints_img"][:, :2])
    np.testing.assert_array_equal(flat["fit_img"], deep["fit_img"])


def moved(person: Annotation, joint: str, m: tuple[float, float, float]) -> Annotation:
    assert person.joints_m is not None
    joints_m = person.joints_m.copy()
    joints_m[SMPL30_INDEX[joint]] += m
    return replace(person, joints_m=joints_m)


def test_what_is_known(bodies: FittedBodies) -> None:
    nose, neck, head = (SMPL30_INDEX[name] for name in ("Nose", "Neck", "Head"))
    person, every = posed(1), np.ones(30, bool)
    labels = person.joints_px.copy()
    labels[nose, 2] = 0
    labels[neck, :2] = 1000  # outside the crop
    changed = moved(replace(person, joints_px=labels), "Head", (0, 0, 1.2))  # behind the box of 2 m
    for is_3d, unknown in ((True, {nose, neck, head}), (False, {nose, neck})):
        some = changed if is_3d else replace(changed, joints_m=None, joints_m_known=None)
        known = truth(some, Variation(1.2, 1.25, 0, False, np.ones(3)), bodies)["joints_known"]
        assert set(np.flatnonzero(known == 0)) == unknown
    every[[nose, 5]] = False
    found = truth(replace(person, joints_m_known=every), PLAIN, bodies)
    assert set(np.flatnonzero(found["joints_cam_known"] == 0)) == {nose, 5}
    assert found["joints_known"][5] == 0
    assert truth(replace(person, joints_m_known=np.arange(30) > 0), PLAIN, bodies)["is_3d"] == 0  # no pelvis


@pytest.mark.parametrize(("largest", "kept"), [(2.9, True), (3.1, False), (-3.1, False)])
def test_shapes_beyond_reason_are_not_learned(bodies: FittedBodies, largest: float, kept: bool) -> None:
    person = posed(1, is_3d=False)
    assert person.fit is not None
    betas = person.fit.betas.copy()
    betas[3] = largest
    found = truth(replace(person, fit=replace(person.fit, betas=betas)), PLAIN, bodies)
    np.testing.assert_allclose(found["betas"], betas if kept else 0, atol=1e-6)
    assert found["is_fit"] == 1


@pytest.mark.parametrize(("off_mm", "is_3d", "used"), [(20, True, 1), (30, True, 0), (30, False, 1)])
def test_fits_that_are_too_far_from_what_was_measured(
    bodies: FittedBodies, off_mm: float, is_3d: bool, used: int
) -> None:
    """Every joint off by as much, half of them to each side, so that the mean stays."""
    person = posed(1, is_3d=is_3d)
    if person.joints_m is not None:
        joints_m = person.joints_m.copy()
        for place, name in enumerate(H36M17[:16]):
            joints_m[SMPL30_INDEX[name], 0] += off_mm / 1000 * (-1) ** place * 17 / 16
        joints_m += (0.3, 0.2, 0.1)  # where the person stands does not count
        person = replace(person, joints_m=joints_m)
    found = truth(person, PLAIN, bodies)
    assert found["is_fit"] == used
    assert bool(found["pose"].any()) == bool(used)
    assert bool(found["fit_known"].any()) == bool(used)


@pytest.mark.parametrize("why", ["no camera", "beside the picture", "behind the camera"])
def test_a_fit_that_cannot_be_seen(bodies: FittedBodies, why: str) -> None:
    """Its pose counts all the same. The crop holds the corner of the picture, where pixels are zero."""
    person = posed(1, is_3d=False, box_px=np.array([0.0, 0, 159, 119]))
    assert person.fit is not None
    assert truth(person, PLAIN, bodies)["fit_known"].all()
    if why == "no camera":
        person = replace(person, camera=None)
    elif why == "beside the picture":
        person = replace(person, camera=Camera((150.0, 160.0), (9000.0, 0.0)))
    else:
        camera_from_fit = np.array(person.fit.camera_from_fit)
        camera_from_fit[2, 3] -= 6
        person = replace(person, fit=replace(person.fit, camera_from_fit=camera_from_fit))
    found = truth(person, PLAIN, bodies)
    assert found["is_fit"] == 1
    assert not found["fit_known"].any()
    np.testing.assert_allclose(found["pose"][5], posed(1).fit.pose_rad[5], atol=1e-6)  # type: ignore[union-attr]


# ── every set in miniature, by hand ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    for name in SETS:
        write_miniature(name, folder)
    return folder


@pytest.mark.parametrize(
    ("name", "number", "x", "names", "is_3d"),
    [
        ("h36m", 0, 60, H36M17, True),
        ("muco", 1, 60, ("Pelvis", "Spine", "R_Toe", "L_Hand", "Head_top"), True),
        ("mscoco", 1, 30, ("Nose", "L_Hip", "R_Knee", "L_Wrist"), False),
        ("crowdpose", 1, 95, SKELETONS["crowdpose14"], False),
    ],
)
def test_the_targets_of_a_stick_figure(
    root: Path, bodies: FittedBodies, name: str, number: int, x: float, names: tuple[str, ...], is_3d: bool
) -> None:
    """Its box, 20 x 78 px, loses a pixel on either side; the square has 1.2 * 77 px about 9.5, 38.5 from its corner."""
    person = read_set(name, root, "train")[number]
    found, side = truth(person, replace(PLAIN, margin=1.2), bodies), 1.2 * 77
    for joint in names:
        place, (x_mm, y_mm, z_mm) = SMPL30_INDEX[joint], STICK_MM[joint]
        z_m = 3 + z_mm / 1000 if is_3d else 3
        px = x + 0.15 * x_mm / z_m, 50 + 0.15 * y_mm / z_m
        fractions = [0.5 + (px[0] - (x - 0.5)) / side, 0.5 + (px[1] - 53.5) / side, 0.5 + z_mm / 2000 if is_3d else 0]
        np.testing.assert_allclose(found["joints_img"][place], fractions, atol=1e-5, err_msg=joint)
        if is_3d:
            np.testing.assert_allclose(found["joints_cam"][place], np.array(STICK_MM[joint]) / 1000, atol=1e-6)
    known = found["joints_known"] > 0
    assert known[[SMPL30_INDEX[joint] for joint in names]].all()
    assert not known[SMPL30_INDEX["L_Eye"]] or name == "mscoco"
    assert found["is_3d"] == is_3d


@pytest.mark.parametrize(
    ("name", "recipe", "fits"),
    [
        ("h36m", "paper", [0, 0, 0, 0]),  # a stick figure is no body: more than 25 mm away, or none
        ("muco", "paper", [0, 0]),
        ("mscoco", "paper", [1, 0]),
        ("crowdpose", "paper", [1, 0, 0, 1]),
        ("crowdpose", "code", [0, 1, 0, 0]),
    ],
)
def test_which_fits_are_used(root: Path, bodies: FittedBodies, name: str, recipe: Any, fits: list[int]) -> None:
    people = read_set(name, root, "train", recipe)
    assert [int(truth(person, PLAIN, bodies)["is_fit"]) for person in people] == fits


# ── samples ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, bodies: FittedBodies) -> AnnotatedSamples:
    picture = noise_picture(tmp_path_factory.mktemp("pictures") / "a.png")
    people = [posed(number, picture, is_3d=number % 2 == 0) for number in range(4)]
    return AnnotatedSamples(AnnotatedPeople([people], 0), bodies, 0, SIDE, 0.1)


def test_every_number_alone_is_as_in_company(made: AnnotatedSamples) -> None:
    together = made(range(8))
    alone = AnnotatedSamples(made.people, made.bodies, 0, SIDE, 0.1)([5])
    for name, values in together.items():
        np.testing.assert_array_equal(alone[name][0], values[5], err_msg=name)
    other = AnnotatedSamples(made.people, made.bodies, 1, SIDE, 0.1)([5])
    assert (alone["image"] != other["image"]).any()
    assert together["image"].shape == (8, 3, SIDE, SIDE)
    assert together["image"].dtype == np.uint8
    assert together["joints"].dtype == together["joints_mask"].dtype == np.float32


def test_given_joints_are_near_the_labels(made: AnnotatedSamples) -> None:
    found = made(range(40))
    distance = np.linalg.norm(found["joints"] / (SIDE / 4) - found["joints_img"][..., :2], axis=-1)
    given = found["joints_mask"] > 0
    assert 0.001 < np.median(distance[given][distance[given] > 0]) < 0.1  # fractions of the crop
    assert (found["joints_mask"] <= found["joints_known"]).all()
    assert found["joints_mask"].sum() / found["joints_known"].sum() == pytest.approx(0.9, abs=0.03)


def test_midpoints_are_those_of_joints_that_the_network_is_given(root: Path, bodies: FittedBodies) -> None:
    """Of MSCOCO, which labels neither pelvis nor neck; in Human3.6M the pelvis is measured and stays."""
    hips, pelvis = [SMPL30_INDEX["L_Hip"], SMPL30_INDEX["R_Hip"]], SMPL30_INDEX["Pelvis"]
    for name, between in (("mscoco", True), ("h36m", False)):
        people = AnnotatedPeople([read_set(name, root, "train")[:1]], 0)
        sample = AnnotatedSamples(people, bodies, 0, SIDE, 0.0).sample(0)
        middle = sample["joints"][hips].mean(0)
        assert np.allclose(sample["joints"][pelvis], middle, atol=1e-4) is between
        at_label = np.allclose(sample["joints"][pelvis] * 4 / SIDE, sample["joints_img"][pelvis, :2], atol=1e-5)
        assert at_label is not between


def test_pictures_and_labels_that_do_not_agree(tmp_path: Path, bodies: FittedBodies) -> None:
    picture = noise_picture(tmp_path / "a.png")
    for person, cause in (
        (posed(1, tmp_path / "none.png"), "none.png: cannot be read"),
        (posed(1, picture, size_px=(161, 120)), "a.png: 160 x 120 px, the annotations are for 161 x 120"),
    ):
        with pytest.raises(DatasetError, match=cause):
            AnnotatedSamples(AnnotatedPeople([[person]], 0), bodies, 0, SIDE, 0.1)([0])


def test_crop_picture_and_labels_are_of_one_variation(
    tmp_path: Path, bodies: FittedBodies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The brightest place of the crop is where the only bright place of the picture was labelled."""
    import cv2

    person, place = posed(1, tmp_path / "dot.png", is_3d=False), SMPL30_INDEX["L_Knee"]
    dot = tuple(np.rint(person.joints_px[place, :2]).astype(int).tolist())
    cv2.imwrite(
        str(tmp_path / "dot.png"), cv2.circle(np.zeros((SIZE_PX[1], SIZE_PX[0], 3), np.uint8), dot, 2, (255,) * 3, -1)
    )
    for variation, joint in ((PLAIN, "L_Knee"), (VARIED, "R_Knee")):
        monkeypatch.setattr(module, "draw_variation", lambda rng, chosen=variation: chosen)
        sample = AnnotatedSamples(AnnotatedPeople([[person]], 0), bodies, 0, SIDE, 0.0).sample(0)
        weight, (rows, columns) = sample["image"][0].astype(float), np.mgrid[:SIDE, :SIDE]
        found = np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum() / SIDE
        np.testing.assert_allclose(found, sample["joints_img"][SMPL30_INDEX[joint], :2], atol=0.7 / SIDE)


# ── errors of the joints ─────────────────────────────────────────────────────────────────────────────────────────


def labels_of(names: tuple[str, ...]) -> np.ndarray:
    labels = np.zeros((30, 3))
    for joint in names:
        x, y, _ = STICK_MM[joint]
        labels[SMPL30_INDEX[joint]] = 32 + x / 40, 32 + y / 40, 1
    return labels


@pytest.mark.parametrize("names", [H36M17, SKELETONS["crowdpose14"], SKELETONS["coco17"], ()])
def test_only_labelled_joints_of_coco_are_disturbed(names: tuple[str, ...]) -> None:
    labels = labels_of(names)
    found = disturbed(np.random.default_rng(0), labels, 400.0, [], midpoints=False)
    changed = (found != labels[:, :2]).any(-1)
    shared = {SMPL30_INDEX[name] for name in names} & set(COCO17_IN_SMPL30)
    assert set(np.flatnonzero(changed)) == shared


def test_midpoints_follow() -> None:
    labels = labels_of(("Pelvis", *SKELETONS["coco17"], "Neck"))
    labels[SMPL30_INDEX["Neck"], 1] -= 3  # labelled itself
    for midpoints in (True, False):
        found = disturbed(np.random.default_rng(0), labels, 400.0, [], midpoints)
        hips = found[[SMPL30_INDEX["L_Hip"], SMPL30_INDEX["R_Hip"]]].mean(0)
        pelvis = labels[SMPL30_INDEX["Pelvis"], :2]
        assert (hips != pelvis).any()
        np.testing.assert_allclose(found[SMPL30_INDEX["Pelvis"]], hips if midpoints else pelvis)
        np.testing.assert_array_equal(found[SMPL30_INDEX["Neck"]], labels[SMPL30_INDEX["Neck"], :2])


@pytest.mark.parametrize("labelled", [True, False])
def test_joints_of_others_are_taken_where_they_are_labelled(labelled: bool) -> None:
    """Somebody as far away as a person is tall; without labels they all lie at (0, 0), and nothing is drawn there."""
    labels = labels_of(SKELETONS["coco17"])
    other = labels + np.array([100, 0, 0]) if labelled else np.zeros((30, 3))
    rng = np.random.default_rng(0)
    found = np.stack([disturbed(rng, labels, 400.0, [other], midpoints=False)[COCO17_IN_SMPL30] for _ in range(60)])
    far = np.abs(found - labels[COCO17_IN_SMPL30, :2]).max(-1) > 50
    at_zero = np.abs(found).max(-1) < 5
    assert not at_zero.any()
    assert bool(far.mean() > 0.01) is labelled
