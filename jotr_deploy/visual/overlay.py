"""Overlays of people on their picture: meshes, or the joints that the network was given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from jotr_deploy.geometry.camera import project_px
from jotr_deploy.geometry.raster import LEVEL_BITS, LEVELS, SHADES, shade_meshes, vertex_normals
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
# The picture is painted in parts of about this size, which stay in the processor's cache.
PART_PX = 1 << 16


def draw_people(
    image_bgr: Image, people: People, faces: Array, *, caption: str | None = None, scale: float = 1.0
) -> Image:
    """Draw everybody's mesh over a copy of the picture, which may be smaller than the picture.

    Every mesh is projected with its person's own camera, which is exact. Occlusion is decided by depth in the
    one scene camera (`geometry.scene_frame`): depths of different focal lengths are not comparable, so the order
    between people is an approximation.

    Args:
        image_bgr: (H, W, 3) uint8; not changed.
        people: people in it; those outside the picture or behind the camera are not drawn.
        faces: (F, 3) triangles of the body, counter-clockwise from outside.
        caption: a line for a bar along the bottom.
        scale: of the copy's sides, at most 1.

    Returns:
        (scale * H, scale * W, 3) uint8, rounded.
    """
    picture = scaled_down(image_bgr, scale)
    if len(people):
        _draw_meshes(picture, _before_scaled(people, image_bgr, picture), np.asarray(faces))
    if caption:
        draw_caption(picture, caption)
    return picture


def scaled_down(image_bgr: Image, scale: float) -> Image:
    """A copy of a picture (H, W, 3), its sides scaled by at most 1 and at least a pixel long."""
    import cv2

    height, width = (max(1, round(side * scale)) for side in image_bgr.shape[:2])
    if (height, width) == image_bgr.shape[:2]:
        return image_bgr.copy()
    return np.asarray(cv2.resize(image_bgr, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _before_scaled(people: People, image_bgr: Image, scaled_bgr: Image) -> People:
    """The same people before the cameras of a scaled picture."""
    share = np.divide(scaled_bgr.shape[1::-1], image_bgr.shape[1::-1])
    principal_px = (people.principal_px + 0.5) * share - 0.5  # pixel centres have integer coordinates
    return replace(people, focal_px=people.focal_px * np.sqrt(share.prod()), principal_px=principal_px)


def _draw_meshes(picture: Image, people: People, faces: Array) -> None:
    vertices_m = people.vertices_camera_m
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        pixels = project_px(vertices_m, people.focal_px, people.principal_px)
    window = _window(pixels[vertices_m[..., 2] > NEAR_M], picture.shape)
    if window is None:
        return
    x0, y0, x1, y1 = window
    scene_from_own = scene_focal_px(people) / people.focal_px
    depth_m = vertices_m[..., 2] * scene_from_own[:, None]
    on_screen = np.concatenate([pixels - (x0, y0), depth_m[..., None]], -1)
    shaded = shade_meshes(on_screen, faces, _light(vertices_m, faces), (x1 - x0, y1 - y0), near_m=NEAR_M)

    metres_per_px = np.maximum(people.translation_m[:, 2], NEAR_M) / people.focal_px
    step_m = np.maximum(OUTLINE_STEP_M, 8 * metres_per_px) * scene_from_own
    dark = 1 - (1 - OUTLINE_SHADE) * np.minimum(OUTLINE_M / metres_per_px, 1)
    colours = person_colours(people.track_ids)[:, ::-1]
    plain, lined = _palette(colours), _palette(colours * dark[:, None])
    under = picture[y0:y1, x0:x1]
    for rows, columns, inner in _parts(shaded.key):
        code, depth_m = shaded.read(rows, columns)
        line = _outline((code >> LEVEL_BITS).astype(np.uint16), depth_m, step_m)
        drawn = plain.take(code)
        drawn.reshape(-1)[line] = lined.take(code.reshape(-1)[line])
        _blend(under[rows, columns][inner], drawn[inner], code[inner] > 0)


def _parts(key: Array) -> Iterator[tuple[slice, slice, slice]]:
    """Parts of an image (H, W) that cover what is not 0: rows, columns, and the rows of the part that are its own.

    A part has a row and a column more on every side, within the image, for the outline.
    """
    height, width = key.shape
    step = max(1, PART_PX // width)
    for top in range(0, height, step):
        rows, own = slice(max(top - 1, 0), min(top + step + 1, height)), min(step, height - top)
        there = np.flatnonzero(key[rows].max(0))
        if len(there):
            columns = slice(max(int(there[0]) - 1, 0), int(there[-1]) + 2)
            yield rows, columns, slice(top - rows.start, top - rows.start + own)


def _light(vertices_m: Array, faces: Array) -> Array:
    """(N, V) light on the surface at the vertices (N, V, 3), in 0 .. 1."""
    normals = np.reshape([vertex_normals(mesh_m, faces) for mesh_m in vertices_m], vertices_m.shape)
    light: Array = AMBIENT + (1 - AMBIENT) * np.maximum(normals @ TOWARDS_LIGHT, 0)
    return light


def _palette(colours_bgr: Array) -> Array:
    """The colour of every code of `Shaded` for meshes of these colours (N, 3), with four bytes in one uint32."""
    palette = np.zeros((1 + len(colours_bgr), LEVELS, 4), np.uint8)
    palette[1:, :, :3] = np.rint(colours_bgr[:, None] * SHADES[:, None])
    return palette.reshape(-1).view(np.uint32)


def _blend(under: Image, drawn: Array, where: Array) -> None:
    """Lay a drawing over a picture (H, W, 3) where there is something; the drawing is (H, W) as in a palette."""
    import cv2

    colours = cv2.cvtColor(drawn.view(np.uint8).reshape(*drawn.shape, 4), cv2.COLOR_BGRA2BGR)
    mixed = cv2.addWeighted(colours, OPACITY, under, 1 - OPACITY, 0)
    cv2.copyTo(mixed, where.view(np.uint8), under)


def _window(pixels: Array, shape: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """Window of the picture, x0 y0 x1 y1 with x1 and y1 excluded, around these points with a margin of a pixel."""
    pixels = pixels[np.isfinite(pixels).all(1)]
    if not len(pixels):
        return None
    size = (shape[1], shape[0])
    x0, y0 = (int(v) for v in np.clip(np.floor(pixels.min(0)) - 1, 0, size))
    x1, y1 = (int(v) for v in np.clip(np.ceil(pixels.max(0)) + 2, 0, size))
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _outline(mesh: Array, depth_m: Array, step_m: Array) -> Array:
    """Outline of people against the background, another person, or a part of themselves that lies well behind.

    Args:
        mesh: (H, W) 1 + number of the visible person, 0 where there is nobody.
        depth_m: (H, W) inf where there is nobody.
        step_m: (N,) depth step that counts as well behind, for each person.

    Returns:
        (P,) flat indices of its pixels, on the side of the part in front.
    """
    import cv2

    beside_m = cv2.dilate(depth_m, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    line = np.flatnonzero(beside_m > depth_m + np.float32(step_m.min()))
    lines = [line[beside_m.take(line) > depth_m.take(line) + step_m[mesh.take(line) - 1]]]
    if len(step_m) > 1:  # people who touch
        width = depth_m.shape[1]
        below = np.flatnonzero(mesh[1:] != mesh[:-1])
        right = np.flatnonzero(mesh[:, 1:] != mesh[:, :-1])
        right += right // max(width - 1, 1)
        for one, other in ((below, below + width), (right, right + 1)):
            one_m, other_m = depth_m.take(one), depth_m.take(other)
            lines += [one[one_m <= other_m], other[other_m <= one_m]]
    return np.concatenate(lines)


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
