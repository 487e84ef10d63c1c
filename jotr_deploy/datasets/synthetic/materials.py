"""Materials of surfaces: two colours in a pattern, and a grain. Evaluated at points, so at any resolution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from jotr_deploy.support.aliases import Array

PLAIN, STRIPES, CHECKS, DOTS, BLOTCHES = range(5)
_LATTICE = 32  # cells of the repeating noise along each axis


@dataclass(frozen=True)
class Material:
    """Material of a surface. Colours are BGR in 0..1; points are in metres in the object's own frame."""

    colours: Array  # (2, 3) float32
    pattern: int
    axes: Array  # (3, 2) float32, periods per metre along u and v
    phase: Array  # (2,) float32
    share: float  # how much of the pattern has the second colour, 0..1
    grain: float  # amplitude of the changes in brightness
    grain_per_m: float  # cells of noise in a metre
    offset: Array  # (3,) float32 where in the noise


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Random number between low and high, as likely below their geometric mean as above."""
    return low * (high / low) ** float(rng.random())


def random_colour(rng: np.random.Generator) -> Array:
    """(3,) float32 BGR: often a grey, a navy or a beige, sometimes any colour."""
    hue, bright, vivid, spread = rng.random(4).tolist()
    saturation = (0.08 if vivid < 0.35 else 0.35 if vivid < 0.7 else 0.8) * (0.5 + 0.7 * spread)
    wheel = [0.5 + 0.5 * math.cos(2 * math.pi * (hue + third / 3)) for third in range(3)]
    return np.array([(0.05 + 0.9 * bright) * (1 - saturation * (1 - each)) for each in wheel], np.float32)


def random_material(
    rng: np.random.Generator, period_m: tuple[float, float], plain: float, colour: Array | None = None
) -> Material:
    """Material with a random pattern; `plain` is the probability of none."""
    first = random_colour(rng) if colour is None else colour
    second = first * rng.uniform(0.3, 0.8) if rng.random() < 0.4 else random_colour(rng)
    pattern = PLAIN if rng.random() < plain else int(rng.integers(1, 5))
    density = 1 / log_uniform(rng, *period_m)
    turn = rng.random() * math.pi if rng.random() < 0.3 else rng.integers(2) * math.pi / 2
    u, v = -math.sin(turn) * density, math.cos(turn) * density
    places = rng.random(5, np.float32)
    return Material(
        colours=np.array([first, second], np.float32),
        pattern=pattern,
        axes=np.array([[u, v], [v, -u], [0, density / 2]], np.float32),
        phase=places[:2],
        share=rng.uniform(0.2, 0.6),
        grain=rng.uniform(0.02, 0.22),
        grain_per_m=log_uniform(rng, 0.4, 8.0) / period_m[1],
        offset=places[2:] * _LATTICE,
    )


def paint(material: Material, points: Array) -> Array:
    """(3, N) float32 points -> (3, N) float32 BGR in 0..1 before light."""
    bright = 1 + material.grain * noise(points, material.grain_per_m, material.offset)
    first, second = material.colours[:, :, None]
    if material.pattern == PLAIN:
        return first * bright
    colour = first + (second - first) * _second_colour(material, points)
    colour *= bright
    return colour


def _second_colour(material: Material, points: Array) -> Array:
    """(N,) share of the second colour, 0 or 1 but for soft borders."""
    if material.pattern == BLOTCHES:
        density = 2 * float(np.abs(material.axes).max())
        return np.clip(0.5 + 2 * noise(points, density, material.offset) + 5 * (material.share - 0.5), 0, 1)
    wave = np.cos(np.float32(2 * np.pi) * (material.axes.T @ points + material.phase[:, None]))
    border = np.float32(np.cos(np.pi * material.share))
    if material.pattern == STRIPES:
        return np.clip(0.5 + 3 * (wave[0] - border), 0, 1)
    if material.pattern == DOTS:
        return np.clip(0.5 + 2 * (wave[0] + wave[1] - 1 - border), 0, 1)
    return np.clip(0.5 + 3 * wave[0] * wave[1], 0, 1)


def noise(points: Array, per_m: float, offset: Array) -> Array:
    """(3, N) float32 -> (N,) float32, about normal of deviation 0.5: smooth, it repeats every 32 cells."""
    cells = points * np.float32(per_m) + offset[:, None]
    low = np.floor(cells)
    cells -= low
    fx, fy, fz = cells
    corner = low.astype(np.int32)
    x, y, z = corner & (_LATTICE - 1)
    x1, y1, z1 = (corner + 1) & (_LATTICE - 1)
    lattice = _noise_lattice()
    x, x1, y, y1 = x * _LATTICE**2, x1 * _LATTICE**2, y * _LATTICE, y1 * _LATTICE

    def along_z(row: Array) -> Array:
        first = lattice.take(row + z)
        return first + fz * (lattice.take(row + z1) - first)

    near, far = along_z(x + y), along_z(x1 + y)
    near += fy * (along_z(x + y1) - near)
    far += fy * (along_z(x1 + y1) - far)
    return near + fx * (far - near)


@cache
def _noise_lattice() -> Array:
    """Flat (32, 32, 32) float32; between the points it is flatter, which the deviation here makes up for."""
    lattice = np.random.default_rng(1).normal(0, 0.8, _LATTICE**3).astype(np.float32)
    lattice.setflags(write=False)
    return lattice


@cache
def noise_tile() -> Array:
    """(512, 512, 3) float32 independent normal numbers, a process's store of camera noise."""
    tile = np.random.default_rng(2).standard_normal((512, 512, 3), np.float32)
    tile.setflags(write=False)
    return tile


def smooth_field(grid: Array, centre: Array, step: Array, size_px: tuple[int, int]) -> Array:
    """A coarse grid (h, w, 3) seen at size_px: pixel (0, 0) at grid position `centre`, `step` cells a pixel."""
    affine = np.array([[step[0], 0, centre[0]], [0, step[1], centre[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(grid, affine, size_px, flags=flags, borderMode=cv2.BORDER_REFLECT)
