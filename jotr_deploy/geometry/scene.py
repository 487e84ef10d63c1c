"""One camera for everybody. It is derived and approximate: what is exact is each person's own camera.

A body of given size looks the same from 20 m through a focal length of 10000 px as from 40 m through 20000 px, but
for the perspective within the body. So a person moves to the depth at which the scene camera sees them as large, and
sideways to where it sees them in the same place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from jotr_deploy.geometry.camera import project_px
from jotr_deploy.people import People

Array = NDArray[Any]


def scene_focal_px(people: People) -> float:
    """The focal length that fits these people best as one: the median of theirs; 1 where there is nobody."""
    return float(np.median(people.focal_px)) if len(people) else 1.0


def image_centre_px(image_size_px: tuple[int, int]) -> Array:
    """(2,) principal point of the scene camera, for an image of this width and height."""
    return (np.asarray(image_size_px, np.float64) - 1) / 2


def scene_translation_m(people: People, image_size_px: tuple[int, int], focal_px: float | None = None) -> Array:
    """Where people stand in front of one camera that looks through the centre of the image.

    Approximate: the pelvis projects to exactly the same pixel as in the person's own camera and the body to the same
    size, the perspective within the body changes slightly (`scene_error_px` says by how much).

    Args:
        people: N people with z > 0.
        image_size_px: width, height.
        focal_px: of the scene camera; `scene_focal_px(people)` if not given. A clip needs one for all its frames.

    Returns:
        (N, 3) float32: `people.vertices_m + translation` is the mesh in the camera frame of the scene, metres.
    """
    focal = scene_focal_px(people) if focal_px is None else focal_px
    z = people.translation_m[:, 2].astype(np.float64) * focal / people.focal_px
    pelvis_px = project_px(people.translation_m[:, None].astype(np.float64), people.focal_px, people.principal_px)[:, 0]
    xy = (pelvis_px - image_centre_px(image_size_px)) * (z / focal)[:, None]
    return np.column_stack([xy, z]).astype(np.float32)


def scene_error_px(people: People, image_size_px: tuple[int, int], focal_px: float | None = None) -> Array:
    """How far the scene camera moves a vertex at most, for each person.

    Args:
        people: N people with every vertex in front of their camera.
        image_size_px: width, height.
        focal_px: as for `scene_translation_m`.

    Returns:
        (N,) image pixels.
    """
    focal = scene_focal_px(people) if focal_px is None else focal_px
    in_scene = people.vertices_m + scene_translation_m(people, image_size_px, focal)[:, None]
    centres = np.tile(image_centre_px(image_size_px), (len(people), 1))
    seen = project_px(in_scene, np.full(len(people), focal), centres)
    exact = project_px(people.vertices_camera_m, people.focal_px, people.principal_px)
    error: Array = np.linalg.norm(seen - exact, axis=-1).max(axis=1)
    return error
