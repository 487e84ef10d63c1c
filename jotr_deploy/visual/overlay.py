"""Overlays of people on their picture: meshes, or the joints that the network was given."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from jotr_deploy.geometry.camera import project_px
from jotr_deploy.geometry.raster import barycentric, rasterize, vertex_normals
from jotr_deploy.geometry.scene_frame import scene_focal_px
from jotr_deploy.people import People
from jotr_deploy.skeletons import SMPL30_BONES
from jotr_deploy.support.aliases import Array
from jotr_deploy.visual.caption import draw_caption
from jotr_deploy.visual.palette import person_colours

Image = NDArray[np.uint8]

NEAR_M = 0.05
OPACITY = 0.88
# Light from over the camera's left shoulder; camera frame, x right, y down, z into the scene.
TOWARDS_LIGHT = np.array([-0.36, -0.48, -0.8])
AMBIENT = 0.3
# The outline is one pixel wide; on a small person it is faded as if it had this width.
OUTLINE_SHADE = 0.45
OUTLINE_M = 0.006
# Depth step within one person that gets an outline: an arm in front of the chest, but not a fold of the surface.
OUTLINE_STEP_M = 0.06


def draw_people(image_bgr: Image, people: People, faces: Array, *, caption: str | None = None) -> Image:
    """Draw everybody's mesh over a copy of the picture.

    Every mesh is projected with its person's own camera, which is exact. Occlusion is decided by depth in the
    one scene camera (`geometry.scene_frame`): depths of different focal lengths are not comparable, so the order
    between people is an approximation.

    Args:
        image_bgr: (H, W, 3) uint8; not changed.
        people: people in it; those outside the picture or behind the camera are not drawn.
        faces: (F, 3) triangles of the body, counter-clockwise from outside.
        caption: a line for a bar along the bottom.

    Returns:
        (H, W, 3) uint8.
    """
    picture = image_bgr.copy()
    if len(people):
        _draw_meshes(picture, people, np.asarray(faces))
    if caption:
        draw_caption(picture, caption)
    return picture


def _draw_meshes(picture: Image, people: People, faces: Array) -> None:
    vertices_m = people.vertices_camera_m
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        pixels = project_px(vertices_m, people.focal_px, people.principal_px)
    window = _window(pixels[vertices_m[..., 2] > NEAR_M], picture.shape)
    if window is None:
        return
    x0, y0, x1, y1 = window
    faces_of_all = np.concatenate([faces + k * vertices_m.shape[1] for k in range(len(people))])
    scene_from_own = scene_focal_px(people) / people.focal_px
    depth_m = vertices_m[..., 2] * scene_from_own[:, None]
    vertices_m = vertices_m.reshape(-1, 3)
    on_screen = np.column_stack([pixels.reshape(-1, 2) - (x0, y0), depth_m.reshape(-1)])
    raster = rasterize(on_screen, faces_of_all, (x1 - x0, y1 - y0), cull_back=True, near_m=NEAR_M)

    seen = np.nonzero(raster.face >= 0)
    face = raster.face[seen]
    light = AMBIENT + (1 - AMBIENT) * np.maximum(vertex_normals(vertices_m, faces_of_all) @ TOWARDS_LIGHT, 0)
    shade = np.einsum("pk,pk->p", light[faces_of_all[face]], barycentric(raster, on_screen, faces_of_all))

    metres_per_px = np.maximum(people.translation_m[:, 2], NEAR_M) / people.focal_px
    step_m = np.maximum(OUTLINE_STEP_M, 8 * metres_per_px) * scene_from_own
    line = _outline(raster.face // len(faces), raster.depth_m, step_m)[seen]
    person = face // len(faces)
    shade[line] *= 1 - (1 - OUTLINE_SHADE) * np.minimum(OUTLINE_M / metres_per_px, 1)[person[line]]
    colours_bgr = person_colours(people.track_ids)[:, ::-1].astype(np.float32)
    drawn = colours_bgr[person] * shade.astype(np.float32)[:, None]
    under = picture[y0:y1, x0:x1]
    under[seen] = np.rint(OPACITY * drawn + (1 - OPACITY) * under[seen].astype(np.float32)).astype(np.uint8)


def _window(pixels: Array, shape: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """Window of the picture, x0 y0 x1 y1 with x1 and y1 excluded, around these points with a margin of a pixel."""
    pixels = pixels[np.isfinite(pixels).all(1)]
    if not len(pixels):
        return None
    size = (shape[1], shape[0])
    x0, y0 = (int(v) for v in np.clip(np.floor(pixels.min(0)) - 1, 0, size))
    x1, y1 = (int(v) for v in np.clip(np.ceil(pixels.max(0)) + 2, 0, size))
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _outline(person: Array, depth_m: Array, step_m: Array) -> Array:
    """Outline of a person against the background, another person, or a part of themselves that lies well behind.

    Args:
        person: (H, W) number of the visible person, or -1.
        depth_m: (H, W).
        step_m: (N,) depth step that counts as well behind, for each person.

    Returns:
        (H, W) bool, on the side of the part in front; undefined where nobody is visible.
    """
    outline = np.zeros(person.shape, bool)
    behind = depth_m + step_m[person]
    for here, there in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
        for at, beside in ((here, there), ((slice(None), here), (slice(None), there))):
            another = (person[at] != person[beside]) & (depth_m[at] <= depth_m[beside])
            outline[at] |= another | (depth_m[beside] > behind[at])
    return outline


def draw_keypoints(image_bgr: Image, people: People) -> Image:
    """Draw the joints given to the network, their bones, and the square crops into a copy of the picture.

    Args:
        image_bgr: (H, W, 3) uint8; not changed.
        people: joints with confidence 0 are absent and not drawn.

    Returns:
        (H, W, 3) uint8.
    """
    import cv2

    picture = image_bgr.copy()
    line = max(1, round(max(picture.shape[:2]) / 600))
    for k, colour in enumerate(person_colours(people.track_ids)[:, ::-1].tolist()):
        joints = people.keypoints_px[k]
        there = (joints[:, 2] > 0) & np.isfinite(joints).all(1)
        points = [_drawable(point) for point in joints[:, :2]]
        top_left, bottom_right = _drawable(people.boxes_px[k, :2]), _drawable(people.boxes_px[k, 2:])
        cv2.rectangle(picture, top_left, bottom_right, colour, line)
        for a, b in SMPL30_BONES:
            if there[a] and there[b]:
                cv2.line(picture, points[a], points[b], colour, 2 * line, cv2.LINE_AA)
        for point in np.flatnonzero(there):
            cv2.circle(picture, points[point], 2 * line + 1, (255, 255, 255), -1, cv2.LINE_AA)
            cv2.circle(picture, points[point], 2 * line, colour, -1, cv2.LINE_AA)
    return picture


def _drawable(point_px: Array) -> tuple[int, int]:
    """Integer pixels within the range that OpenCV can draw."""
    x, y = np.rint(np.clip(np.nan_to_num(point_px), -30000, 30000))
    return int(x), int(y)
