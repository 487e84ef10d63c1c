"""Noise with the spectrum of natural pictures, and surfaces painted with it."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from jotr_deploy.datasets.synthetic.materials import random_colour
from jotr_deploy.support.aliases import Array

_TILE = 512  # side of the stored noise in pixels
_SLOPES = (0.7, 1.0, 1.3, 1.7)  # amplitude falls with frequency to this power; natural pictures: about 1


@cache
def _tiles() -> Array:
    """(N, 512, 512) float32 noise of deviation 1, a process's store; it tiles."""
    rng = np.random.default_rng(3)
    across, down = np.fft.rfftfreq(_TILE), np.fft.fftfreq(_TILE)
    frequency = np.maximum(np.hypot(across, down[:, None]), 1 / _TILE)
    tiles = []
    for slope in _SLOPES:
        spectrum = np.fft.rfft2(rng.standard_normal((_TILE, _TILE))) / frequency**slope
        spectrum[0, 0] = 0
        tile = np.fft.irfft2(spectrum, s=(_TILE, _TILE))
        tiles.append((tile / tile.std()).astype(np.float32))
    stored = np.stack(tiles)
    stored.setflags(write=False)
    return stored


def natural_noise(rng: np.random.Generator, columns: Array, rows: Array) -> Array:
    """(h, w) float32 noise at texture places (h, w) each."""
    tile = _tiles()[int(rng.integers(len(_SLOPES)))]
    shifts = rng.random(2, np.float32)
    x, y = (
        fraction(each * np.float32(1 / _TILE) + shift) * np.float32(_TILE - 1)
        for each, shift in zip((columns, rows), shifts, strict=True)
    )
    sampled: Array = cv2.remap(tile, x, y, cv2.INTER_LINEAR)
    return sampled


def fraction(periods: Array) -> Array:
    """Fractional part; np.mod takes many times as long."""
    parts: Array = periods - np.floor(periods)
    return parts


def coloured(rng: np.random.Generator, noise: Array, strength: float, colour: Array | None = None) -> Array:
    """(h, w, 3) uint8 BGR: a colour whose brightness follows the noise, and a little of its hue."""
    first = random_colour(rng) if colour is None else colour
    second = first * rng.uniform(0.2, 0.8) if rng.random() < 0.8 else random_colour(rng)
    share = np.linspace(0, 1, 256)[:, None]
    palette = np.clip(255 * (first + (second - first) * share), 0, 255).astype(np.uint8)
    places = cv2.convertScaleAbs(np.maximum(noise * np.float32(strength) + np.float32(0.5), 0), alpha=255)
    painted: Array = palette.take(places, 0)
    return painted


def lit(image: Array, light: Array) -> Array:
    """Brightness of (h, w, 3) uint8 multiplied by (h, w)."""
    return cv2.multiply(image, cv2.merge([light.astype(np.float32)] * 3), dtype=cv2.CV_8U)


def scale(image: Array, where: Array, factor: float) -> None:
    """Multiply the brightness of some pixels (h, w) bool of (h, w, 3) uint8, in place."""
    if where.any():  # OpenCV returns None for an empty array
        image[where] = cv2.convertScaleAbs(image[where], alpha=factor)
