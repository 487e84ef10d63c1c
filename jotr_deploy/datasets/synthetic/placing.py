"""Placement of the camera and the people: sizes in the picture are drawn first, positions follow from them."""

from __future__ import annotations

import numpy as np

from jotr_deploy.datasets.synthetic.viewpoint import Camera
from jotr_deploy.support.aliases import Array

STANDING_M = 1.68  # a person of mean height
LEAST_PX, MOST_SHARE = 80, 0.88  # standing height in the picture
_NEAREST_M, _APART_M = 1.4, 0.5
_TRIES = 30


def random_camera(rng: np.random.Generator, size_px: tuple[int, int], wide: bool = False) -> tuple[Camera, Array]:
    """A camera that looks at somebody, and where that person stands: (2,) x, z of the level frame, metres.

    With `wide`, lenses are shorter and longer, more people are cut off or seen from above, and cameras are tilted more.
    """
    width, height = size_px
    focal = max(size_px) * float(np.exp(rng.uniform(*(np.log((0.6, 4.0)) if wide else (0, np.log(2.5))))))
    tall = _random_height(rng, height)
    close_up = rng.random() < (0.25 if wide else 0.07)
    if close_up:
        tall = height * rng.uniform(1.0, 1.7)
    z = max(focal * STANDING_M / tall, _NEAREST_M)
    tall = focal * STANDING_M / z
    camera_height = rng.uniform(0.5, 2.3)
    if wide and rng.random() < 0.4:
        above = rng.uniform(0.3, 1.1)
        z, camera_height = z * np.cos(above), STANDING_M / 2 + z * np.sin(above)
    if tall > height:
        row = height * rng.uniform(0.02, 0.25) + tall / 2  # the head is in the picture
    elif rng.random() < 0.92:
        row = rng.uniform(0.48 * tall, height - 0.48 * tall)
    else:
        row = rng.uniform(0.15, 0.95) * height
    centre = np.array([width - 1, height - 1]) / 2
    pitch = np.arctan2(camera_height - STANDING_M / 2, z) - np.arctan2(row - centre[1], focal)
    pitch = float(np.clip(pitch, -0.4, 1.3 if wide else 0.7))
    roll = float(np.clip(rng.normal(0, 0.04), -0.12, 0.12)) * (4 if wide else 1)
    column = rng.uniform(0.15, 0.85) if rng.random() < 0.92 else rng.choice([0.0, 1.0]) + rng.uniform(-0.06, 0.06)
    x = (column * width - centre[0]) / focal * z
    return Camera(focal, centre, _tilted(pitch, roll), camera_height), np.array([x, z])


def _random_height(rng: np.random.Generator, height_px: int) -> float:
    return float(np.exp(rng.uniform(np.log(LEAST_PX), np.log(MOST_SHARE * height_px))))


def _tilted(pitch_rad: float, roll_rad: float) -> Array:
    """camera_from_level of a camera that looks down by the pitch and is then rolled about its axis."""
    c, s = np.cos(pitch_rad), np.sin(pitch_rad)
    pitched = np.array([[1.0, 0, 0], [0, c, -s], [0, s, c]])
    c, s = np.cos(roll_rad), np.sin(roll_rad)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]]) @ pitched


def place_people(
    rng: np.random.Generator, camera: Camera, first: Array, wanted: int, size_px: tuple[int, int]
) -> Array:
    """(P, 2) x, z of the level frame: the first person and up to `wanted - 1` others, often in front of one another."""
    places = [first]
    for _ in range(wanted - 1):
        for _ in range(_TRIES):
            near = places[int(rng.integers(len(places)))]
            place = _beside(rng, camera, near) if rng.random() < 0.6 else _anywhere(rng, camera, size_px)
            apart = min(float(np.hypot(*(place - other))) for other in places)
            if apart > _APART_M and place[1] > _NEAREST_M and _in_picture(camera, place, size_px):
                places.append(place)
                break
    return np.array(places)


def _beside(rng: np.random.Generator, camera: Camera, other: Array) -> Array:
    """Shifted by up to the width of a body as the camera sees it, nearer or farther."""
    z = other[1] * rng.uniform(0.75, 1.35)
    shift = rng.uniform(0.1, 1.0) * rng.choice([-1, 1])
    return np.array([other[0] / other[1] * z + shift, z])


def _anywhere(rng: np.random.Generator, camera: Camera, size_px: tuple[int, int]) -> Array:
    z = camera.focal_px * STANDING_M / _random_height(rng, size_px[1])
    return np.array([(rng.uniform(0.08, 0.92) * size_px[0] - camera.principal_px[0]) / camera.focal_px * z, z])


def _in_picture(camera: Camera, place: Array, size_px: tuple[int, int]) -> bool:
    """True if about half of a person standing there is in the picture, and tall enough."""
    level = np.array([[place[0], camera.height_m - up, place[1]] for up in (0.0, STANDING_M / 2, STANDING_M)])
    points = level @ camera.camera_from_level.T
    if points[:, 2].min() < _NEAREST_M / 2:
        return False
    foot, middle, head = camera.project_px(points)
    inside = bool((middle > 0).all() and (middle < size_px).all())
    return inside and bool(foot[1] - head[1] >= LEAST_PX)
