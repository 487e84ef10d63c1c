"""BlazePose's landmark network, which finds the joints in upright crops of people."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jotr_deploy.geometry.crop import transform_px
from jotr_deploy.runtime.finding.blazepose.rotated_crops import SIDE, cut, image_from_crop
from jotr_deploy.runtime.sessions import Session
from jotr_deploy.support.aliases import Array

POINTS, BODY = 39, 33
"""Landmarks of the network; the first `BODY` are joints, the next two define the next ROI."""
KERNEL = 7
LEAST_PEAK = 0.5
MOST_AT_ONCE = 8
"""Largest batch of one call, which bounds memory."""


@dataclass(frozen=True)
class Poses:
    """People found by the landmark network, as parallel arrays over N; N may be 0."""

    points_px: Array  # (N, 39, 2), in the image
    confidence: Array  # (N, 39) visibility times presence
    flags: Array  # (N,) probability that this is a person, in 0..1

    def __len__(self) -> int:
        return len(self.flags)

    def __getitem__(self, chosen: Array) -> Poses:
        return Poses(self.points_px[chosen], self.confidence[chosen], self.flags[chosen])

    @classmethod
    def joined(cls, *parts: Poses) -> Poses:
        """Concatenation of several."""
        return cls(
            np.concatenate([np.zeros((0, POINTS, 2)), *(part.points_px for part in parts)]),
            np.concatenate([np.zeros((0, POINTS)), *(part.confidence for part in parts)]),
            np.concatenate([np.zeros(0), *(part.flags for part in parts)]),
        )

    def mean(self, other: Poses) -> Poses:
        """Mean of these and a second pass over the same people; the flags are those of the second pass."""
        confidence = (self.confidence + other.confidence) / 2
        return Poses((self.points_px + other.points_px) / 2, confidence, other.flags)

    @property
    def rois_px(self) -> Array:
        """(N, 2, 2) ROI in which to look for each person next."""
        return self.points_px[:, BODY : BODY + 2]

    @property
    def joints(self) -> Array:
        """(N, 33, 3) x, y and confidence, in the order of the skeleton "blazepose33"."""
        return np.concatenate([self.points_px, self.confidence[..., None]], -1)[:, :BODY]


class BlazeLandmarks:
    """Landmark network that finds the joints of several people of an image in one call."""

    def __init__(self, session: Session) -> None:
        """Wrap a session; see `third_party.blazepose_wheel` for its tensors."""
        self.session = session

    def __call__(self, image_bgr: Array, rois_px: Array) -> Poses:
        """Joints of the people in ROIs (N, 2, 2) of an image (H, W, 3) uint8."""
        parts = []
        for start in range(0, len(rois_px), MOST_AT_ONCE):
            affines = image_from_crop(np.asarray(rois_px[start : start + MOST_AT_ONCE], np.float64))
            outputs = self.session({"image": cut(image_bgr, affines)})
            parts.append(decode(outputs, affines))
        return Poses.joined(*parts)


def decode(outputs: dict[str, Array], image_from_crop: Array) -> Poses:
    """Convert raw outputs of N crops to joints in the image, given the affines (N, 2, 3) of the crops."""
    raw = outputs["landmarks"].reshape(-1, POINTS, 5).astype(np.float64)
    points = refined(raw[..., :2], outputs["heatmaps"])
    confidence = _sigmoid(raw[..., 3]) * _sigmoid(raw[..., 4])
    return Poses(transform_px(image_from_crop, points), confidence, outputs["flag"][:, 0].astype(np.float64))


def refined(points: Array, heatmaps: Array) -> Array:
    """Points (N, 39, 2), crop pixels, refined to the local weighted mean of their heat map (N, h, w, 39; logits).

    The mean is taken over the `KERNEL` x `KERNEL` cells around the point that lie on the map. A point outside its map,
    or with no value above `LEAST_PEAK` around it, is left unchanged.
    """
    height, width = heatmaps.shape[1:3]
    per_cell = np.array([SIDE / width, SIDE / height])
    cell = np.floor(points / per_cell)
    reach = np.arange(KERNEL) - KERNEL // 2
    x, y = cell[..., None, :1] + reach[:, None], cell[..., None, 1:] + reach[:, None]
    x, y = x[..., 0][..., None, :], y[..., 0][..., :, None]  # (N, 39, 1, 7) and (N, 39, 7, 1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    columns, rows = (np.clip(v, 0, n - 1).astype(int) for v, n in ((x, width), (y, height)))
    person, point = np.ogrid[: points.shape[0], : points.shape[1]]
    weights = _sigmoid(heatmaps[person[..., None, None], rows, columns, point[..., None, None]].astype(np.float64))
    weights *= inside
    total = weights.sum((-2, -1))
    mean = np.stack([(weights * x).sum((-2, -1)), (weights * y).sum((-2, -1))], -1)
    mean /= np.maximum(total, 1e-9)[..., None]
    on_map = ((cell >= 0) & (cell < (width, height))).all(-1)
    sure = on_map & (weights.max((-2, -1)) >= LEAST_PEAK)
    return np.where(sure[..., None], mean * per_cell, points)


def _sigmoid(logits: Array) -> Array:
    result: Array = 1 / (1 + np.exp(-np.clip(logits, -100, 100)))
    return result
