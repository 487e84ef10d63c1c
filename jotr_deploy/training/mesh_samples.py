"""Training samples of the mesh network: a person of a synthetic scene, cropped, with joints as a detector has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from jotr_deploy.datasets.joint_errors import (
    COCO17_IN_SMPL30,
    DEVIATION,
    NOT_FOUND,
    OVERLAPPING_IOU,
    as_given,
    detected_joints,
    joints_with_normal_errors,
)
from jotr_deploy.datasets.synthetic.scene import Scene, SceneOptions, draw_scene
from jotr_deploy.datasets.synthetic.scene_crops import Crop, crop
from jotr_deploy.geometry.boxes import iou
from jotr_deploy.geometry.camera import looking_at
from jotr_deploy.geometry.crop import PX_PER_CELL, crop_from_image, transform_px
from jotr_deploy.geometry.rotations import axis_angle_from_matrix, matrix_from_axis_angle
from jotr_deploy.skeletons import SKELETONS, SMPL30, mirrored_order
from jotr_deploy.support.aliases import Array
from jotr_deploy.training.pose_samples import as_detected
from jotr_deploy.training.reuse import Pool, Reused

Pose = Callable[[Array, Array], Array]
"""A picture (H, W, 3) uint8 BGR and a box (4,) -> COCO-17 joints (17, 3) x, y, confidence."""

DEPTH_BOX_M = 2.0
LEAST_VISIBLE = 0.15
"""Least visible share of a silhouette; people below it are used only if the scene has nobody else."""
HIDDEN_GIVEN = 0.3
"""Share of hidden joints in the picture that are given nevertheless, with errors of the published types."""
LEAST_DEVIATION = 0.002
"""Deviation of the most exact joints, as a share of the crop's side."""
BOX_ERROR = 0.06
"""Error of the box given to the pose network: standard deviation of each edge, as a share of its side."""
USES, LAG = 8, 256
"""Times that a drawn person is trained on by default, and the number of people in between."""
MARGIN = 1.3
"""Size of the drawn picture over the crop, for rotation and shifts."""
_SCALE, _SHIFT = 0.15, 0.05  # the crop varies by this share of its side
_TURN_RAD, _TURNED = np.deg2rad(15), 0.6
_COLOUR = 0.2
_MIRRORED, _COCO17_MIRRORED = list(mirrored_order(SMPL30)), list(mirrored_order(SKELETONS["coco17"]))


class Given(BaseModel):
    """Shares of the samples by the joints that the network is given; the table `[mesh.given]`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    found: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Joints that a pose network found, if there is one and it found any."""
    published: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of the others with errors of the published types."""
    exact: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the rest with small normal errors: any from a tenth of the usual ones, and fewer missing joints."""


USUALLY = Given()


@dataclass(frozen=True)
class Person:
    """Person as drawn once: pixels are those of the drawn picture, the frame is that of a camera that looks at its
    middle.
    """

    image: Array  # (M, M, 3) uint8 RGB
    own: Array  # (M, M) uint8, how much of a pixel is this person, 0..255
    focal_px: float  # of the camera
    joints_px: Array  # (30, 2)
    visible: Array  # (30,) bool
    inside: Array  # (30,) bool, in the scene's picture
    others_px: Array  # (K, 17, 2) COCO-17 joints of the people who overlap
    area_px2: float  # of the tight box
    joints_m: Array  # (30, 3) relative to the pelvis
    pose_rad: Array  # (24, 3)
    betas: Array  # (10,)
    found_px: Array  # (17, 2) COCO-17 joints as one of the pose networks finds them
    found: Array  # (17,) bool, those detected; none without a pose network


@dataclass(frozen=True)
class SceneSamples:
    """People of the scenes of `seed`, each varied `uses` times: turned, mirrored, moved, recoloured, other errors.

    With `people`, as many of them round after round instead.
    """

    seed: int
    crop_side: int  # pixels
    crop_factor: float  # see `square_box`
    drop_joints: float  # probability that a joint which is given is withheld
    poses: tuple[Pose, ...] = ()  # detect the joints of some samples; without any all have synthetic errors
    given: Given = USUALLY
    wide: float = 0.0  # share of scenes with `SceneOptions.wide`
    people: int | None = None
    uses: int = USES
    _people: Callable[[int], tuple[Person, int]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        side = round(self.crop_side * MARGIN)
        draw = partial(
            draw_person, self.seed, side=side, crop_factor=self.crop_factor, poses=self.poses, wide=self.wide
        )
        people = Reused(draw, self.uses, LAG) if self.people is None else Pool(draw, self.people, self.seed)
        object.__setattr__(self, "_people", people)

    def __call__(self, indices: Sequence[int]) -> dict[str, Array]:
        """Samples of these numbers, see `sample`, stacked."""
        samples = [self.sample(index) for index in indices]
        return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}

    def sample(self, index: int) -> dict[str, Array]:
        """One sample.

        Returns:
            image (3, S, S) uint8 RGB, joints (30, 2) and joints_mask (30,) as the network takes them, and the truth:
            joints_img (30, 3) x y as fractions of the crop, z 0..1 of the depth box; joints_known (30,) those inside
            of both; pose (24, 3), betas (10,), joints_cam (30, 3) metres relative to the pelvis. float32.
        """
        rng = np.random.default_rng((self.seed, index, 1))  # apart from that of the scene
        person, use = self._people(index)
        varied = vary(rng, mirrored(person) if use % 2 else person, self.crop_side)
        joints, mask = given_joints(rng, varied, self.crop_side, self.given)
        kept = rng.random(len(mask)) >= self.drop_joints
        return {
            "image": np.ascontiguousarray(varied.image.transpose(2, 0, 1)),
            "joints": joints,
            "joints_mask": mask * kept.astype(np.float32),
            **truth(varied.joints_px, varied.joints_m, self.crop_side),
            "pose": varied.pose_rad.astype(np.float32),
            "betas": varied.betas,
        }


# ── drawing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def draw_person(
    seed: int, number: int, side: int, crop_factor: float, poses: Sequence[Pose] = (), wide: float = 0.0
) -> Person:
    """Draw a person of a scene in a picture of `side` pixels that shows `MARGIN` times the crop.

    One of `poses`, each as often as the others, looks for the joints.
    """
    rng = np.random.default_rng((seed, number, 0))
    scene = draw_scene(seed, number, SceneOptions(wide=wide > 0 and rng.random() < wide))
    cut, person = somebody(rng, scene, side, crop_factor)
    known, (width, height) = cut.labels, scene.size_px
    everybody_px, boxes_px = cut.people_joints_px, cut.people_boxes_px
    overlapping = iou(boxes_px[person : person + 1], boxes_px)[0] >= OVERLAPPING_IOU
    overlapping[person] = False
    affine = crop_from_image(cut.box_px, side)
    found = np.zeros((len(COCO17_IN_SMPL30), 3))
    if poses:
        pose = poses[number % len(poses)]
        box_px = np.clip(boxes_px[person].reshape(2, 2), -0.5, np.array((width, height)) - 0.5).reshape(4)
        box_px = transform_px(affine, as_detected(rng, box_px, BOX_ERROR).reshape(2, 2)).reshape(4)
        found = pose(cut.image_bgr, box_px)
    turn = looking_at((cut.box_px[:2] + cut.box_px[2:]) / 2, known.focal_px, known.principal_px)
    return Person(
        image=np.ascontiguousarray(cut.image_bgr[..., ::-1]),
        own=cut.own,
        focal_px=float(known.focal_px * affine[0, 0]),
        joints_px=transform_px(affine, np.asarray(known.joints_px[0], np.float64)),
        visible=known.joints_visible[0],
        inside=np.asarray(((everybody_px[person] >= 0) & (everybody_px[person] < (width, height))).all(-1)),
        others_px=transform_px(affine, np.asarray(everybody_px[overlapping][:, COCO17_IN_SMPL30], np.float64)),
        area_px2=float((boxes_px[person, 2:] - boxes_px[person, :2]).prod() * affine[0, 0] ** 2),
        joints_m=(known.joints_m[0] - known.joints_m[0, 0]) @ turn.T,
        pose_rad=turned_root(turn, known.pose_rad[0]),
        betas=known.betas[0],
        found_px=found[:, :2],
        found=found[:, 2] > 0,
    )


def somebody(rng: np.random.Generator, scene: Scene, side: int, crop_factor: float) -> tuple[Crop, int]:
    """Picture and number of a person of the scene who is visible enough, or of the most visible one."""
    seen: list[tuple[float, int, Crop]] = []
    for person in rng.permutation(len(scene)):
        cut = crop(scene, int(person), side, margin=MARGIN, crop_factor=crop_factor)
        seen.append((float(cut.labels.visible_fraction[0]), int(person), cut))
        if seen[-1][0] >= LEAST_VISIBLE:
            break
    _, person, cut = max(seen, key=lambda entry: entry[0])
    return cut, person


# ── varying ──────────────────────────────────────────────────────────────────────────────────────────────────────


def mirrored(person: Person) -> Person:
    """Mirrored person: left and right swap, and x changes sign."""
    last = person.image.shape[1] - 1
    return replace(
        person,
        image=person.image[:, ::-1],
        own=person.own[:, ::-1],
        joints_px=_mirrored_px(person.joints_px[_MIRRORED], last),
        visible=person.visible[_MIRRORED],
        inside=person.inside[_MIRRORED],
        others_px=_mirrored_px(person.others_px[:, _COCO17_MIRRORED], last),
        joints_m=person.joints_m[_MIRRORED] * (-1, 1, 1),
        pose_rad=person.pose_rad[_MIRRORED[: len(person.pose_rad)]] * (1, -1, -1),
        found_px=_mirrored_px(person.found_px[_COCO17_MIRRORED], last),
        found=person.found[_COCO17_MIRRORED],
    )


def _mirrored_px(points_px: Array, last: int) -> Array:
    return np.stack([last - points_px[..., 0], points_px[..., 1]], -1)


def vary(rng: np.random.Generator, person: Person, crop_side: int) -> Person:
    """Rotate about the optical axis, shift, scale and recolour, giving a crop of `crop_side` pixels."""
    drawn_side = person.image.shape[0]
    angle = _TURN_RAD * np.clip(rng.normal(), -2, 2) * (rng.random() < _TURNED)
    scale = crop_side / drawn_side * MARGIN * np.exp(rng.uniform(-_SCALE, _SCALE))
    centre = drawn_side / 2 + drawn_side / MARGIN * rng.uniform(-_SHIFT, _SHIFT, 2)
    turn = matrix_from_axis_angle(np.array([0, 0, angle]))
    affine = np.zeros((2, 3))
    affine[:, :2] = scale * turn[:2, :2]
    affine[:, 2] = crop_side / 2 - affine[:, :2] @ centre
    image, own = (
        cv2.warpAffine(each, affine, (crop_side, crop_side), flags=cv2.INTER_LINEAR)
        for each in (person.image, person.own)
    )
    colour = rng.uniform(1 - _COLOUR, 1 + _COLOUR, 3)
    return replace(
        person,
        image=np.clip(image * colour.astype(np.float32), 0, 255).astype(np.uint8),
        own=own,
        focal_px=float(person.focal_px * scale),
        joints_px=transform_px(affine, person.joints_px),
        others_px=transform_px(affine, person.others_px),
        found_px=transform_px(affine, person.found_px),
        area_px2=person.area_px2 * scale**2,
        joints_m=person.joints_m @ turn.T,
        pose_rad=turned_root(turn, person.pose_rad),
    )


def turned_root(turn: Array, pose_rad: Array) -> Array:
    """(24, 3) pose of a body rotated as a whole by (3, 3)."""
    root = axis_angle_from_matrix(turn @ matrix_from_axis_angle(pose_rad[0]))
    return np.concatenate([root[None], pose_rad[1:]])


# ── what the network is given and compared with ──────────────────────────────────────────────────────────────────


def given_joints(
    rng: np.random.Generator, person: Person, crop_side: int, shares: Given = USUALLY
) -> tuple[Array, Array]:
    """Joints as detected by a pose network, or with synthetic errors of a good one or of one that is often wrong.

    Returns:
        joints (30, 2) in grid cells and the mask (30,), both float32.
    """
    if person.found.any() and rng.random() < shares.found:
        joints = as_given(person.found_px, person.found)
    elif rng.random() < shares.published:
        given = person.visible | (person.inside & (rng.random(len(person.inside)) < HIDDEN_GIVEN))
        joints = detected_joints(rng, person.joints_px, person.inside, given, person.area_px2, person.others_px)
    else:
        deviation, missing = DEVIATION, NOT_FOUND
        if shares.exact > 0 and rng.random() < shares.exact:
            deviation, missing = (
                np.exp(rng.uniform(np.log(LEAST_DEVIATION), np.log(DEVIATION))),
                rng.uniform(0, missing),
            )
        joints = joints_with_normal_errors(
            rng, person.joints_px, person.visible, person.inside, crop_side, deviation, missing
        )
    cells = (joints[:, :2] / PX_PER_CELL).astype(np.float32)
    in_grid = ((cells >= 0) & (cells < crop_side / PX_PER_CELL)).all(-1)
    return cells, (in_grid & (joints[:, 2] > 0)).astype(np.float32)


def truth(joints_px: Array, joints_m: Array, crop_side: int) -> dict[str, Array]:
    """Ground truth of one person for the losses; see `SceneSamples.sample`.

    Args:
        joints_px: (30, 2) in the crop.
        joints_m: (30, 3) relative to the pelvis, in the frame of a camera that looks at the crop's middle.
        crop_side: pixels.
    """
    joints_img = np.concatenate([joints_px / crop_side, joints_m[:, 2:] / DEPTH_BOX_M + 0.5], 1)
    known = np.asarray(((joints_img >= 0) & (joints_img < 1)).all(-1))
    return {
        "joints_img": joints_img.astype(np.float32),
        "joints_known": known.astype(np.float32),
        "joints_cam": joints_m.astype(np.float32),
    }
