"""Textures to cut patches from: drawn from a seed, or the pictures of a folder such as DTD.

Every picture is in crop pixels, RGB, its short side as long as the crop's. A patch is a window of one picture; seed
and a few integers determine picture and window, so that an attack can be replayed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from jotr_deploy.errors import SourceError
from jotr_deploy.runtime.sources.images import IMAGE_SUFFIXES, READ_FORMATS, natural_order, read_image
from jotr_deploy.support.aliases import Array

DRAWN = 64
MOST_READ = 512
"""Most pictures of a folder that are kept, chosen by the seed: more would only fill memory."""


@dataclass(frozen=True)
class Window:
    """Source of a patch: the number of its picture, and its first column and row there, crop pixels."""

    picture: int
    x_px: int
    y_px: int


@dataclass(frozen=True)
class Textures:
    """Pictures by name."""

    names: tuple[str, ...]
    pictures: Sequence[Array]  # (H, W, 3) uint8 RGB each, the short side is that of the crop
    source: str  # description, for messages
    skipped: tuple[str, ...] = ()  # files that cannot be read

    def window(self, key: Sequence[int], side_px: int) -> Window:
        """Random window of this side, determined by `key` alone."""
        rng = np.random.default_rng(list(key))
        number = int(rng.integers(len(self.pictures)))
        height, width = self.pictures[number].shape[:2]
        return Window(number, int(rng.integers(width - side_px + 1)), int(rng.integers(height - side_px + 1)))

    def patch(self, window: Window, width_px: int, height_px: int) -> Array:
        """(3, height, width) float32, RGB in 0..1 as crops are; a part of the window where a patch is clipped."""
        rows, columns = slice(window.y_px, window.y_px + height_px), slice(window.x_px, window.x_px + width_px)
        return self.pictures[window.picture][rows, columns].transpose(2, 0, 1).astype(np.float32) / np.float32(255)


def drawn_textures(seed: int, side_px: int, count: int = DRAWN) -> Textures:
    """Noise, stripes and blobs in turn, with the falling spectrum of natural pictures; equal seeds give equal bits."""
    kinds = (_noise, _stripes, _blobs)
    pictures, names = [], []
    for number in range(count):
        draw = kinds[number % len(kinds)]
        colours = draw(np.random.default_rng([seed, number]), side_px)
        pictures.append(np.rint(255 * np.clip(colours, 0, 1)).astype(np.uint8))
        names.append(f"{draw.__name__.strip('_')} {number}")
    return Textures(tuple(names), pictures, f"{count} drawn ones of seed {seed}: noise, stripes, blobs")


def read_textures(folder: Path, seed: int, side_px: int) -> Textures:
    """Pictures of a folder and its subfolders, at most `MOST_READ`.

    Raises:
        SourceError: no folder, no picture in it, or none that can be read.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder}: not a folder of textures", "give --textures a folder with pictures")
    paths = natural_order(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise SourceError(f"{folder}: holds no pictures", READ_FORMATS)
    found: dict[int, Array] = {}
    skipped = []
    for number in np.random.default_rng(seed).permutation(len(paths)).tolist():
        if len(found) == MOST_READ:
            break
        try:
            found[number] = _resized(read_image(paths[number], upright=True)[..., ::-1], side_px)
        except SourceError as error:
            skipped.append(error.cause)
    if not found:
        raise SourceError(f"{folder}: none of its pictures can be read", "save them as PNG or JPEG")
    numbers = sorted(found)
    names = tuple(paths[number].relative_to(folder).as_posix() for number in numbers)
    return Textures(
        names,
        [found[number] for number in numbers],
        f"{len(found)} of {len(paths)} pictures of {folder}",
        tuple(skipped),
    )


def _resized(image: Array, side_px: int) -> Array:
    """The short side becomes `side_px`; shrinking averages, so that fine texture does not turn into moire."""
    height, width = image.shape[:2]
    scale = side_px / min(height, width)
    size = max(side_px, round(width * scale)), max(side_px, round(height * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(image), size, interpolation=how))


def _field(rng: np.random.Generator, side_px: int, falling: float) -> Array:
    """(S, S) noise of mean 0 and deviation 1 whose amplitude falls with this power of the frequency, along a turned
    and stretched axis.
    """
    down, right = np.fft.fftfreq(side_px)[:, None], np.fft.rfftfreq(side_px)[None]
    turn, stretch = rng.uniform(0, np.pi), 2.0 ** rng.uniform(-1.5, 1.5)
    along, across = right * np.cos(turn) + down * np.sin(turn), down * np.cos(turn) - right * np.sin(turn)
    frequency = np.hypot(along * stretch, across / stretch)
    frequency[0, 0] = np.inf
    spectrum = rng.standard_normal((2, *frequency.shape)) * frequency**-falling
    field = np.fft.irfft2(spectrum[0] + 1j * spectrum[1], (side_px, side_px))
    return np.asarray((field - field.mean()) / field.std())


def _colours(rng: np.random.Generator, count: int) -> Array:
    """(count, 3) RGB in 0..1: greys, pale and vivid ones."""
    grey, vivid = rng.uniform(0.05, 0.95, (count, 1)), rng.uniform(0, 0.3, (count, 1))
    return np.asarray(np.clip(grey + vivid * rng.standard_normal((count, 3)), 0, 1))


def _grain(rng: np.random.Generator, side_px: int) -> Array:
    """(S, S, 1) changes in brightness about 1."""
    return 1 + rng.uniform(0.05, 0.25) * _field(rng, side_px, rng.uniform(0.5, 1.2))[..., None]


def _noise(rng: np.random.Generator, side_px: int) -> Array:
    """Natural noise in three correlated channels."""
    (colour,) = _colours(rng, 1)
    bright = _field(rng, side_px, rng.uniform(0.7, 1.6))[..., None]
    tint = np.stack([_field(rng, side_px, 1.2) for _ in range(3)], -1)
    return np.asarray(colour + rng.uniform(0.1, 0.3) * bright + rng.uniform(0, 0.12) * tint)


def _stripes(rng: np.random.Generator, side_px: int) -> Array:
    """Two colours in bent stripes, from 3 to 20 across the picture."""
    first, second = _colours(rng, 2)
    turn, waves = rng.uniform(0, np.pi), 3.0 * 7 ** rng.random()
    y, x = np.mgrid[:side_px, :side_px] / side_px
    phase = 2 * np.pi * waves * (x * np.cos(turn) + y * np.sin(turn))
    bent = phase + rng.uniform(0, 2) * _field(rng, side_px, 2)
    share = np.clip(0.5 + rng.uniform(0.5, 4) * np.cos(bent), 0, 1)[..., None]
    return np.asarray((first + share * (second - first)) * _grain(rng, side_px))


def _blobs(rng: np.random.Generator, side_px: int) -> Array:
    """Patches of three colours with clear borders."""
    first, second, third = _colours(rng, 3)
    sharp, falling = rng.uniform(2, 10), rng.uniform(1.3, 2.2)
    upper, lower = (np.clip(sharp * _field(rng, side_px, falling), 0, 1)[..., None] for _ in range(2))
    mixed = first + upper * (second - first)
    return np.asarray((mixed + lower * (third - mixed)) * _grain(rng, side_px))
