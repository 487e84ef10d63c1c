"""Objects: some in front of people, seats under people who sit, the others anywhere."""

from __future__ import annotations

import cv2
import numpy as np

from jotr_deploy.datasets.synthetic.materials import random_material
from jotr_deploy.datasets.synthetic.skinning import coarse_mesh
from jotr_deploy.datasets.synthetic.solids import BOX, CYLINDER, ELLIPSOID, Solid
from jotr_deploy.datasets.synthetic.viewpoint import Camera
from jotr_deploy.geometry.rotations import matrix_from_axis_angle
from jotr_deploy.support.aliases import Array

OCCLUDED = 0.22  # probability of an object in front of a person
SEATED = 0.8  # probability of a seat under a person who sits
_NEAREST_M = 0.7
_LEAST_SEAT_M = 0.22
_PELVIS, _HIPS, _KNEES = 0, [1, 2], [4, 5]


def random_things(
    rng: np.random.Generator, camera: Camera, pose_rad: Array, people_m: Array, size_px: tuple[int, int]
) -> tuple[Solid, ...]:
    """Objects around people with these poses (P, 24, 3) and vertices of the coarse mesh (P, V, 3), camera frame."""
    things = []
    for vertices, sits in zip(people_m, _sitting(camera, pose_rad), strict=True):
        if sits and rng.random() < SEATED:
            things.append(_seat(rng, camera, vertices))
        if rng.random() < OCCLUDED:
            things.append(_in_front(rng, camera, vertices))
    for _ in range(rng.poisson(1.2)):
        things.append(_anywhere(rng, camera, people_m, size_px))
    return tuple(thing for thing in things if thing.centre_m[2] - np.linalg.norm(thing.half_m) > 0.1)


def _sitting(camera: Camera, pose_rad: Array) -> Array:
    """(P,) bool, true if both thighs are about level and both shins about upright."""
    rotation = matrix_from_axis_angle(pose_rad[:, [_PELVIS, *_HIPS, *_KNEES]])
    thigh = rotation[:, :1] @ rotation[:, 1:3]
    shin = thigh @ rotation[:, 3:5]
    down = camera.camera_from_level[:, 1]
    thigh_down, shin_down = (-(down @ each)[..., 1] for each in (thigh, shin))  # a leg at rest points to -y
    return (np.abs(thigh_down) < 0.45).all(1) & (shin_down > 0.75).all(1)


def _seat(rng: np.random.Generator, camera: Camera, vertices_m: Array) -> Solid:
    """Block or drum from the ground to the seat of a sitting person."""
    level = vertices_m[coarse_mesh().weights[[_PELVIS, *_HIPS]].sum(0) > 0.9] @ camera.camera_from_level
    top = level[:, 1].max() - 0.01
    half = np.array([rng.uniform(0.18, 0.3), max(camera.height_m - top, _LEAST_SEAT_M) / 2, rng.uniform(0.15, 0.22)])
    x, _, z = level.mean(0)
    return _solid(rng, camera, half, camera.camera_from_level @ (x, top + half[1], z), 0.0)


def _in_front(rng: np.random.Generator, camera: Camera, vertices_m: Array) -> Solid:
    """Object between the camera and a person that hides the lower part, a side, or any part of the body."""
    pixels = camera.project_px(vertices_m)
    low, high = pixels.min(0), pixels.max(0)
    size = high - low
    nearest = float(vertices_m[:, 2].min())
    z = max(nearest * rng.uniform(0.6, 0.97) - 0.15, _NEAREST_M)
    how = rng.random()
    if how < 0.4:  # from below: a table, a wall
        half = np.array([rng.uniform(0.3, 0.9) * size[0], size[1] * rng.uniform(0.15, 0.32)])
        centre = np.array([rng.uniform(low[0], high[0]), high[1] + rng.uniform(0, 0.1) * size[1] - half[1] * 0.9])
        tilt = 0.05
    elif how < 0.7:  # from one side: a pillar, a door, the trunk of a tree
        half = np.array([size[0] * rng.uniform(0.12, 0.3), size[1] * rng.uniform(0.4, 0.9)])
        edge = rng.choice([low[0], high[0]])
        centre = np.array(
            [edge + (rng.uniform(-0.5, 1.2) * half[0]) * (1 if edge == low[0] else -1), (low + high)[1] / 2]
        )
        tilt = 0.06
    else:
        half = size.max() * rng.uniform(0.07, 0.2, 2)
        centre = low + rng.uniform(0.1, 0.9, 2) * size
        tilt = 1.0
    metres = z / camera.focal_px
    deep = max(min(half.min() * metres, nearest - z - 0.05), 0.01) * rng.uniform(0.1, 1.0)
    extents = np.array([*(half * metres), deep])
    place = np.array([*((centre - camera.principal_px) * metres), z])
    return _solid(rng, camera, extents, place, tilt)


def _anywhere(rng: np.random.Generator, camera: Camera, people_m: Array, size_px: tuple[int, int]) -> Solid:
    """Object on the ground or in the air behind or beside the people."""
    farthest = float(people_m[..., 2].max())
    z = rng.uniform(0.9, 1.6) * farthest + 0.3
    metres = z / camera.focal_px
    half = np.exp(rng.uniform(np.log(0.03), np.log(0.25), 3)) * size_px[1] * metres
    centre_px = rng.uniform(0, 1, 2) * size_px
    place = np.array([*((centre_px - camera.principal_px) * metres), z])
    if rng.random() < 0.6:  # on the ground
        level = place @ camera.camera_from_level
        level[1] = camera.height_m - half[1]
        place = camera.camera_from_level @ level
    return _solid(rng, camera, half, place, 0.08 if rng.random() < 0.7 else 1.0)


def _solid(rng: np.random.Generator, camera: Camera, half_m: Array, centre_m: Array, tilt: float) -> Solid:
    kind = int(rng.choice([BOX, CYLINDER, ELLIPSOID], p=[0.55, 0.25, 0.2]))
    if kind == CYLINDER:
        half_m = half_m[[0, 1, 0]]
    vector = rng.normal(0, tilt, 3) + np.array([0, rng.uniform(-0.6, 0.6), 0])
    rotation = camera.camera_from_level @ cv2.Rodrigues(vector)[0]
    return Solid(kind, half_m, rotation, centre_m, random_material(rng, (0.04, 0.5), 0.4))
