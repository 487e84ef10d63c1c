"""Training samples of the detector: parts of synthetic pictures, letterboxed as the runtime does it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from jotr_deploy.datasets.synthetic.outdoors import crease, foliage_in_front
from jotr_deploy.datasets.synthetic.places import ROOMS, Places, moved_outdoors, without_people
from jotr_deploy.datasets.synthetic.render import render
from jotr_deploy.datasets.synthetic.scene import Scene, SceneOptions, draw_scene
from jotr_deploy.datasets.synthetic.scene_crops import picture
from jotr_deploy.datasets.synthetic.visibility import THING
from jotr_deploy.geometry.boxes import mirrored
from jotr_deploy.runtime.finding.detection.letterbox import boxes_on_canvas, fitted_size_px, letterbox
from jotr_deploy.support.aliases import Array

MOST_PEOPLE = 4
LEAST_VISIBLE = 0.2
"""Visible share from which a person counts; detections of people with less are neither rewarded nor penalised."""
PERSON, IGNORED, NOBODY = 1, -1, 0
_LEAST_PART = 0.5  # of a side of the picture
_COLOUR = 0.25
_OUTDOOR_SIZES_PX = ((480, 360), (360, 480), (324, 576))
_TWIGS, _CREASED = 0.25, 0.6  # shares of the outdoor pictures


@dataclass(frozen=True)
class Picture:
    """Picture of a scene, drawn once."""

    image_bgr: Array  # (H, W, 3) uint8
    boxes_px: Array  # (P, 4) tight, also beyond the picture
    person: Array  # (H, W) int8, number of the visible person; negative for none
    silhouette_px: Array  # (P,) pixels of each silhouette, hidden ones included; infinite for invisible people


def draw_picture(seed: int, number: int, places: Places = ROOMS) -> Picture:
    """Draw the picture of a scene."""
    rng = np.random.default_rng([seed, number, 7])  # apart from that of the scene
    outdoors, empty = places.draw(rng)
    options = SceneOptions(_OUTDOOR_SIZES_PX[int(rng.integers(len(_OUTDOOR_SIZES_PX)))]) if outdoors else SceneOptions()
    scene = draw_scene(seed, number, options)
    if outdoors:
        scene = moved_outdoors(rng, scene)
    drawn = _without_people(scene) if empty else _with_people(scene)
    if outdoors and rng.random() < _CREASED:
        crease(rng, drawn.image_bgr, drawn.person >= 0)
    if outdoors and rng.random() < _TWIGS:
        drawn.person[foliage_in_front(rng, drawn.image_bgr)] = THING
    return drawn


def _with_people(scene: Scene) -> Picture:
    rendered, labels = picture(scene)
    person = rendered.person.astype(np.int8)
    seen_px = np.bincount(person[person >= 0], minlength=len(labels.boxes_px))
    with np.errstate(divide="ignore", invalid="ignore"):
        silhouette_px = np.where(labels.visible_fraction > 0, seen_px / labels.visible_fraction, np.inf)
    return Picture(rendered.image_bgr, labels.boxes_px, person, silhouette_px)


def _without_people(scene: Scene) -> Picture:
    rendered = render(without_people(scene))
    return Picture(rendered.image_bgr, np.zeros((0, 4), np.float32), rendered.person.astype(np.int8), np.zeros(0))


def vary(
    rng: np.random.Generator, whole: Picture, parts: float, size_px: tuple[int, int], worn: float = 0.0
) -> dict[str, Array]:
    """Augmented picture or, with probability `parts`, part of it: recoloured, and mirrored half of the time.

    With probability `worn` it is also as photographs often are: blurred, sharpened, sampled coarsely, compressed.

    Returns:
        image (3, H, W) uint8 BGR on a canvas of `size_px`; boxes (G, 4) on it, from its edge; kind (G,).
    """
    height, width = whole.image_bgr.shape[:2]
    (x0, x1), (y0, y1) = (0, width), (0, height)
    if rng.random() < parts:
        (x0, x1), (y0, y1) = _part(rng, width), _part(rng, height)
    image, shown = whole.image_bgr[y0:y1, x0:x1], whole.person[y0:y1, x0:x1]
    last = np.array([x1 - x0, y1 - y0, x1 - x0, y1 - y0]) - 0.5
    boxes_px = np.clip(whole.boxes_px - (x0, y0, x0, y0), -0.5, last)
    if rng.random() < 0.5:
        image, boxes_px = image[:, ::-1], mirrored(boxes_px, x1 - x0)
    colour = rng.uniform(1 - _COLOUR, 1 + _COLOUR, 3) * rng.uniform(1 - _COLOUR, 1 + _COLOUR)
    image = np.clip(image * colour.astype(np.float32), 0, 255).astype(np.uint8)
    if worn and rng.random() < worn:
        image = _worn(rng, image)
    return _sample(whole, image, shown, boxes_px, size_px)


def unvaried(whole: Picture, size_px: tuple[int, int]) -> dict[str, Array]:
    """Picture as the runtime is given it; as from `vary`, and extent (2,), its width and height on the canvas."""
    height, width = whole.image_bgr.shape[:2]
    boxes_px = np.clip(whole.boxes_px, -0.5, np.array([width, height, width, height]) - 0.5)
    sample = _sample(whole, whole.image_bgr, whole.person, boxes_px, size_px)
    return {**sample, "extent": np.array(fitted_size_px((width, height), size_px), np.float32)}


def _sample(whole: Picture, image: Array, shown: Array, boxes_px: Array, size_px: tuple[int, int]) -> dict[str, Array]:
    """Part of a picture on the canvas; `shown` are the numbers of the people in it, `boxes_px` (P, 4) theirs."""
    canvas, scale = letterbox(image, size_px)
    boxes, kind = np.zeros((MOST_PEOPLE, 4), np.float32), np.full(MOST_PEOPLE, NOBODY, np.int8)
    count = len(boxes_px)
    boxes[:count] = boxes_on_canvas(boxes_px, scale)
    seen = np.bincount(shown[shown >= 0], minlength=count) / np.maximum(whole.silhouette_px, 1)  # of a speck it is 0
    kind[:count] = np.where(seen < LEAST_VISIBLE, IGNORED, PERSON)
    kind[(boxes[:, 2:] - boxes[:, :2]).min(1) < 1] = NOBODY
    return {"image": np.ascontiguousarray(canvas.transpose(2, 0, 1)), "boxes": boxes, "kind": kind}


def _worn(rng: np.random.Generator, image: Array) -> Array:
    """The image with some of the faults of photographs, at its own size."""
    height, width = image.shape[:2]
    harsh = (image.astype(np.float32) - 128) * rng.uniform(0.6, 1.6) + rng.uniform(90, 160)
    image = np.clip(harsh, 0, 255).astype(np.uint8)
    how = rng.random()
    if how < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.8))
    elif how < 0.5:
        image = cv2.addWeighted(image, 2.0, cv2.GaussianBlur(image, (0, 0), 1.0), -1.0, 0)
    elif how < 0.8:  # every so many pixels, as if a far larger picture had been reduced without smoothing
        share = rng.uniform(0.4, 0.9)
        few = cv2.resize(image, None, fx=share, fy=share, interpolation=cv2.INTER_NEAREST)
        image = cv2.resize(few, (width, height), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.5:
        _, packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 80))])
        image = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))
    return image


def _part(rng: np.random.Generator, side: int) -> tuple[int, int]:
    length = int(rng.integers(int(_LEAST_PART * side), side + 1))
    first = int(rng.integers(0, side - length + 1))
    return first, first + length
