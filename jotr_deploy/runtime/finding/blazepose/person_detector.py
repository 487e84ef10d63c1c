"""BlazePose's detector: preparation of its input canvas, and decoding of its raw outputs into people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby

import cv2
import numpy as np

from jotr_deploy.geometry.boxes import iou
from jotr_deploy.runtime.finding.blazepose.windows import Window
from jotr_deploy.runtime.sessions import Session
from jotr_deploy.support.aliases import Array

SIDE = 224
STRIDES = (8, 16, 32, 32, 32)
ANCHORS_PER_LAYER = 2
LEAST_SCORE = 0.5
SAME_IOU = 0.3
MOST_AT_ONCE = 8
"""Largest batch of one call, which bounds memory."""


@dataclass(frozen=True)
class Found:
    """People found by the detector, highest score first, as parallel arrays over N; N may be 0."""

    scores: Array  # (N,) in 0..1
    rois_px: Array  # (N, 2, 2) midpoint of the hips, and the point above it on the circle around the whole body

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, chosen: Array) -> Found:
        return Found(self.scores[chosen], self.rois_px[chosen])

    @classmethod
    def joined(cls, *parts: Found) -> Found:
        """Concatenation of several."""
        return cls(
            np.concatenate([np.zeros(0), *(part.scores for part in parts)]),
            np.concatenate([np.zeros((0, 2, 2)), *(part.rois_px for part in parts)]),
        )

    def best_first(self) -> Found:
        """The same people sorted by score, highest first."""
        return self[np.argsort(-self.scores, kind="stable")]


class BlazeDetector:
    """Detector that finds people in several windows of an image in one call."""

    def __init__(self, session: Session) -> None:
        """Wrap a session; see `third_party.blazepose_wheel` for its tensors."""
        self.session = session

    def __call__(self, image_bgr: Array, windows: list[Window]) -> Found:
        """People in windows of an image (H, W, 3) uint8; a person seen in several windows is returned several times.

        Those of the first window come first, then those of all others, each group with the highest score first.
        """
        if not windows:
            return Found.joined()
        first, *others = (
            in_image(weighted_nms(*decode(boxes, logits)), window)
            for start in range(0, len(windows), MOST_AT_ONCE)
            for boxes, logits, window in self._raw(image_bgr, windows[start : start + MOST_AT_ONCE])
        )
        return Found.joined(first, Found.joined(*others).best_first())

    def _raw(self, image_bgr: Array, windows: list[Window]) -> Iterator[tuple[Array, Array, Window]]:
        outputs = self.session({"image": np.stack([window_canvas(image_bgr, window) for window in windows])})
        return zip(outputs["boxes"], outputs["logits"], windows, strict=True)


def window_canvas(image_bgr: Array, window: Window) -> Array:
    """Canvas for one window of an image; see `canvas`."""
    x, y = window.x_px, window.y_px
    drawn = canvas(image_bgr[y : y + window.height_px, x : x + window.width_px])
    return drawn[:, ::-1] if window.mirrored else drawn


def canvas(image_bgr: Array) -> Array:
    """Image resized into the middle of a black square: (224, 224, 3) float32 RGB in -1..1.

    Canvas coordinates are scaled to image coordinates without the half-pixel offset between centres and edges: the
    original does so, and a network that answers in its coordinates needs its pixels.
    """
    height, width = image_bgr.shape[:2]
    scale = max(height, width) / SIDE
    affine = np.array([[scale, 0, (width - scale * SIDE) / 2], [0, scale, (height - scale * SIDE) / 2]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    drawn = cv2.warpAffine(image_bgr, affine, (SIDE, SIDE), flags=flags)
    return drawn[..., ::-1].astype(np.float32) / np.float32(127.5) - np.float32(1)


@cache
def anchors() -> Array:
    """(2254, 2) x, y of every anchor, in 0..1: layers of equal stride share one grid, in row-major order."""
    parts = []
    for stride, layers in groupby(STRIDES):
        cells = SIDE // stride
        y, x = np.divmod(np.arange(cells * cells), cells)
        centres = (np.stack([x, y], -1) + 0.5) / cells
        parts.append(np.repeat(centres, ANCHORS_PER_LAYER * len(list(layers)), axis=0))
    return np.concatenate(parts)


def decode(boxes: Array, logits: Array) -> tuple[Array, Array]:
    """Decode the raw outputs of one canvas into candidates for people.

    Args:
        boxes: (2254, 12) centre and size of the face, then four points, canvas pixels relative to the anchor.
        logits: (2254, 1).

    Returns:
        Scores (M,) of at least `LEAST_SCORE`, highest first, and (M, 12): the face as x0 y0 x1 y1 and the four points,
        all as fractions of the canvas.
    """
    scores = 1 / (1 + np.exp(-np.clip(logits[:, 0].astype(np.float64), -100, 100)))
    kept = np.flatnonzero(scores >= LEAST_SCORE)
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    values = boxes[kept].astype(np.float64) / SIDE
    size = values[:, 2:4].copy()
    values += np.tile(anchors()[kept], 6)
    centre = values[:, :2].copy()
    values[:, :2], values[:, 2:4] = centre - size / 2, centre + size / 2
    return scores[kept], values


def weighted_nms(scores: Array, values: Array) -> tuple[Array, Array]:
    """Non-maximum suppression in which the best candidate becomes the score-weighted mean of those it suppresses.

    Args:
        scores: (M,), highest first.
        values: (M, 12) as `decode` returns them.

    Returns:
        Scores (K,) of the best candidates, unchanged, and (K, 12).
    """
    left, kept, merged = np.arange(len(scores)), [], []
    while len(left):
        alike = iou(values[left[:1], :4], values[left, :4])[0] > SAME_IOU
        alike[0] = True
        group = left[alike]
        kept.append(scores[group[0]])
        merged.append(np.average(values[group], axis=0, weights=scores[group]))
        left = left[~alike]
    return np.array(kept), np.array(merged).reshape(-1, 12)


def in_image(found: tuple[Array, Array], window: Window) -> Found:
    """Convert fractions of the canvas to pixels of the image that contains the window."""
    scores, values = found
    side = max(window.width_px, window.height_px)
    left_top = np.array([window.x_px, window.y_px]) + (np.array([window.width_px, window.height_px]) - side) / 2
    points = values[:, 4:8].reshape(-1, 2, 2)
    if window.mirrored:
        points = points * [-1, 1] + [(SIDE - 1) / SIDE, 0]
    return Found(scores, points * side + left_top)
