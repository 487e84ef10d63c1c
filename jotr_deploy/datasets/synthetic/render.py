"""Pixels of a scene: the whole picture, or any window of it at any resolution at the cost of the window."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from jotr_deploy.datasets.synthetic.backdrop import draw_backdrop
from jotr_deploy.datasets.synthetic.lights import light_on
from jotr_deploy.datasets.synthetic.materials import noise_tile, paint
from jotr_deploy.datasets.synthetic.scene import Lens, Scene
from jotr_deploy.datasets.synthetic.skinning import Mesh, normals
from jotr_deploy.datasets.synthetic.solids import placed_normals, unit_mesh
from jotr_deploy.datasets.synthetic.viewpoint import View, whole_picture
from jotr_deploy.datasets.synthetic.visibility import BACKGROUND, Layer, Traced, trace
from jotr_deploy.datasets.synthetic.wardrobe import paint_person
from jotr_deploy.support.aliases import Array

ONE_SURFACE_M = 0.04  # samples of a pixel that differ less in depth are one surface


@dataclass(frozen=True)
class Rendered:
    """Picture with depth and person of each pixel."""

    image_bgr: Array  # (h, w, 3) uint8
    depth_m: Array  # (h, w) float32, inf where there is nothing
    person: Array  # (h, w) int16: number of the person, -1 background, -2 thing


def render(scene: Scene, window_px: Array | None = None, side: int | None = None) -> Rendered:
    """Draw a scene.

    Args:
        scene: what to draw.
        window_px: x0, y0, x1, y1 of a square of the picture, of which x0 comes to lie on pixel 0 and x1 on pixel
            `side`, as in `geometry.crop.crop_from_image`. Beyond the picture it is black. None: the whole picture.
        side: pixels of the window's side.
    """
    if window_px is None:
        view = whole_picture(scene.size_px)
        return rendered(scene, view, trace(scene, view))
    if side is None:
        raise ValueError("a window needs a side")
    view, (x, y) = window_view(window_px, side, scene.size_px)
    part = rendered(scene, view, trace(scene, view))
    whole = Rendered(
        np.zeros((side, side, 3), np.uint8),
        np.full((side, side), np.inf, np.float32),
        np.full((side, side), BACKGROUND, np.int16),
    )
    at = slice(y, y + view.size_px[1]), slice(x, x + view.size_px[0])
    whole.image_bgr[at], whole.depth_m[at], whole.person[at] = part.image_bgr, part.depth_m, part.person
    return whole


def window_view(window_px: Array, side: int, size_px: tuple[int, int]) -> tuple[View, tuple[int, int]]:
    """View of the part of a window inside the picture, at least one pixel, and its position (x, y) in the window."""
    x0, y0, x1, _ = (float(value) for value in window_px)
    step = (x1 - x0) / side
    start, count = [], []
    for low, size in zip((x0, y0), size_px, strict=True):
        first = int(np.clip(np.ceil((-0.5 - low) / step), 0, side - 1))
        last = int(np.clip(np.floor((size - 0.5 - low) / step), first, side - 1))
        start.append(first)
        count.append(last - first + 1)
    view = View(x0 + start[0] * step, y0 + start[1] * step, step, (count[0], count[1]))
    return view, (start[0], start[1])


def rendered(scene: Scene, view: View, traced: Traced) -> Rendered:
    """The picture of a traced view; depth and person are those of a quarter pixel up and left of its centre."""
    return Rendered(shade(scene, view, traced), traced.depth_m[::2, ::2], traced.owner(traced.layer[::2, ::2]))


def shade(scene: Scene, view: View, traced: Traced) -> Array:
    """(h, w, 3) uint8 BGR picture of a traced view."""
    things = [layer.vertices_m for layer in traced.layers if layer.owner < 0]
    light = scene.lights.towards_level
    image = draw_backdrop(scene.backdrop, scene.camera, light, [*scene.coarse_m, *things], view, scene.size_px)
    if traced.layers:
        _draw_layers(scene, traced, image)
    return _through_lens(scene.lens, image, view)


def _draw_layers(scene: Scene, traced: Traced, image: Array) -> None:
    """Draw people and objects over the backdrop (h, w, 3).

    A pixel whose four samples see one surface gets the colour at its centre, any other the mean of its samples.
    """
    quarters = [(row, column) for row in (0, 1) for column in (0, 1)]
    layer, depth, face = (
        [np.ascontiguousarray(every[row::2, column::2]).ravel() for row, column in quarters]
        for every in (traced.layer, traced.depth_m, traced.face)
    )
    covered = np.flatnonzero(np.maximum(np.maximum(layer[0], layer[1]), np.maximum(layer[2], layer[3])) >= 0)
    layer, depth, face = ([each[covered] for each in every] for every in (layer, depth, face))
    near, far = np.minimum.reduce(depth), np.maximum.reduce(depth)
    whole = (layer[0] == layer[1]) & (layer[0] == layer[2]) & (layer[0] == layer[3]) & (far - near < ONE_SURFACE_M)
    inner = np.flatnonzero(whole)
    edge = [np.flatnonzero(~whole & (each >= 0)) for each in layer]
    part = np.concatenate([inner, *edge])
    y, x = np.divmod(covered[part], image.shape[1])
    x, y = 2 * x, 2 * y
    counts = len(inner), *(len(each) for each in edge)
    shift = np.repeat(np.array([(0.5, 0.5), *((column, row) for row, column in quarters)]), counts, axis=0)
    colours = _colours(
        scene,
        traced,
        np.concatenate([each[some] for each, some in zip((layer[0], *layer), (inner, *edge), strict=True)]),
        np.concatenate([each[some] for each, some in zip((face[0], *face), (inner, *edge), strict=True)]),
        np.stack([x + shift[:, 0], y + shift[:, 1]]).astype(np.float32),
    ).T
    pixels = image.reshape(-1, 3)
    mixed = pixels[covered]
    mixed *= (1 - 0.25 * np.sum([each >= 0 for each in layer], axis=0))[:, None].astype(np.float32)
    mixed[inner] = colours[: len(inner)]
    start = len(inner)
    for some in edge:
        mixed[some] += 0.25 * colours[start : start + len(some)]
        start += len(some)
    pixels[covered] = mixed


def _colours(scene: Scene, traced: Traced, layer: Array, face: Array, at: Array) -> Array:
    """(3, N) lit colour of the faces (N,) of the layers (N,) at places (2, N) in samples."""
    colours = np.empty((3, len(face)), np.float32)
    order = np.argsort(layer, kind="stable")
    ends = np.searchsorted(layer[order], np.arange(len(traced.layers) + 1))
    for number, each in enumerate(traced.layers):
        here = order[ends[number] : ends[number + 1]]
        if not len(here):
            continue
        corners = each.faces.T.take(face[here] - each.first_face, 1)
        own, outwards = _surface(each)
        at_vertex = np.concatenate([own.T, light_on(scene.lights, outwards).T])
        weights = _weights(each.samples.T.astype(np.float32), corners, at.take(here, 1))
        values = sum(at_vertex.take(corner, 1) * weight for corner, weight in zip(corners, weights, strict=True))
        colours[:, here] = _painted(scene, each, values[:3]) * values[3:]
    return colours


def _surface(layer: Layer) -> tuple[Array, Array]:
    """Vertices in the frame of the body at rest or of the thing, and unit normals in the camera frame; (V, 3) each."""
    source = layer.source
    if isinstance(source, Mesh):
        return source.template_m, normals(source, layer.vertices_m)
    return (unit_mesh(source.kind).points * source.half_m).astype(np.float32), placed_normals(source)


def _painted(scene: Scene, layer: Layer, points: Array) -> Array:
    if isinstance(layer.source, Mesh):
        return paint_person(scene.outfits[layer.owner], points)
    return paint(layer.source.material, points)


def _weights(samples: Array, corners: Array, at: Array) -> Array:
    """(3, N) float32 perspective-correct weights of corners (3, N) among samples (3, V) at places (2, N)."""
    x, y, z = (each.take(corners) for each in samples)
    x -= at[0]
    y -= at[1]
    area = np.stack([x[1] * y[2] - x[2] * y[1], x[2] * y[0] - x[0] * y[2], x[0] * y[1] - x[1] * y[0]])
    # Outside the image is y down: a face seen from outside runs counter-clockwise, its areas are negative.
    weights = np.maximum(-area, np.float32(1e-12)) / z
    normalised: Array = weights / weights.sum(0)
    return normalised


def _through_lens(lens: Lens, image: Array, view: View) -> Array:
    """Apply blur, noise and exposure; (h, w, 3) uint8."""
    if lens.blur_px / view.step > 0.2:
        image = cv2.GaussianBlur(image, (0, 0), lens.blur_px / view.step)
    tile = noise_tile()
    columns, rows = (
        (np.round(axis).astype(np.int64) + first) % len(tile)
        for axis, first in zip(view.picture_px(), lens.noise_at, strict=True)
    )
    grain = tile.take(rows, 0).take(columns, 1)
    strength = 255 * lens.noise * min(1.0, 1.0 / view.step)  # several picture pixels in one: less
    noisy = cv2.addWeighted(image, 255, grain, strength, 0, dtype=cv2.CV_8U)
    levels = (np.arange(256, dtype=np.float32) / 255)[:, None] ** lens.gamma * lens.gain
    curve = np.clip(np.round(levels * 255), 0, 255).astype(np.uint8)[None]
    return cv2.LUT(noisy, curve)
