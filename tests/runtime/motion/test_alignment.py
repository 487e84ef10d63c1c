"""Alignment by its laws: what the joints say is followed, what they do not say stays, and nobody pays for others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jotr_deploy.body.lbs import SkinnedBody
from jotr_deploy.body.planar import PlanarBody
from jotr_deploy.body.smpl import stand_in
from jotr_deploy.bundle import STARTER, open_bundle
from jotr_deploy.errors import BundleError
from jotr_deploy.geometry.camera import camera_from_box, project_px
from jotr_deploy.geometry.rotations import axis_angle_from_matrix, matrix_from_axis_angle
from jotr_deploy.people import LAYOUT, People
from jotr_deploy.runtime.body_session import Body, open_body
from jotr_deploy.runtime.motion.alignment import gauss_newton as fitting
from jotr_deploy.runtime.motion.alignment.aligner import Aligner
from jotr_deploy.runtime.motion.alignment.chain import BodyArrays, Chain
from jotr_deploy.runtime.motion.alignment.gauss_newton import ACTIVE, DEVIATION_RAD, OBSERVED, Start, fit
from jotr_deploy.runtime.motion.alignment.guards import joint_error, without_swapped
from jotr_deploy.skeletons import MEASURED_IN_SMPL30, SMPL30, SMPL30_INDEX, mirrored_order

MOVED = ("pose_rad", "betas", "translation_m", "joints_m", "vertices_m")
MEASURED = list(MEASURED_IN_SMPL30)


class Posed:
    """The stand-in body with pose blend shapes, which the one of the starter bundle lacks."""

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        model = replace(stand_in(), posedirs=rng.normal(0, 0.002, (6890, 3, 207)).astype(np.float32))
        self._plain = SkinnedBody(model)
        self.weights = {f"body.{name}": value.numpy() for name, value in PlanarBody(self._plain).state_dict().items()}
        self.session = self

    path = Path("posed.onnx")

    def __call__(self, pose_rad: Any, betas: Any) -> tuple[Any, Any]:
        with torch.no_grad():
            vertices, joints = self._plain(*(torch.tensor(np.float32(each)) for each in (pose_rad, betas)))
        return (vertices - joints[:, :1]).numpy(), (joints - joints[:, :1]).numpy()


@pytest.fixture(scope="module")
def body() -> Iterator[Body]:
    with open_body(open_bundle(Path(STARTER)), threads=1) as opened:
        yield opened


@pytest.fixture(scope="module", params=["starter", "with pose blend shapes"])
def each_body(request: pytest.FixtureRequest) -> Any:
    return Posed() if request.param != "starter" else request.getfixturevalue("body")


def chain_of(body: Any) -> Chain:
    return Chain(BodyArrays.from_graph(body.weights, "here"), OBSERVED, ACTIVE)


def poses(rng: np.random.Generator, count: int) -> np.ndarray:
    """Upright people who face the camera, limbs anyhow, knees and elbows bent the way they bend."""
    pose_rad = rng.normal(0, 0.2, (count, 24, 3))
    turn = matrix_from_axis_angle(np.array([0.0, np.pi, 0.0])) @ matrix_from_axis_angle(np.array([0.0, 0, np.pi]))
    pose_rad[:, 0] = axis_angle_from_matrix(turn @ matrix_from_axis_angle(rng.normal(0, 0.2, (count, 3))))
    for joint, axis, sign in fitting.HINGES:
        pose_rad[:, joint] = 0
        pose_rad[:, joint, axis] = sign * rng.uniform(0.2, 1.2, count)
    return pose_rad


def people(body: Any, count: int = 4, seed: int = 0, turn: float = 0.7) -> tuple[People, np.ndarray]:
    """People recovered with errors as large as the prior expects, given true joints; and their true joints, metres."""
    rng = np.random.default_rng(seed)
    true_rad, betas = poses(rng, count), rng.normal(0, 0.5, (count, 10))
    place_m = np.column_stack([rng.uniform(-0.2, 0.2, (count, 2)), rng.uniform(35, 45, count)])
    boxes_px = np.tile([100.0, 50.0, 700.0, 650.0], (count, 1)) + rng.uniform(0, 200, (count, 1))
    focal_px, principal_px = camera_from_box(boxes_px)
    _, true_m = body(true_rad, betas)
    joints_px = project_px(true_m + place_m[:, None], focal_px, principal_px)
    keypoints_px = np.zeros((count, 30, 3))
    keypoints_px[:, MEASURED, :2], keypoints_px[:, MEASURED, 2] = joints_px[:, MEASURED], 1
    wrong = matrix_from_axis_angle(true_rad)
    for joint, deviation in DEVIATION_RAD.items():
        wrong[:, joint] = matrix_from_axis_angle(rng.normal(0, turn, (count, 3)) * deviation) @ wrong[:, joint]
    pose_rad = axis_angle_from_matrix(wrong)
    vertices_m, joints_m = body(pose_rad, betas * 0)
    values = {name: np.zeros((count, *shape), dtype) for name, (shape, dtype) in LAYOUT.items()}
    values |= {
        "boxes_px": boxes_px, "focal_px": focal_px, "principal_px": principal_px, "pose_rad": pose_rad,
        "translation_m": place_m * 1.01, "keypoints_px": keypoints_px, "joints_m": joints_m, "vertices_m": vertices_m,
        "track_ids": np.arange(count),
    }  # fmt: skip
    return People(**values), true_m


def seen_px(people: People) -> np.ndarray:
    return np.asarray(project_px(people.joints_camera_m, people.focal_px, people.principal_px))


def error_of(people: People) -> np.ndarray:
    side_px = people.boxes_px[:, 2] - people.boxes_px[:, 0]
    return np.asarray(joint_error(people.keypoints_px, seen_px(people), side_px))


def test_joints_without_a_vertex_are_those_of_the_body(each_body: Any, rng: np.random.Generator) -> None:
    pose_rad, betas = rng.normal(0, 0.5, (3, 24, 3)), rng.normal(0, 1, (3, 10))
    joints_m = chain_of(each_body).joints_m(matrix_from_axis_angle(pose_rad), betas)
    np.testing.assert_allclose(joints_m - joints_m[:, :1], each_body(pose_rad, betas)[1], atol=3e-4)


def test_the_jacobian_is_that_of_differences(body: Body) -> None:
    found, _ = people(body, 2)
    chain = chain_of(body)
    start = Start(
        found.pose_rad, found.betas, found.translation_m, found.focal_px, found.principal_px,
        found.boxes_px[:, 2] - found.boxes_px[:, 0], found.keypoints_px, np.full(2, 1.5),
    )  # fmt: skip
    problem = fitting._Problem(chain, start, fitting.SETTINGS)
    jacobian, _ = problem._linearised(problem.start)
    step = 1e-5
    for unknown in range(jacobian.shape[2]):
        change = np.zeros((2, jacobian.shape[2]))
        change[:, unknown] = step
        ahead, behind = (problem._look(problem._moved(problem.start, sign * change)).error for sign in (1, -1))
        differences = (ahead - behind).reshape(2, -1) / (2 * step)
        np.testing.assert_allclose(jacobian[:, :, unknown], differences, atol=1e-5)


def test_bodies_move_onto_true_joints_and_towards_the_true_pose(each_body: Any) -> None:
    found, true_m = people(each_body, 12)
    aligned = Aligner(each_body)(found)
    assert aligned.aligned.sum() >= 11
    moved = aligned.aligned
    assert np.median(error_of(aligned)[moved] / error_of(found)[moved]) < 0.3
    np.testing.assert_allclose(aligned.joint_error, np.stack([error_of(found), error_of(aligned)], 1), atol=1e-5)
    gap_m, before_m = (np.linalg.norm(each.joints_m - true_m, axis=-1).mean(1) for each in (aligned, found))
    assert gap_m[moved].mean() < 0.85 * before_m[moved].mean()
    vertices_m, joints_m = each_body(aligned.pose_rad, aligned.betas)
    np.testing.assert_allclose(aligned.vertices_m, vertices_m, atol=1e-4)
    np.testing.assert_allclose(aligned.joints_m, joints_m, atol=1e-4)


def test_what_no_joint_tells_stays_and_everything_else_of_a_person_too(body: Body) -> None:
    found, _ = people(body)
    aligned = Aligner(body)(found)
    still = [joint for joint in range(24) if joint not in ACTIVE]
    turned = matrix_from_axis_angle(aligned.pose_rad[:, still]) - matrix_from_axis_angle(found.pose_rad[:, still])
    assert np.abs(turned).max() < 1e-6
    for name in LAYOUT.keys() - {*MOVED, "aligned", "joint_error"}:
        np.testing.assert_array_equal(getattr(aligned, name), getattr(found, name))


def test_people_are_aligned_each_for_themselves_and_the_same_again(body: Body) -> None:
    found, _ = people(body, 5)
    align = Aligner(body)
    together = align(found)
    for name in LAYOUT:
        np.testing.assert_array_equal(getattr(align(found), name), getattr(together, name))
    for person in range(5):
        alone = align(found[[person]])
        np.testing.assert_array_equal(alone.aligned, together.aligned[[person]])
        for name in MOVED:
            np.testing.assert_allclose(getattr(alone, name)[0], getattr(together, name)[person], atol=2e-6)


def with_joints(people: People, change: Any) -> People:
    keypoints_px = people.keypoints_px.copy()
    change(keypoints_px)
    return replace(people, keypoints_px=keypoints_px)


def no_joint(joints: np.ndarray) -> None:
    joints[:] = 0


def unsure(joints: np.ndarray) -> None:
    joints[..., 2] *= 0.04


def five_joints(joints: np.ndarray) -> None:
    joints[:, MEASURED[5:]] = 0


def aside(joints: np.ndarray) -> None:
    joints[..., 0] += 150


def of_somebody_else(joints: np.ndarray) -> None:
    joints[:] = joints[::-1] * (1, 1.3, 1)


@pytest.mark.parametrize("change", [no_joint, unsure, five_joints, aside, of_somebody_else])
def test_who_would_not_stand_better_stays_to_the_bit(change: Any, body: Body) -> None:
    found = with_joints(people(body)[0], change)
    aligned = Aligner(body)(found)
    assert not aligned.aligned.any()
    for name in LAYOUT.keys() - {"joint_error"}:
        np.testing.assert_array_equal(getattr(aligned, name), getattr(found, name))
    np.testing.assert_array_equal(aligned.joint_error[:, 0], aligned.joint_error[:, 1])


@pytest.mark.parametrize(
    ("field", "value"), [("translation_m", -3.0), ("translation_m", 0.0), ("pose_rad", np.nan), ("betas", np.inf)]
)
def test_one_broken_person_stays_and_spoils_nobody(field: str, value: float, body: Body) -> None:
    found, _ = people(body)
    broken = getattr(found, field).copy()
    broken[1] = value
    aligned = Aligner(body)(replace(found, **{field: broken}))
    expected = Aligner(body)(found)
    assert not aligned.aligned[1]
    np.testing.assert_array_equal(getattr(aligned, field)[1], broken[1])
    for name in MOVED:
        np.testing.assert_allclose(getattr(aligned, name)[[0, 2, 3]], getattr(expected, name)[[0, 2, 3]], atol=2e-6)


def test_nobody_is_an_ordinary_case(body: Body) -> None:
    assert len(Aligner(body)(People.none())) == 0
    nobody = People.none()
    start = (nobody.pose_rad, nobody.betas, nobody.translation_m, nobody.focal_px, nobody.principal_px)
    nothing = fit(chain_of(body), Start(*start, np.zeros(0), nobody.keypoints_px, np.zeros(0)))
    assert (nothing.pose_rad.shape, nothing.trust.shape) == ((0, 24, 3), (0, len(OBSERVED)))


def test_pelvis_and_neck_are_not_followed(body: Body) -> None:
    """In the joint set they are midpoints of what was measured, and the body's are elsewhere."""
    found, _ = people(body)
    midpoints = [SMPL30_INDEX["Pelvis"], SMPL30_INDEX["Neck"]]

    def far_away(joints: np.ndarray) -> None:
        joints[:, midpoints] = (0, 0, 1)

    one, other = Aligner(body)(found), Aligner(body)(with_joints(found, far_away))
    for name in (*MOVED, "joint_error"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize(
    ("swapped", "dropped"),
    [((), ()), (("Hip", "Knee", "Ankle"), ("Hip", "Knee", "Ankle")), (("Wrist",), ()),
     (("Shoulder", "Elbow", "Wrist"), ("Shoulder", "Elbow", "Wrist"))],
)  # fmt: skip
def test_arms_and_legs_given_left_for_right_are_not_followed(
    swapped: tuple[str, ...], dropped: tuple[str, ...], body: Body
) -> None:
    found, _ = people(body, 6, turn=0.2)
    side_px = found.boxes_px[:, 2] - found.boxes_px[:, 0]
    joints_px = found.keypoints_px.copy()
    chosen = [joint for joint, name in enumerate(SMPL30) if name[2:] in swapped]
    joints_px[:, chosen] = joints_px[:, list(mirrored_order(SMPL30))][:, chosen]
    kept = without_swapped(joints_px, seen_px(found), side_px)
    gone = {SMPL30[joint][2:] for joint in np.flatnonzero((kept[..., 2] != joints_px[..., 2]).any(0))}
    assert gone == set(dropped)
    np.testing.assert_array_equal(kept[..., :2], joints_px[..., :2])


def test_in_a_film_the_shape_stays_near_that_of_the_track(body: Body) -> None:
    found, _ = people(body, 12)
    frames = [replace(found[[k]], track_ids=np.array([7])) for k in range(12)]
    alone, film = Aligner(body), Aligner(body, fps=12.0)
    spread = [np.std([align(each, k).betas[0] for k, each in enumerate(frames)], 0).mean() for align in (alone, film)]
    assert spread[1] < 0.7 * spread[0]
    loose = [replace(each, track_ids=np.array([-1])) for each in frames]
    np.testing.assert_array_equal(Aligner(body, fps=12.0)(loose[0], 3).pose_rad, alone(loose[0]).pose_rad)


def test_a_body_that_cannot_be_read_back_is_refused(body: Body) -> None:
    remedy = "export it again, or run with --no-align"
    without = {name: value for name, value in body.weights.items() if name != "body.weights"}
    with pytest.raises(BundleError) as lacking:
        Aligner(Body(body.session, without))
    assert (lacking.value.cause, lacking.value.remedy) == (
        f"{body.session.path}: the body inside cannot be read back ('body.weights')", remedy
    )  # fmt: skip
    with pytest.raises(BundleError) as other:
        Aligner(Body(body.session, {**body.weights, "body.template": 1.1 * body.weights["body.template"]}))
    assert other.value.cause == f"{body.session.path}: the body inside poses differently from its arrays"
