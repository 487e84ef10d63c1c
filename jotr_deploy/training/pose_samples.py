"""Training samples of the 2-D pose network: people of synthetic scenes, cropped as in the runtime."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from jotr_deploy.datasets.synthetic.places import ROOMS, Places, moved_outdoors, without_people
from jotr_deploy.datasets.synthetic.render import render
from jotr_deploy.datasets.synthetic.scene import Scene, draw_scene
from jotr_deploy.datasets.synthetic.scene_crops import crop
from jotr_deploy.geometry.crop import crop_from_image, square_box, transform_px
from jotr_deploy.runtime.finding.pose.top_down import input_from_image
from jotr_deploy.skeletons import SKELETONS, SMPL30_INDEX, mirrored_order
from jotr_deploy.support.aliases import Array
from jotr_deploy.training.tiny_pose import SKELETON

SEEN, HIDDEN, AWAY = 1.0, 0.5, 0.0
"""Target confidence of joints that are visible, hidden in the picture, and outside of it or of the input."""
_CHOSEN = [SMPL30_INDEX[name] for name in SKELETONS[SKELETON]]
_MIRRORED = list(mirrored_order(SKELETONS[SKELETON]))
_DRAWN_SIDE_PX, _MARGIN = 200, 1.7  # size of the square about the person's box, to cover rotated and shifted inputs
_TURN_RAD, _TURNED = np.deg2rad(15), 0.6
_COLOUR = 0.25


@dataclass(frozen=True)
class Person:
    """Person, or a place where nobody is, as drawn once; pixels are those of the scene's picture."""

    image_bgr: Array  # (M, M, 3) uint8
    drawn_from_picture: Array  # (2, 3)
    box_px: Array  # (4,) tight, clipped to the picture
    joints_px: Array  # (17, 2)
    there: Array  # (17,) bool, in the picture
    seen: Array  # (17,) bool


def draw_person(seed: int, number: int, places: Places = ROOMS) -> Person:
    """Draw a random person of a scene; for the empty share of the places, the scene where they would be."""
    rng = np.random.default_rng((seed, number, 3))  # apart from that of the scene
    scene = draw_scene(seed, number)
    chosen = int(rng.integers(len(scene)))
    outdoors, empty = places.draw(rng)
    if outdoors:
        scene = moved_outdoors(rng, scene)
    if empty:
        return _nobody(scene, chosen)
    cut = crop(scene, chosen, _DRAWN_SIDE_PX, margin=_MARGIN)
    last = np.array(scene.size_px) - 0.5
    joints_px = cut.labels.joints_px[0, _CHOSEN].astype(np.float64)
    return Person(
        image_bgr=cut.image_bgr,
        drawn_from_picture=crop_from_image(cut.box_px, _DRAWN_SIDE_PX),
        box_px=_clipped(cut.labels.boxes_px[0], scene),
        joints_px=joints_px,
        there=np.asarray(((joints_px >= -0.5) & (joints_px < last)).all(1)),
        seen=cut.labels.joints_visible[0, _CHOSEN],
    )


def _nobody(scene: Scene, person: int) -> Person:
    """The box of a person in the same scene without anybody: no joint is there."""
    outline_px = scene.camera.project_px(scene.coarse_m[person])
    box_px = np.concatenate([outline_px.min(0), outline_px.max(0)])
    drawn_from_picture = crop_from_image(square_box(box_px, _MARGIN), _DRAWN_SIDE_PX)
    image = render(without_people(scene)).image_bgr
    return Person(
        image_bgr=cv2.warpAffine(image, drawn_from_picture, (_DRAWN_SIDE_PX, _DRAWN_SIDE_PX), flags=cv2.INTER_LINEAR),
        drawn_from_picture=drawn_from_picture,
        box_px=_clipped(box_px, scene),
        joints_px=np.zeros((len(_CHOSEN), 2)),
        there=np.zeros(len(_CHOSEN), bool),
        seen=np.zeros(len(_CHOSEN), bool),
    )


def _clipped(box_px: Array, scene: Scene) -> Array:
    """Box (4,) without the parts beyond the picture, float64."""
    last = np.array(scene.size_px) - 0.5
    return np.clip(box_px.reshape(2, 2), -0.5, last).reshape(4).astype(np.float64)


def vary(rng: np.random.Generator, person: Person, box_error: float, size_px: tuple[int, int]) -> dict[str, Array]:
    """Person in a box as from a detector, rotated, recoloured, and mirrored half of the time.

    Returns:
        image (H, W, 3) uint8 BGR as the runtime cuts it; joints (17, 2) in its pixels; confidence (17,).
    """
    box_px = as_detected(rng, person.box_px, box_error)
    angle = _TURN_RAD * np.clip(rng.normal(), -2, 2) * (rng.random() < _TURNED)
    sample = _cut(person, _turned(input_from_image(box_px[None], size_px)[0], angle, size_px), size_px)
    colour = rng.uniform(1 - _COLOUR, 1 + _COLOUR, 3) * rng.uniform(1 - _COLOUR, 1 + _COLOUR)
    sample["image"] = np.clip(sample["image"] * colour.astype(np.float32), 0, 255).astype(np.uint8)
    return mirrored(sample) if rng.random() < 0.5 else sample


def upright(rng: np.random.Generator, person: Person, box_error: float, size_px: tuple[int, int]) -> dict[str, Array]:
    """Person in a box as from a detector and otherwise as drawn; see `vary`."""
    box_px = as_detected(rng, person.box_px, box_error)
    return _cut(person, input_from_image(box_px[None], size_px)[0], size_px)


def _cut(person: Person, input_from_picture: Array, size_px: tuple[int, int]) -> dict[str, Array]:
    # picture -> drawn is a scale and a shift; its inverse maps the drawing to the input
    scale, shift = person.drawn_from_picture[0, 0], person.drawn_from_picture[:, 2]
    affine = input_from_picture.copy()
    affine[:, :2] /= scale
    affine[:, 2] -= affine[:, :2] @ shift
    image = cv2.warpAffine(person.image_bgr, affine, size_px, flags=cv2.INTER_LINEAR)
    joints = transform_px(input_from_picture, person.joints_px)
    there = person.there & ((joints >= 0) & (joints < size_px)).all(1)
    confidence = np.where(there & person.seen, SEEN, np.where(there, HIDDEN, AWAY))
    return {"image": image, "joints": joints.astype(np.float32), "confidence": confidence.astype(np.float32)}


def as_detected(rng: np.random.Generator, box_px: Array, error: float) -> Array:
    """Box (4,) with normal errors of its edges, `error` times its sides; at least a pixel wide and high."""
    box = box_px.reshape(2, 2)
    box = box + rng.normal(0, error, (2, 2)) * (box[1] - box[0])
    return np.concatenate([box[0], np.maximum(box[1], box[0] + 1)])


def _turned(affine: Array, angle_rad: float, size_px: tuple[int, int]) -> Array:
    """Affine (2, 3) followed by a rotation about the middle of the input."""
    cosine, sine = np.cos(angle_rad), np.sin(angle_rad)
    turn, middle = np.array([[cosine, -sine], [sine, cosine]]), (np.array(size_px) - 1) / 2
    turned: Array = turn @ affine
    turned[:, 2] += middle - turn @ middle
    return turned


def mirrored(sample: dict[str, Array]) -> dict[str, Array]:
    """Mirrored sample: left and right joints are swapped."""
    last = sample["image"].shape[1] - 1
    joints = sample["joints"][_MIRRORED] * np.array((-1, 1), np.float32) + np.array((last, 0), np.float32)
    image = np.ascontiguousarray(sample["image"][:, ::-1])
    return {"image": image, "joints": joints, "confidence": sample["confidence"][_MIRRORED]}
