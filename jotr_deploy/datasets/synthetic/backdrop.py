"""Backdrops: a room in perspective or a collage of smooth noise, with shapes on it, and shadows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from jotr_deploy.datasets.synthetic.materials import (
    Material,
    log_uniform,
    paint,
    random_colour,
    random_material,
    smooth_field,
)
from jotr_deploy.datasets.synthetic.viewpoint import Camera, View
from jotr_deploy.support.aliases import Array

_SHADOW_PX = 4  # picture pixels in a cell of the shadow's grid
_DENSE = 300  # a mesh of this many vertices casts its shadow by points, one of fewer by their hull
_FAR_CELLS = 10000
_SHIFT = 4  # binary digits of a polygon's corners after the point


@dataclass(frozen=True)
class Backdrop:
    """Backdrop: a room has floor, wall and their light; a collage only its colour fields; or it is a painting."""

    room: tuple[Material, Material] | None  # floor, wall
    wall_z_m: float
    fields: tuple[Array, ...]  # (h, w, 3) float32 each, spread over the picture and added up
    polygons: tuple[tuple[Array, Array], ...]  # corners (n, 2) in picture pixels, BGR in 0..1
    shadow: float  # how dark, 0..1
    painting: Array | None = None  # (H, W, 3) uint8 BGR of the whole picture, in place of all but the shadows


def random_backdrop(rng: np.random.Generator, size_px: tuple[int, int], farthest_m: float) -> Backdrop:
    """Random backdrop for people who stand no farther than `farthest_m`."""
    is_room = rng.random() < 0.6
    room, fields = None, []
    if is_room:
        room = _muted(rng, (0.15, 1.2), 0.4), _muted(rng, (0.1, 1.5), 0.6)
        fields = [np.repeat(rng.normal(0.9, 0.25, (3, 4, 1)).clip(0.4, 1.4), 3, 2)]
    else:
        first, second = random_colour(rng), random_colour(rng)
        mixture = rng.random((3, 4, 1)) + 0.2 * rng.normal(0, 1, (3, 4, 3))
        fields = [first + mixture * (second - first)]
        for cells, strength in ((8, 0.25), (24, 0.18), (80, 0.12)):
            rows = cells * 3 // 4
            grey = rng.standard_normal((rows, cells, 1)) + rng.uniform(0, 0.5) * rng.standard_normal((rows, cells, 3))
            fields.append(grey * (strength * rng.random() ** 2))
    return Backdrop(
        room=room,
        wall_z_m=farthest_m + float(rng.exponential(3.0)) + 0.7,
        fields=tuple(field.astype(np.float32) for field in fields),
        polygons=tuple(_random_polygon(rng, size_px) for _ in range(rng.poisson(4 if is_room else 7))),
        shadow=float(rng.uniform(0, 0.6)),
    )


def _muted(rng: np.random.Generator, period_m: tuple[float, float], plain: float) -> Material:
    """Muted colour for floors and walls, which are paler than clothes."""
    material = random_material(rng, period_m, plain)
    pale = rng.uniform(0.0, 0.7) * (rng.uniform(0.3, 0.9) - material.colours)
    return replace(material, colours=(material.colours + pale).astype(np.float32), grain_per_m=log_uniform(rng, 1, 30))


def _random_polygon(rng: np.random.Generator, size_px: tuple[int, int]) -> tuple[Array, Array]:
    """A rectangle, a bar or line, or an ellipse."""
    kind = rng.random()
    half = np.array([log_uniform(rng, 0.0075, 0.15) * size_px[0] for _ in range(2)])
    turn = rng.normal(0, 0.05) if rng.random() < 0.6 else rng.uniform(0, np.pi)
    if kind < 0.35:
        half[rng.integers(2)] = rng.uniform(0.5, 3)
    angle = np.arange(20) * (2 * np.pi / 20)
    corners = (
        np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) if kind < 0.8 else np.stack([np.cos(angle), np.sin(angle)], 1)
    )
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return corners * half @ rotation + rng.uniform(-0.05, 1.05, 2) * size_px, random_colour(rng)


def draw_backdrop(
    backdrop: Backdrop, camera: Camera, light: Array, casters_m: list[Array], view: View, picture_px: tuple[int, int]
) -> Array:
    """Draw the view without people and objects, but with their shadows.

    Args:
        backdrop: the place.
        camera: of the scene.
        light: (3,) towards the brightest light, level frame.
        casters_m: points (V, 3) of each object that casts a shadow, camera frame.
        view: pixels to draw.
        picture_px: width and height of the whole picture.

    Returns:
        (h, w, 3) float32 BGR in 0..1.
    """
    fields = [_spread(field, view, picture_px) for field in backdrop.fields]
    floor = None
    if backdrop.painting is not None:
        image = smooth_field(backdrop.painting, np.array([view.x_px, view.y_px]), np.full(2, view.step), view.size_px)
    elif backdrop.room is None:
        image = _bytes(np.sum(fields, axis=0))
    else:
        image, floor = _room(backdrop, camera, view)
        image = _bytes(image * fields[0])
    for corners_px, colour in backdrop.polygons:
        corners = np.round(view.from_picture(corners_px) * (1 << _SHIFT)).astype(np.int32)
        cv2.fillConvexPoly(image, corners, (255.0 * colour).tolist(), cv2.LINE_AA, _SHIFT)
    out = image.astype(np.float32) * np.float32(1 / 255)
    if light[1] < 0 and backdrop.shadow > 0:
        dark = backdrop.shadow * _shadow(camera, light, casters_m, view, picture_px)
        out *= (1 - (dark if floor is None else dark * floor))[..., None]
    return out


def _bytes(image: Array) -> Array:
    """0..1 -> uint8, as OpenCV smooths the edges of polygons in bytes only."""
    return np.clip(image * 255, 0, 255).astype(np.uint8)


def _spread(field: Array, view: View, picture_px: tuple[int, int]) -> Array:
    cells = (np.array(field.shape[1::-1]) - 1) / np.array(picture_px)
    return smooth_field(field, (view.x_px, view.y_px) * cells, view.step * cells, view.size_px)


def _room(backdrop: Backdrop, camera: Camera, view: View) -> tuple[Array, Array]:
    """Floor and wall (h, w, 3), and where the floor is (h, w) bool."""
    assert backdrop.room is not None
    columns, rows = view.picture_px()
    right, down, ahead = camera.camera_from_level.astype(np.float32)  # the camera's axes in the level frame
    x = ((columns - camera.principal_px[0]) / camera.focal_px).astype(np.float32)
    y = ((rows - camera.principal_px[1]) / camera.focal_px).astype(np.float32)
    ray = [x * right[axis] + (y * down[axis] + ahead[axis])[:, None] for axis in range(3)]
    to_wall = np.float32(backdrop.wall_z_m) / np.maximum(ray[2], 1e-3)
    to_floor = np.float32(camera.height_m) / np.maximum(ray[1], 1e-6)
    floor = to_floor < to_wall
    distance = np.minimum(to_floor, to_wall)
    points = np.stack([(each * distance).ravel() for each in ray])
    image = np.empty_like(points)
    for material, axes, part in ((backdrop.room[0], [0, 2, 1], floor), (backdrop.room[1], [0, 1, 2], ~floor)):
        here = np.flatnonzero(part)
        image[:, here] = paint(material, points[axes].take(here, 1))
    return cv2.merge(list(image.reshape(3, *floor.shape))), floor


def _shadow(camera: Camera, light: Array, casters_m: list[Array], view: View, picture_px: tuple[int, int]) -> Array:
    """(h, w) float32 0..1: soft shadows on the ground, from a grid over the whole picture so that all views agree."""
    width, height = (side // _SHADOW_PX + 1 for side in picture_px)
    grid = np.zeros((height, width), np.float32)
    for points_m in casters_m:
        level = points_m @ camera.camera_from_level
        level = level + light * ((camera.height_m - level[:, 1]) / light[1])[:, None]
        on_ground = level @ camera.camera_from_level.T
        cells = camera.project_px(on_ground[on_ground[:, 2] > 0.3]) / _SHADOW_PX
        if len(points_m) < _DENSE:
            corners = np.round(np.clip(cells, -_FAR_CELLS, _FAR_CELLS)).astype(np.int32)
            if len(corners):
                cv2.fillConvexPoly(grid, cv2.convexHull(corners), 1.0)
        else:
            inside = ((cells > 0) & (cells < (width - 1, height - 1))).all(1)
            x, y = np.round(cells[inside]).astype(np.int64).T
            grid[y, x] = 1.0
    soft = cv2.GaussianBlur(grid, (0, 0), 1.2)
    at = np.array([view.x_px, view.y_px]) / _SHADOW_PX
    step = np.full(2, view.step / _SHADOW_PX)
    return smooth_field(soft, at, step, view.size_px)
