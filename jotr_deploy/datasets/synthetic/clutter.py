"""Clutter of outdoor pictures: trees, bushes, posts, fences, stands, heaps, balls and grass, drawn flat.

Each is drawn from where it stands, around the height that a person standing there would have, so that neither size nor
place tells it from one.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from jotr_deploy.datasets.synthetic.materials import log_uniform, random_colour
from jotr_deploy.support.aliases import Array

_SHARES = (0.3, 0.18, 0.1, 0.08, 0.08, 0.1, 0.06, 0.1)  # of the kinds below


def clutter(rng: np.random.Generator, image: Array, foot: Array, tall_px: float) -> None:
    """Draw one thing in place: it stands at `foot` (2,), where a person would be `tall_px` tall."""
    kinds: tuple[Callable[..., None], ...] = (_tree, _bush, _post, _fence, _stand, _heap, _ball, _grass)
    kinds[int(rng.choice(len(kinds), p=_SHARES))](rng, image, foot, tall_px)


def _pixel(place: Array) -> tuple[int, int]:
    x, y = np.round(place).astype(int).tolist()
    return x, y


def greens(rng: np.random.Generator) -> Array:
    """(3,) BGR of foliage: mostly green, sometimes of autumn, sometimes any colour."""
    kind = rng.random()
    if kind > 0.9:
        return random_colour(rng)
    low, high = ((0.02, 0.1, 0.05), (0.3, 0.55, 0.4)) if kind < 0.7 else ((0.0, 0.15, 0.2), (0.2, 0.5, 0.7))
    return rng.uniform(low, high).astype(np.float32)


def leaves(
    rng: np.random.Generator, image: Array, centre: Array, spread: Array, count: int, colour: Array, long_px: float
) -> None:
    """Leaves around a place, lighter and darker ones, with what is behind them between."""
    places = centre + rng.normal(0, 0.5, (count, 2)) * spread
    angle, long = rng.uniform(0, 2 * np.pi, count), long_px * rng.uniform(0.4, 1.3, count)
    along = np.stack([np.cos(angle), np.sin(angle)], 1) * long[:, None]
    across = along[:, ::-1] * (1, -1) * rng.uniform(0.2, 0.6, (count, 1))
    corners = np.stack([places + along, places + across, places - along, places - across], 1)
    corners = np.round(corners * 16).astype(np.int32)
    light = np.exp(rng.normal(0, 0.45, (count, 1))) * np.where(rng.random((count, 1)) < 0.12, 2.2, 1.0)
    colours = np.clip(255 * colour * light * rng.uniform(0.8, 1.2, (count, 3)), 0, 255)
    for each, tint in zip(corners, colours.tolist(), strict=True):
        cv2.fillConvexPoly(image, each, tint, cv2.LINE_8, 4)


def branch(
    rng: np.random.Generator,
    image: Array,
    start: Array,
    towards: Array,
    thick_px: float,
    more: int,
    colour: Array,
    long_px: float,
) -> None:
    """A branch from a place, with thinner ones on it and leaves at the ends."""
    end = start + towards
    middle = (start + end) / 2 + rng.normal(0, 0.07, 2) * np.hypot(*towards)
    bark = (255 * rng.uniform(0.05, 0.35) * np.array([0.7, 0.85, 1.0])).tolist()
    for first, last in ((start, middle), (middle, end)):
        ends = np.round(np.clip([first, last], -1e4, 1e4)).astype(int).tolist()
        cv2.line(image, ends[0], ends[1], bark, max(round(thick_px), 1), cv2.LINE_AA)
    long = float(np.hypot(*towards))
    if more == 0 or long < 3:
        leaves(rng, image, end, np.full(2, long * rng.uniform(0.5, 1.1)), int(rng.integers(10, 70)), colour, long_px)
        return
    for _ in range(int(rng.integers(2, 5))):
        at = start + towards * rng.uniform(0.45, 1.0)
        turn = rng.normal(0, 0.6)
        turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ towards
        branch(rng, image, at, turned * rng.uniform(0.45, 0.8), thick_px * 0.6, more - 1, colour, long_px)


def _tree(rng: np.random.Generator, image: Array, foot: Array, tall_px: float) -> None:
    tall = tall_px * log_uniform(rng, 0.7, 3.0)
    trunk = np.array([rng.normal(0, 0.08), -1.0]) * tall * rng.uniform(0.35, 0.7)
    bare = rng.random() < 0.15
    leaf_px = 0.0 if bare else max(tall_px * log_uniform(rng, 0.01, 0.06), 1.0)
    branch(rng, image, foot, trunk, tall * rng.uniform(0.015, 0.06), 3, greens(rng), leaf_px)


def _bush(rng: np.random.Generator, image: Array, foot: Array, tall_px: float) -> None:
    """A bush about as large as a person."""
    tall = tall_px * log_uniform(rng, 0.5, 1.5)
    colour, wide = greens(rng), tall * log_uniform(rng, 0.25, 1.2)
    for _ in range(int(rng.integers(3, 9))):
        at = foot + rng.uniform((-0.4, -0.9), (0.4, -0.1)) * (wide, tall)
        spread = rng.uniform(0.25, 0.6, 2) * (wide, tall * 0.6)
        shade = colour * np.float32(rng.uniform(0.6, 1.3))
        count, long_px = int(rng.integers(60, 250)), max(tall_px * log_uniform(rng, 0.01, 0.05), 1)
        leaves(rng, image, at, spread, count, shade, long_px)


def _post(rng: np.random.Generator, image: Array, foot: Array, tall_px: float) -> None:
    """A post, a bin, a pillar or a signboard: upright boxes one on the other."""
    wide, at = tall_px * log_uniform(rng, 0.02, 0.4), foot
    for _ in range(int(rng.integers(1, 4))):
        half = np.array([wide * rng.uniform(0.3, 1.0), tall_px * rng.uniform(0.1, 0.6)]) / 2
        colour = 255 * random_colour(rng)
        (left, top), (right, bottom) = _pixel(at - (half[0], 2 * half[1])), _pixel(at - (-half[0], 0))
        cv2.rectangle(image, (left, top), (right, bottom), colour.tolist(), -1)
        edge = int(left + (right - left) * rng.uniform(0.3, 0.8))
        cv2.rectangle(image, (edge, top), (right, bottom), (colour * rng.uniform(0.4, 0.9)).tolist(), -1)
        at = at - (rng.normal(0, 0.1) * wide, 2 * half[1])


def _fence(rng: np.random.Generator, image: Array, foot: Array, tall_px: float) -> None:
    """Upright bars with rails, across the picture."""
    tall, step = tall_px * rng.uniform(0.4, 1.3), max(tall_px * log_uniform(rng, 0.05, 0.5), 3.0)
    colour, thick = (255 * random_colour(rng)).tolist(), max(round(step * rng.uniform(0.08, 0.5)), 1)
    slope, left = rng.normal(0, 0.05), foot[0] - rng.uniform(0, 1) * image.shape[1]
    right = min(left + rng.uniform(0.2, 1) * image.shape[1], image.shape[1])
    for x in np.arange(left, right, step):
        base = foot[1] + slope * (x - foot[0])
        cv2.line(image, (int(x), int(base)), (int(x), int(base - tall)), colour, thick)
    for up in rng.uniform(0.05, 1, int(rng.integers(1, 4))):
        rows = [int(foot[1] + slope * (x - foot[0]) - up * tall) for x in (left, right)]
        cv2.line(image, (int(left), rows[0]), (int(right), rows[1]), colour, max(thick // 2, 1))


def _stand(rng: np.random.Generator, image: Array, foot: Array, tall_px: float) -> None:
    """A tripod, a ladder or a bicycle: thin lines between a few places."""
    tall = tall_px * rng.uniform(0.5, 1.2)
    top = foot - (0, tall)
    colour, thick = (255 * random_colour(rng) * 0.6).tolist(), max(round(tall * log_uniform(rng, 0.008, 0.03)), 1)
    places = [top, *(foot + rng.uniform((-0.35, -0.2), (0.35, 0.05)) * tall for _ in range(int(rng.integers(2, 6))))]
    for one in places[1:]:
        other = places[0] if rng.random() < 0.7 else places[int(rng.integers(len(places)))]
        cv2.line(image, _pixel(other), _pixel(one), colour, thick, cv2.LINE_AA)
    if rng.random() < 0.6:
        cv2.circle(image, _pixel(top), max(int(tall * rng.uniform(0.03, 0.09)), 1), colour, -1)


def _heap(rng: np.random.Generator, image: Array, foot: Array, tall_px: float) -> None:
    """Rounded pieces like limbs and cloth, joined at random: coats on a hook, bags, pipes, a statue's rubble."""
    at = foot - (0, tall_px * rng.uniform(0, 0.6))
    colours = [255 * random_colour(rng) for _ in range(int(rng.integers(1, 4)))]
    for _ in range(int(rng.integers(2, 9))):
        end = at + rng.normal(0, 0.2, 2) * tall_px
        thick = max(round(tall_px * log_uniform(rng, 0.03, 0.2)), 1)
        colour = colours[int(rng.integers(len(colours)))] * rng.uniform(0.7, 1.1)
        cv2.line(image, _pixel(at), _pixel(end), colour.tolist(), thick, cv2.LINE_AA)
        at = end if rng.random() < 0.6 else at


def _ball(rng: np.random.Generator, image: Array, foot: Array, tall_px: float) -> None:
    """A ball, a lamp or a round sign; as large as a head, or larger."""
    radius = max(int(tall_px * log_uniform(rng, 0.04, 0.25)), 1)
    at = np.round(foot - (0, tall_px * rng.uniform(0, 1))).astype(int)
    colour = 255 * random_colour(rng)
    for share in (1.0, 0.75, 0.45):
        moved = at - int(radius * (1 - share) * 0.5)
        lighter = (colour * (1.25 - 0.5 * share)).tolist()
        cv2.circle(image, moved.tolist(), int(radius * share), lighter, -1, cv2.LINE_AA)


def _grass(rng: np.random.Generator, image: Array, foot: Array, tall_px: float) -> None:
    """Blades of grass or reeds."""
    count, wide = int(rng.integers(60, 400)), tall_px * log_uniform(rng, 0.3, 3.0)
    colour, tall = greens(rng), tall_px * log_uniform(rng, 0.08, 0.7)
    low = foot + rng.normal(0, 1, (count, 2)) * (wide, tall * 0.15)
    high = low - np.stack([rng.normal(0, 0.3, count), rng.uniform(0.4, 1.0, count)], 1) * tall
    ends = np.round(np.stack([low, high], 1)).astype(int).tolist()
    for (first, last), light in zip(ends, np.exp(rng.normal(0, 0.4, count)), strict=True):
        cv2.line(image, first, last, np.clip(255 * colour * light, 0, 255).tolist(), 1)
