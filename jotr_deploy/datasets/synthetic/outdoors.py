"""Outdoor backdrops: walls with windows, sky, paving and gravel, trees, hedges, fences, posts and other clutter.

They have what smooth backdrops lack and photographs are full of: foliage with light between the leaves, edges at every
scale, upright shapes as large as a person, and the spectrum of natural pictures. Nobody is in them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np

from jotr_deploy.datasets.synthetic.backdrop import Backdrop
from jotr_deploy.datasets.synthetic.materials import log_uniform, random_colour
from jotr_deploy.datasets.synthetic.viewpoint import Camera
from jotr_deploy.support.aliases import Array

TALL_M = 1.7
"""Height that upright clutter is drawn around, so that size alone does not tell it from a person."""
_TILE = 512  # side of the textures in pixels
_SLOPES = (0.7, 1.0, 1.3, 1.7)  # amplitude falls with frequency to this power; natural pictures: about 1
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
    makers: tuple[Callable[..., None], ...] = (_tree, _bush, _post, _fence, _stand, _heap, _ball, _grass)
    shares = np.array([0.3, 0.18, 0.1, 0.08, 0.08, 0.1, 0.06, 0.1])
    for distance_m in sorted(rng.uniform(2.0, wall_m, rng.poisson(3.5)), reverse=True):
        tall_px = camera.focal_px * TALL_M / distance_m
        foot = np.array([rng.uniform(-0.1, 1.1) * size_px[0], edge_px + camera.focal_px * camera.height_m / distance_m])
        makers[int(rng.choice(len(makers), p=shares))](rng, image, foot, tall_px)
    if rng.random() < 0.5:
        _dapple(rng, image)
    return image


def foliage_in_front(rng: np.random.Generator, image: Array) -> Array:
    """Draw twigs in front of everything, in place; returns the mask (H, W) bool of the pixels that they cover."""
    before = image.copy()
    height, width = image.shape[:2]
    at = rng.uniform(0, 1, 2) * (width, height)
    start = at + rng.normal(0, 0.4, 2) * height
    _branch(rng, image, start, at - start, max(height * 0.008, 1.0), 3, _greens(rng), log_uniform(rng, 1.5, 6.0))
    covered: Array = (image != before).any(2)
    return covered


def crease(rng: np.random.Generator, image: Array, where: Array) -> None:
    """Uneven light on a part (H, W) bool of an image, in place, so that smoothness alone does not tell people."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    noise = _texture(rng, columns * np.float32(log_uniform(rng, 0.7, 6)), rows * np.float32(log_uniform(rng, 0.7, 6)))
    np.copyto(image, _lit(image, 1 + rng.uniform(0.05, 0.4) * noise), where=where[..., None])


@cache
def _textures() -> Array:
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


def _texture(rng: np.random.Generator, columns: Array, rows: Array) -> Array:
    """(h, w) float32 noise at texture places (h, w) each."""
    tile = _textures()[int(rng.integers(len(_SLOPES)))]
    shifts = rng.random(2, np.float32)
    places = [_repeated(each * np.float32(1 / _TILE) + shift) for each, shift in zip((columns, rows), shifts, strict=True)]
    sampled: Array = cv2.remap(tile, *(each * np.float32(_TILE - 1) for each in places), cv2.INTER_LINEAR)
    return sampled


def _repeated(periods: Array) -> Array:
    """Fractional part; np.mod takes many times as long."""
    fraction: Array = periods - np.floor(periods)
    return fraction


def _coloured(rng: np.random.Generator, noise: Array, strength: float, colour: Array | None = None) -> Array:
    """(h, w, 3) uint8 BGR: a colour whose brightness follows the noise, and a little of its hue."""
    first = random_colour(rng) if colour is None else colour
    second = first * rng.uniform(0.2, 0.8) if rng.random() < 0.8 else random_colour(rng)
    share = np.linspace(0, 1, 256)[:, None]
    palette = np.clip(255 * (first + (second - first) * share), 0, 255).astype(np.uint8)
    places = cv2.convertScaleAbs(np.maximum(noise * np.float32(strength) + np.float32(0.5), 0), alpha=255)
    painted: Array = palette.take(places, 0)
    return painted


def _walls(
    rng: np.random.Generator, camera: Camera, size_px: tuple[int, int], wall_m: float
) -> tuple[Array, float]:
    """Everything above the ground's far edge, all over the picture; and the row of the horizon."""
    width, height = size_px
    ahead = camera.camera_from_level @ np.array([0.0, 0.0, 1.0])
    horizon = float(camera.project_px(ahead)[1])
    foot = horizon + camera.focal_px * camera.height_m / wall_m
    columns, rows = (each.astype(np.float32) for each in np.meshgrid(np.arange(width), np.arange(height)))
    kind = rng.random()
    if kind < 0.35:  # sky, darker upwards, clouds
        noise = _texture(rng, columns * 0.5, rows * rng.uniform(0.5, 1.5))
        noise = noise * rng.uniform(0, 0.4) + (rows / height - 0.5) * rng.uniform(0, 1.5)
        pale = np.array([rng.uniform(0.6, 1), rng.uniform(0.6, 0.95), rng.uniform(0.5, 0.95)], np.float32)
        image = _coloured(rng, noise, 0.4, pale)
        if rng.random() < 0.7:
            _skyline(rng, image, foot)
    elif kind < 0.85:
        image = _facade(rng, columns, rows, camera.focal_px / wall_m, foot)
    else:  # a hedge or a wood, right across
        image = _coloured(rng, _texture(rng, columns, rows), 0.3, _greens(rng))
        _leaves(rng, image, np.array([width / 2, height / 3]), np.array([width, height / 2]), 1500, _greens(rng), 3.0)
    return image, horizon


def _skyline(rng: np.random.Generator, image: Array, foot: float) -> None:
    """Silhouette of far trees or roofs."""
    height, width = image.shape[:2]
    columns = np.arange(width, dtype=np.float32)[None]
    line = _texture(rng, columns * rng.uniform(0.5, 3), np.zeros_like(columns))[0]
    top = foot - height * (rng.uniform(0.05, 0.5) + rng.uniform(0.01, 0.08) * line)
    if rng.random() < 0.4:
        top = np.repeat(top[::24], 24)[:width]
    below = np.arange(height)[:, None] > top
    rows, places = np.mgrid[:height, :width].astype(np.float32)
    painted = _coloured(rng, _texture(rng, places, rows), 0.35, _greens(rng) if rng.random() < 0.6 else None)
    np.copyto(image, painted, where=below[..., None])


def _facade(rng: np.random.Generator, columns: Array, rows: Array, px_per_m: float, foot: float) -> Array:
    """Wall of slabs, bricks or boards with windows and doors, seen at an angle."""
    height, width = columns.shape
    slant = np.float32(1 / px_per_m) / np.maximum(1 + np.float32(rng.normal(0, 0.35)) * (columns / width - 0.5), 0.3)
    across, up = (columns - width / 2) * slant, (np.float32(foot) - rows) * slant
    noise = _texture(rng, across * log_uniform(rng, 10, 120), up * log_uniform(rng, 10, 120))
    image = _coloured(rng, noise, rng.uniform(0.03, 0.3))
    slab = np.array([log_uniform(rng, 0.2, 3), log_uniform(rng, 0.08, 1.2)], np.float32)
    shifted, courses = across / slab[0], up / slab[1]
    if rng.random() < 0.6:
        shifted += 0.5 * (np.floor(courses) % 2)
    joint = log_uniform(rng, 0.01, 0.06)
    line = (_repeated(courses) * slab[1] < joint) | (_repeated(shifted) * slab[0] < joint)
    image[line] = cv2.convertScaleAbs(image[line], alpha=rng.uniform(0.4, 1.2))
    if rng.random() < 0.75:
        _windows(rng, image, across, up, noise)
    light = 1 + rng.normal(0, 0.2) * (columns / width - 0.5) + rng.normal(0, 0.2) * (rows / height - 0.5)
    return _lit(image, light)


def _windows(rng: np.random.Generator, image: Array, across: Array, up: Array, noise: Array) -> None:
    """Rows of windows, mostly dark, with frames."""
    every = np.array([log_uniform(rng, 1.2, 5), log_uniform(rng, 2.0, 4.5)], np.float32)
    opening, frame = every * rng.uniform(0.25, 0.75, 2).astype(np.float32), log_uniform(rng, 0.03, 0.12)
    shifts = rng.random(2, np.float32)
    from_middle = [
        np.abs(_repeated(each / period + shift) * period - wide / 2) - wide / 2
        for each, period, shift, wide in zip((across, up), every, shifts, opening, strict=True)
    ]
    outside = np.maximum(*from_middle)
    image[outside < 0] = np.clip(255 * random_colour(rng), 0, 255)
    glass = _coloured(rng, noise, 0.3, random_colour(rng) * np.float32(0.35))
    np.copyto(image, glass, where=(outside < -frame)[..., None])


def _lit(image: Array, light: Array) -> Array:
    """Brightness of (h, w, 3) uint8 multiplied by (h, w)."""
    return cv2.multiply(image, cv2.merge([light.astype(np.float32)] * 3), dtype=cv2.CV_8U)


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
        painted = _coloured(rng, _texture(rng, across * per_m, along * per_m), rng.uniform(0.05, 0.4))
        if rng.random() < 0.5:
            turn, size_m = rng.uniform(0, np.pi), log_uniform(rng, 0.3, 2.0)
            c, s = np.float32(np.cos(turn) / size_m), np.float32(np.sin(turn) / size_m)
            from_joint = np.minimum(_repeated(across * c + along * s), _repeated(along * c - across * s))
            joints = from_joint < 0.03 / size_m
            painted[joints] = cv2.convertScaleAbs(painted[joints], alpha=rng.uniform(0.3, 0.9))
        np.copyto(seen, painted, where=(here & (along < edge_m))[..., None])


def _greens(rng: np.random.Generator) -> Array:
    """(3,) BGR of foliage: mostly green, sometimes of autumn, sometimes any colour."""
    kind = rng.random()
    if kind > 0.9:
        return random_colour(rng)
    low, high = ((0.02, 0.1, 0.05), (0.3, 0.55, 0.4)) if kind < 0.7 else ((0.0, 0.15, 0.2), (0.2, 0.5, 0.7))
    return rng.uniform(low, high).astype(np.float32)


def _leaves(
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


def _branch(
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
        _leaves(rng, image, end, np.full(2, long * rng.uniform(0.5, 1.1)), int(rng.integers(10, 70)), colour, long_px)
        return
    for _ in range(int(rng.integers(2, 5))):
        at = start + towards * rng.uniform(0.45, 1.0)
        turn = rng.normal(0, 0.6)
        turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ towards
        _branch(rng, image, at, turned * rng.uniform(0.45, 0.8), thick_px * 0.6, more - 1, colour, long_px)


def _tree(rng: np.random.Generator, image: Array, foot: Array, tall_px: float) -> None:
    tall = tall_px * log_uniform(rng, 0.7, 3.0)
    trunk = np.array([rng.normal(0, 0.08), -1.0]) * tall * rng.uniform(0.35, 0.7)
    bare = rng.random() < 0.15
    leaf_px = 0.0 if bare else max(tall_px * log_uniform(rng, 0.01, 0.06), 1.0)
    _branch(rng, image, foot, trunk, tall * rng.uniform(0.015, 0.06), 3, _greens(rng), leaf_px)


def _bush(rng: np.random.Generator, image: Array, foot: Array, tall_px: float) -> None:
    """A bush about as large as a person."""
    tall = tall_px * log_uniform(rng, 0.5, 1.5)
    colour, wide = _greens(rng), tall * log_uniform(rng, 0.25, 1.2)
    for _ in range(int(rng.integers(3, 9))):
        at = foot + rng.uniform((-0.4, -0.9), (0.4, -0.1)) * (wide, tall)
        spread = rng.uniform(0.25, 0.6, 2) * (wide, tall * 0.6)
        shade = colour * np.float32(rng.uniform(0.6, 1.3))
        _leaves(rng, image, at, spread, int(rng.integers(60, 250)), shade, max(tall_px * log_uniform(rng, 0.01, 0.05), 1))


def _post(rng: np.random.Generator, image: Array, foot: Array, tall_px: float) -> None:
    """A post, a bin, a pillar or a signboard: upright boxes one on the other."""
    wide, at = tall_px * log_uniform(rng, 0.02, 0.4), foot
    for _ in range(int(rng.integers(1, 4))):
        half = np.array([wide * rng.uniform(0.3, 1.0), tall_px * rng.uniform(0.1, 0.6)]) / 2
        colour = 255 * random_colour(rng)
        low, high = (np.round(at + each).astype(int) for each in (np.array([-half[0], -2 * half[1]]), (half[0], 0)))
        cv2.rectangle(image, low.tolist(), high.tolist(), colour.tolist(), -1)
        lit = (int(low[0] + (high[0] - low[0]) * rng.uniform(0.3, 0.8)), int(low[1]))
        cv2.rectangle(image, lit, high.tolist(), (colour * rng.uniform(0.4, 0.9)).tolist(), -1)
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
        cv2.line(image, np.round(other).astype(int).tolist(), np.round(one).astype(int).tolist(), colour, thick, cv2.LINE_AA)
    if rng.random() < 0.6:
        cv2.circle(image, np.round(top).astype(int).tolist(), max(int(tall * rng.uniform(0.03, 0.09)), 1), colour, -1)


def _heap(rng: np.random.Generator, image: Array, foot: Array, tall_px: float) -> None:
    """Rounded pieces like limbs and cloth, joined at random: coats on a hook, bags, pipes, a statue's rubble."""
    at = foot - (0, tall_px * rng.uniform(0, 0.6))
    colours = [255 * random_colour(rng) for _ in range(int(rng.integers(1, 4)))]
    for _ in range(int(rng.integers(2, 9))):
        end = at + rng.normal(0, 0.2, 2) * tall_px
        thick = max(round(tall_px * log_uniform(rng, 0.03, 0.2)), 1)
        colour = colours[int(rng.integers(len(colours)))] * rng.uniform(0.7, 1.1)
        cv2.line(image, np.round(at).astype(int).tolist(), np.round(end).astype(int).tolist(), colour.tolist(), thick, cv2.LINE_AA)
        at = end if rng.random() < 0.6 else at


def _ball(rng: np.random.Generator, image: Array, foot: Array, tall_px: float) -> None:
    """A ball, a lamp or a round sign; as large as a head, or larger."""
    radius = max(int(tall_px * log_uniform(rng, 0.04, 0.25)), 1)
    at = np.round(foot - (0, tall_px * rng.uniform(0, 1))).astype(int)
    colour = 255 * random_colour(rng)
    for share in (1.0, 0.75, 0.45):
        moved = at - int(radius * (1 - share) * 0.5)
        cv2.circle(image, moved.tolist(), int(radius * share), (colour * (1.25 - 0.5 * share)).tolist(), -1, cv2.LINE_AA)


def _grass(rng: np.random.Generator, image: Array, foot: Array, tall_px: float) -> None:
    """Blades of grass or reeds."""
    count, wide = int(rng.integers(60, 400)), tall_px * log_uniform(rng, 0.3, 3.0)
    colour, tall = _greens(rng), tall_px * log_uniform(rng, 0.08, 0.7)
    low = foot + rng.normal(0, 1, (count, 2)) * (wide, tall * 0.15)
    high = low - np.stack([rng.normal(0, 0.3, count), rng.uniform(0.4, 1.0, count)], 1) * tall
    ends = np.round(np.stack([low, high], 1)).astype(int).tolist()
    for (first, last), light in zip(ends, np.exp(rng.normal(0, 0.4, count)), strict=True):
        cv2.line(image, first, last, np.clip(255 * colour * light, 0, 255).tolist(), 1)


def _dapple(rng: np.random.Generator, image: Array) -> None:
    """Sun through leaves: patches of light and shadow."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    noise = _texture(rng, columns * rng.uniform(0.5, 3), rows * rng.uniform(1, 5))
    light = np.clip(0.5 + rng.uniform(1, 6) * (noise - rng.normal(0, 0.7)), 0, 1)
    np.copyto(image, _lit(image, 1 - rng.uniform(0.1, 0.6) * light))
