"""The smoothed quantities of a person, and their arithmetic: rotations in the tangent space, the rest in vectors.

Position is expressed in the image: the pixel of the pelvis, and the length of the limbs in pixels. Every frame has a
camera of its own that follows the crop box, and depth in it jumps with the box.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from jotr_deploy.geometry.camera import project_px
from jotr_deploy.geometry.rotations import axis_angle_from_matrix, matrix_from_axis_angle
from jotr_deploy.people import People
from jotr_deploy.runtime.body_session import Body
from jotr_deploy.skeletons import SMPL30_INDEX
from jotr_deploy.support.aliases import Array

_LIMBS = tuple(
    (SMPL30_INDEX[f"{side}_{start}"], SMPL30_INDEX[f"{side}_{end}"])
    for side in "LR"
    for start, end in (("Hip", "Knee"), ("Knee", "Ankle"), ("Shoulder", "Elbow"), ("Elbow", "Wrist"))
)


class Motion(NamedTuple):
    """Quantities of a person that change from frame to frame. `SPACES` has the space of each field."""

    rotations: Array  # (24, 3, 3) float64, of the joints, root first
    pelvis_px: Array  # (2,) in the image
    log_limb_px: Array  # (1,) logarithm of the mean limb length in the image, as if parallel to the image plane


class Space(NamedTuple):
    """A space of values; steps between values are vectors along the last axis."""

    between: Callable[[Array, Array], Array]
    moved: Callable[[Array, Array], Array]
    reach: float  # largest step that counts as continuous motion, not as a jump


def _rotation_between(start: Array, end: Array) -> Array:
    return axis_angle_from_matrix(np.swapaxes(start, -1, -2) @ end)


def _rotated(start: Array, step_rad: Array) -> Array:
    rotation: Array = start @ matrix_from_axis_angle(step_rad)
    return rotation


ROTATIONS = Space(_rotation_between, _rotated, math.pi / 2)
FLAT = Space(lambda start, end: end - start, lambda start, step: start + step, math.inf)
SPACES = (ROTATIONS, FLAT, FLAT)


def on_line(space: Space, values: Array, centre: int, seconds: Array, weights: Array) -> Array:
    """The value at time 0 of the best-fitting steady motion; in `ROTATIONS` that is a steady rotation.

    Only values within reach of one another are one motion. Values out of reach of the centre do not count, unless more
    weight agrees on them: then the centre is an error of a frame or two, and does not count itself.

    Args:
        space: of the values.
        values: (K, ...).
        centre: index of the value at time 0.
        seconds: (K,) times.
        weights: (K,), largest at the centre.
    """
    found: Array = values[centre]
    near = _near(space, found, values)
    times, weights = (each.reshape(-1, *[1] * (near.ndim - 1)) for each in (seconds, weights))
    if not near.all():
        nearest = np.argmax(~near * weights, 0)  # in time
        shape = (*nearest.shape, *[1] * (found.ndim - nearest.ndim))
        other: Array = np.take_along_axis(values, nearest.reshape(1, *shape), 0)[0]
        near_other = _near(space, other, values)
        better = (near_other * weights).sum(0) > (near * weights).sum(0)
        found, near = np.where(better.reshape(shape), other, found), np.where(better, near_other, near)
    counted = near * weights
    s0, s1, s2 = (np.sum(counted * times**power, 0) for power in (0, 1, 2))
    spread = s0 * s2 - s1 * s1
    line = spread > 1e-9 * s0 * s2  # otherwise only one value counts, and there is no slope
    for _ in range(2):  # in the tangent space at the start, then at the value found there
        steps = space.between(found, values)
        y0, y1 = np.sum(counted * steps, 0), np.sum(counted * times * steps, 0)
        found = space.moved(found, np.where(line, (s2 * y0 - s1 * y1) / np.where(line, spread, 1), y0 / s0))
    return found


def _near(space: Space, found: Array, values: Array) -> Array:
    """(K, ..., 1) bool: values within reach of one."""
    near: Array = np.linalg.norm(space.between(found, values), axis=-1, keepdims=True) < space.reach
    return near


def tracked(people: People) -> Array:
    """(K,) indices of people whose motion can be followed: before their camera, and the first with their track id."""
    _, first = np.unique(people.track_ids, return_index=True)
    follow = np.zeros(len(people), np.bool_)
    follow[first] = True
    return np.flatnonzero(follow & (people.track_ids >= 0) & (people.translation_m[:, 2] > 0))


def motions_of(people: People) -> list[Motion]:
    """The motion of each of N people at this moment."""
    place_m = people.translation_m[:, None].astype(np.float64)
    pelvis_px = project_px(place_m, people.focal_px, people.principal_px)[:, 0]
    log_limb_px = np.log(_limb_m(people.joints_m) * people.focal_px / place_m[:, 0, 2])
    rotations = matrix_from_axis_angle(people.pose_rad)
    return [Motion(*parts) for parts in zip(rotations, pelvis_px, log_limb_px[:, None], strict=True)]


def with_motions(people: People, at: Array, motions: Sequence[Motion], betas: Array, body: Body) -> People:
    """The people of a frame, K of them with other motions and shapes.

    Cameras stay; the translation is chosen so that pelvis and size match the motion.

    Args:
        people: N of one frame.
        at: (K,) indices of the people to change.
        motions: K.
        betas: (K, 10).
        body: makes the meshes of the new poses.
    """
    if not len(at):
        return people
    rotations, pelvis_px, log_limb_px = (np.stack(part) for part in zip(*motions, strict=True))
    pose_rad = axis_angle_from_matrix(rotations)
    vertices_m, joints_m = body(pose_rad, betas)
    px_per_m = np.exp(log_limb_px) / _limb_m(joints_m)[:, None]
    offset_px = np.column_stack([pelvis_px - people.principal_px[at], people.focal_px[at]])
    new = {
        "pose_rad": pose_rad,
        "betas": betas,
        "translation_m": offset_px / px_per_m,
        "joints_m": joints_m,
        "vertices_m": vertices_m,
    }
    fields = {name: getattr(people, name).copy() for name in new}
    for name, values in new.items():
        fields[name][at] = values
    return replace(people, **fields)


def _limb_m(joints_m: Array) -> Array:
    """(N, 30, 3) -> (N,) mean limb length: a size of the body that does not depend on the pose."""
    start, end = np.transpose(_LIMBS)
    return np.linalg.norm(joints_m[:, start].astype(np.float64) - joints_m[:, end], axis=-1).mean(-1)
