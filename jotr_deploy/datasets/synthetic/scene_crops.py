"""Crop of one person as the network sees them, drawn directly as the runtime would cut it from the picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from jotr_deploy.config import ModelConfig
from jotr_deploy.datasets.synthetic.labels import Labels, bodies, joints_px, labels, labels_in
from jotr_deploy.datasets.synthetic.render import Rendered, rendered, shade, window_view
from jotr_deploy.datasets.synthetic.scene import Scene
from jotr_deploy.datasets.synthetic.viewpoint import View, whole_picture
from jotr_deploy.datasets.synthetic.visibility import Traced, trace
from jotr_deploy.geometry.crop import crop_from_image, square_box, transform_px
from jotr_deploy.support.aliases import Array

_MARGIN_PX = 8  # the blur of the lens and the interpolation of the crop look beyond its box


@dataclass(frozen=True)
class Crop:
    """Training crop. Labels, joints and boxes are in pixels of the picture."""

    image_bgr: Array  # (S, S, 3) uint8, black outside the picture
    own: Array  # (S, S) uint8, how much of a pixel is this person and nothing before them, 0..255
    box_px: Array  # (4,) float32 square: crop_from_image(box_px, S) leads to the crop
    labels: Labels  # of this person, P = 1; parts outside the crop are not visible
    people_joints_px: Array  # (P, 30, 2) float32 of everybody, in the scene's order
    people_boxes_px: Array  # (P, 4) float32 of everybody, within a few mm of the tight ones


def crop(
    scene: Scene,
    person: int,
    side: int,
    box_px: Array | None = None,
    margin: float = 1.0,
    crop_factor: float = ModelConfig().crop_factor,
) -> Crop:
    """Draw one person's crop with labels, without the rest of the picture.

    A box of up to `side` picture pixels is drawn pixel for pixel as in the whole picture and then enlarged as the
    runtime does it; a larger one is drawn directly at the crop's resolution.

    Args:
        scene: scene of the person.
        person: number of the person.
        side: pixels of the crop.
        box_px: (4,) square box; by default `square_box` of the tight box.
        margin: the crop shows this many times the side of the box.
        crop_factor: of the network that is to see it, see `square_box`.
    """
    known = bodies(scene, np.array([person]))
    box = square_box(known.boxes_px[0], crop_factor) if box_px is None else np.asarray(box_px, np.float32)
    box = box + np.float32((margin - 1) / 2) * (box[2] - box[0]) * np.array([-1, -1, 1, 1], np.float32)
    affine = crop_from_image(box, side)
    if box[2] - box[0] <= side:
        view = _pixels_of(box, scene.size_px)
        traced = trace(scene, view)
        crop_from_view = affine.copy()
        crop_from_view[:, 2] += affine[:, :2] @ (view.x_px, view.y_px)
        image, own = (
            cv2.warpAffine(each, crop_from_view, (side, side), flags=cv2.INTER_LINEAR)
            for each in (shade(scene, view, traced), _own(traced, person))
        )
    else:
        view, (x, y) = window_view(box, side, scene.size_px)
        traced = trace(scene, view)
        image, own = np.zeros((side, side, 3), np.uint8), np.zeros((side, side), np.uint8)
        at = slice(y, y + view.size_px[1]), slice(x, x + view.size_px[0])
        image[at], own[at] = shade(scene, view, traced), _own(traced, person)
    found = labels_in(scene, np.array([person]), known, view, traced)
    in_crop = transform_px(affine, known.joints_px)
    found.joints_visible[...] &= ((in_crop >= 0) & (in_crop < side)).all(-1)
    coarse_px = scene.camera.project_px(scene.coarse_m)
    boxes = np.concatenate([coarse_px.min(1), coarse_px.max(1)], 1).astype(np.float32)
    return Crop(image, own, box, found, joints_px(scene), boxes)


def _own(traced: Traced, person: int) -> Array:
    """(h, w) uint8 of a traced view, see `Crop.own`: the mean of a pixel's four samples."""
    samples = traced.owner(traced.layer) == person
    height, width = samples.shape
    share: Array = samples.reshape(height // 2, 2, width // 2, 2).mean((1, 3))
    return (255 * share).astype(np.uint8)


def picture(scene: Scene) -> tuple[Rendered, Labels]:
    """Whole picture and all labels, faster than `render` and `labels` in sequence."""
    view = whole_picture(scene.size_px)
    traced = trace(scene, view)
    return rendered(scene, view, traced), labels(scene, traced)


def _pixels_of(box_px: Array, size_px: tuple[int, int]) -> View:
    """Pixels of the picture under a box and around it, at least one."""
    last = np.array(size_px) - 1
    first = np.clip(np.floor(box_px[:2]) - _MARGIN_PX, 0, last).astype(int)
    end = np.clip(np.ceil(box_px[2:]) + _MARGIN_PX, first, last).astype(int) + 1
    return View(float(first[0]), float(first[1]), 1.0, (int(end[0] - first[0]), int(end[1] - first[1])))
