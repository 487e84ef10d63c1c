"""One camera for everybody.

`before_camera` puts people, as the network gives them, before the camera of the picture. Where that is not done, each
person keeps a camera of their own, and `scene_translation_m` derives one that is approximate: a body of given size
looks the same from 20 m through a focal length of 10000 px as from 40 m through 20000 px, but for the perspective
within the body. So a person moves to the depth at which the derived camera sees them as large, and sideways to where it
sees them in the same place. Of people who stand before one camera that looks through the centre already, it changes
nothing.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jotr_deploy.geometry.camera import looking_at, project_px
from jotr_deploy.geometry.rotations import axis_angle_from_matrix, matrix_from_axis_angle
from jotr_deploy.people import People
from jotr_deploy.support.aliases import Array


def scene_focal_px(people: People) -> float:
    """The focal length that fits these people best as one: the median of theirs; 1 where there is nobody."""
    return float(np.median(people.focal_px)) if len(people) else 1.0


def image_centre_px(image_size_px: tuple[int, int]) -> Array:
    """(2,) principal point of the scene camera, for an image of this width and height."""
    return (np.asarray(image_size_px, np.float64) - 1) / 2


def scene_translation_m(people: People, image_size_px: tuple[int, int], focal_px: float | None = None) -> Array:
    """Positions of people in front of one camera that looks through the centre of the image.

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
    """Largest distance, for each person, by which the scene camera moves a vertex in the picture.

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


def before_camera(people: People, focal_px: float, principal_px: Array) -> People:
    """The same people before a camera of the whole picture, in metres of one scene.

    What the crop's own camera saw along the ray through the crop's centre is turned to where that ray goes in the
    scene, and stands where its joints fall on the same pixels, as nearly as perspective allows.

    Args:
        people: N people, each in their own camera.
        focal_px: of the camera.
        principal_px: (2,).

    Returns:
        The people with that focal length and principal point, and with pose of the root, translation, joints and
        vertices in the axes of that camera.
    """
    if not len(people):
        return people
    centre_px = (people.boxes_px[:, :2].astype(np.float64) + people.boxes_px[:, 2:]) / 2
    turn = np.swapaxes(looking_at(centre_px, focal_px, np.asarray(principal_px, np.float64)), -1, -2)
    with np.errstate(all="ignore"):  # somebody may be broken; who is stays so
        joints_m, vertices_m = (points @ np.swapaxes(turn, -1, -2) for points in (people.joints_m, people.vertices_m))
        seen_px = project_px(people.joints_camera_m.astype(np.float64), people.focal_px, people.principal_px)
        place_m = translation_m((seen_px - principal_px) / focal_px, joints_m)
    pose_rad = people.pose_rad.copy()
    pose_rad[:, 0] = axis_angle_from_matrix(turn @ matrix_from_axis_angle(people.pose_rad[:, 0]))
    return replace(
        people,
        pose_rad=pose_rad,
        translation_m=place_m,
        focal_px=np.full(len(people), focal_px),
        principal_px=np.tile(principal_px, (len(people), 1)),
        joints_m=joints_m,
        vertices_m=vertices_m,
    )


def translation_m(rays: Array, points_m: Array) -> Array:
    """Translation that puts points on given rays: least squares in the picture.

    Args:
        rays: (N, P, 2) x / z and y / z.
        points_m: (N, P, 3) relative to what is moved.

    Returns:
        (N, 3) metres; NaN where the points do not tell.
    """
    x, y = rays[..., 0], rays[..., 1]
    one, zero = np.ones_like(x), np.zeros_like(x)
    rows = np.stack([np.stack([one, zero, -x], -1), np.stack([zero, one, -y], -1)], -2)  # (N, P, 2, 3)
    goal = rays * points_m[..., 2:] - points_m[..., :2]  # (N, P, 2)
    weight = one
    for _ in range(3):  # an error in metres counts by how far away the point is
        weighted = rows * weight[..., None, None]
        normal = np.einsum("npri,nprj->nij", weighted, rows)
        found = np.einsum("npri,npr->ni", weighted, goal)
        with np.errstate(all="ignore"):
            place: Array = _solved(normal, found)
            weight = 1 / np.maximum(points_m[..., 2] + place[:, 2:], 1e-2) ** 2
    return place


def _solved(normal: Array, right: Array) -> Array:
    """(N, 3, 3), (N, 3) -> (N, 3), NaN where there is no one answer."""
    sound = np.isfinite(normal).all((1, 2)) & (np.linalg.det(np.nan_to_num(normal)) > 0)
    out = np.full(right.shape, np.nan)
    out[sound] = np.linalg.solve(normal[sound], right[sound][..., None])[..., 0]
    return out
