"""Outdoor backdrops: walls with windows, sky, paving and gravel, trees, hedges, fences, posts and other clutter.

They have what smooth backdrops lack and photographs are full of: foliage with light between the leaves, edges at every
scale, upright shapes as large as a person, and the spectrum of natural pictures. Nobody is in them.
"""

from __future__ import annotations

import numpy as np

from jotr_deploy.datasets.synthetic.backdrop import Backdrop
from jotr_deploy.datasets.synthetic.clutter import branch, clutter, greens, leaves
from jotr_deploy.datasets.synthetic.materials import log_uniform, random_colour
from jotr_deploy.datasets.synthetic.natural_noise import coloured, fraction, lit, natural_noise, scale
from jotr_deploy.datasets.synthetic.viewpoint import Camera
from jotr_deploy.support.aliases import Array

_TALL_M = 1.7  # of a person, by which clutter is sized
_LEAST_DROP = 1e-3  # of a ray that meets the ground


def outdoor_backdrop(rng: np.random.Generator, camera: Camera, size_px: tuple[int, int]) -> Backdrop:
    """Random outdoor backdrop of a picture of this size."""
    painting = outdoor_picture(rng, camera, size_px)
    return Backdrop(None, 0.0, (), (), float(rng.uniform(0, 0.8)), painting)


def outdoor_picture(rng: np.random.Generator, camera: Camera, size_px: tuple[int, int]) -> Array:
    """Picture (H, W, 3) uint8 BGR of an outdoor place that a camera looks at, without people."""
    wall_m = log_uniform(rng, 3.0, 25.0)
    image, edge_px = _walls(rng, camera, size_px, wall_m)
    _ground(rng, camera, image, wall_m)
    for distance_m in sorted(rng.uniform(2.0, wall_m, rng.poisson(3.5)), reverse=True):
        tall_px = camera.focal_px * _TALL_M / distance_m
        foot = np.array([rng.uniform(-0.1, 1.1) * size_px[0], edge_px + camera.focal_px * camera.height_m / distance_m])
        clutter(rng, image, foot, tall_px)
    if rng.random() < 0.5:
        _dapple(rng, image)
    return image


def foliage_in_front(rng: np.random.Generator, image: Array) -> Array:
    """Draw twigs in front of everything, in place; returns the mask (H, W) bool of the pixels that they cover."""
    before = image.copy()
    height, width = image.shape[:2]
    at = rng.uniform(0, 1, 2) * (width, height)
    start = at + rng.normal(0, 0.4, 2) * height
    branch(rng, image, start, at - start, max(height * 0.008, 1.0), 3, greens(rng), log_uniform(rng, 1.5, 6.0))
    covered: Array = (image != before).any(2)
    return covered


def crease(rng: np.random.Generator, image: Array, where: Array) -> None:
    """Uneven light on a part (H, W) bool of an image, in place, so that smoothness alone does not tell people."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    columns, rows = (each * np.float32(log_uniform(rng, 0.7, 6)) for each in (columns, rows))
    noise = natural_noise(rng, columns, rows)
    np.copyto(image, lit(image, 1 + rng.uniform(0.05, 0.4) * noise), where=where[..., None])


def _walls(rng: np.random.Generator, camera: Camera, size_px: tuple[int, int], wall_m: float) -> tuple[Array, float]:
    """Everything above the ground's far edge, all over the picture; and the row of the horizon."""
    width, height = size_px
    ahead = camera.camera_from_level @ np.array([0.0, 0.0, 1.0])
    horizon = float(camera.project_px(ahead)[1])
    foot = horizon + camera.focal_px * camera.height_m / wall_m
    columns, rows = (each.astype(np.float32) for each in np.meshgrid(np.arange(width), np.arange(height)))
    kind = rng.random()
    if kind < 0.35:  # sky, darker upwards, clouds
        noise = natural_noise(rng, columns * 0.5, rows * rng.uniform(0.5, 1.5))
        noise = noise * rng.uniform(0, 0.4) + (rows / height - 0.5) * rng.uniform(0, 1.5)
        pale = np.array([rng.uniform(0.6, 1), rng.uniform(0.6, 0.95), rng.uniform(0.5, 0.95)], np.float32)
        image = coloured(rng, noise, 0.4, pale)
        if rng.random() < 0.7:
            _skyline(rng, image, foot)
    elif kind < 0.85:
        image = _facade(rng, columns, rows, camera.focal_px / wall_m, foot)
    else:  # a hedge or a wood, right across
        image = coloured(rng, natural_noise(rng, columns, rows), 0.3, greens(rng))
        leaves(rng, image, np.array([width / 2, height / 3]), np.array([width, height / 2]), 1500, greens(rng), 3.0)
    return image, horizon


def _skyline(rng: np.random.Generator, image: Array, foot: float) -> None:
    """Silhouette of far trees or roofs."""
    height, width = image.shape[:2]
    columns = np.arange(width, dtype=np.float32)[None]
    line = natural_noise(rng, columns * rng.uniform(0.5, 3), np.zeros_like(columns))[0]
    top = foot - height * (rng.uniform(0.05, 0.5) + rng.uniform(0.01, 0.08) * line)
    if rng.random() < 0.4:
        top = np.repeat(top[::24], 24)[:width]
    below = np.arange(height)[:, None] > top
    rows, places = np.mgrid[:height, :width].astype(np.float32)
    painted = coloured(rng, natural_noise(rng, places, rows), 0.35, greens(rng) if rng.random() < 0.6 else None)
    np.copyto(image, painted, where=below[..., None])


def _facade(rng: np.random.Generator, columns: Array, rows: Array, px_per_m: float, foot: float) -> Array:
    """Wall of slabs, bricks or boards with windows and doors, seen at an angle."""
    height, width = columns.shape
    slant = np.float32(1 / px_per_m) / np.maximum(1 + np.float32(rng.normal(0, 0.35)) * (columns / width - 0.5), 0.3)
    across, up = (columns - width / 2) * slant, (np.float32(foot) - rows) * slant
    noise = natural_noise(rng, across * log_uniform(rng, 10, 120), up * log_uniform(rng, 10, 120))
    image = coloured(rng, noise, rng.uniform(0.03, 0.3))
    slab = np.array([log_uniform(rng, 0.2, 3), log_uniform(rng, 0.08, 1.2)], np.float32)
    shifted, courses = across / slab[0], up / slab[1]
    if rng.random() < 0.6:
        shifted += 0.5 * (np.floor(courses) % 2)
    joint = log_uniform(rng, 0.01, 0.06)
    line = (fraction(courses) * slab[1] < joint) | (fraction(shifted) * slab[0] < joint)
    scale(image, line, rng.uniform(0.4, 1.2))
    if rng.random() < 0.75:
        _windows(rng, image, across, up, noise)
    light = 1 + rng.normal(0, 0.2) * (columns / width - 0.5) + rng.normal(0, 0.2) * (rows / height - 0.5)
    return lit(image, light)


def _windows(rng: np.random.Generator, image: Array, across: Array, up: Array, noise: Array) -> None:
    """Rows of windows, mostly dark, with frames."""
    every = np.array([log_uniform(rng, 1.2, 5), log_uniform(rng, 2.0, 4.5)], np.float32)
    opening, frame = every * rng.uniform(0.25, 0.75, 2).astype(np.float32), log_uniform(rng, 0.03, 0.12)
    shifts = rng.random(2, np.float32)
    from_middle = [
        np.abs(fraction(each / period + shift) * period - wide / 2) - wide / 2
        for each, period, shift, wide in zip((across, up), every, shifts, opening, strict=True)
    ]
    outside = np.maximum(*from_middle)
    image[outside < 0] = np.clip(255 * random_colour(rng), 0, 255)
    glass = coloured(rng, noise, 0.3, random_colour(rng) * np.float32(0.35))
    np.copyto(image, glass, where=(outside < -frame)[..., None])


def _ground(rng: np.random.Generator, camera: Camera, image: Array, wall_m: float) -> None:
    """Paving, gravel or grass from the camera to the wall, in perspective."""
    height, width = image.shape[:2]
    right, down, ahead = camera.camera_from_level.astype(np.float32)
    x = ((np.arange(width) - camera.principal_px[0]) / camera.focal_px).astype(np.float32)
    y = ((np.arange(height) - camera.principal_px[1]) / camera.focal_px).astype(np.float32)[:, None]
    drop = x * right[1] + y * down[1] + ahead[1]
    far = np.float32(camera.height_m) / np.maximum(drop, _LEAST_DROP)
    along = (x * right[2] + y * down[2] + ahead[2]) * far
    here = (drop > _LEAST_DROP) & (along < wall_m) & (along > 0)
    first = int(here.any(1).argmax())
    if not here[first].any():
        return
    across = ((x * right[0] + y * down[0] + ahead[0]) * far)[first:]
    along, here, seen = along[first:], here[first:], image[first:]
    for edge_m in (wall_m, *rng.uniform(1.5, wall_m, int(rng.integers(0, 2)))):  # a strip of another material
        per_m = log_uniform(rng, 15, 200)
        painted = coloured(rng, natural_noise(rng, across * per_m, along * per_m), rng.uniform(0.05, 0.4))
        if rng.random() < 0.5:
            turn, size_m = rng.uniform(0, np.pi), log_uniform(rng, 0.3, 2.0)
            c, s = np.float32(np.cos(turn) / size_m), np.float32(np.sin(turn) / size_m)
            from_joint = np.minimum(fraction(across * c + along * s), fraction(along * c - across * s))
            scale(painted, from_joint < 0.03 / size_m, rng.uniform(0.3, 0.9))
        np.copyto(seen, painted, where=(here & (along < edge_m))[..., None])


def _dapple(rng: np.random.Generator, image: Array) -> None:
    """Sun through leaves: patches of light and shadow."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    noise = natural_noise(rng, columns * rng.uniform(0.5, 3), rows * rng.uniform(1, 5))
    light = np.clip(0.5 + rng.uniform(1, 6) * (noise - rng.normal(0, 0.7)), 0, 1)
    np.copyto(image, lit(image, 1 - rng.uniform(0.1, 0.6) * light))
