"""Upright crops of people: a square around the centre of an ROI, rotated so that its second point is above."""

from __future__ import annotations

import cv2
import numpy as np

from jotr_deploy.support.aliases import Array

SIDE = 256
MARGIN = 1.25
"""Side of the square relative to the diameter of the ROI's circle."""


def radii_px(rois_px: Array) -> Array:
    """(N,) radius of the circle around each person, for ROIs (N, 2, 2)."""
    length: Array = np.linalg.norm(rois_px[:, 1] - rois_px[:, 0], axis=-1)
    return length


def image_from_crop(rois_px: Array) -> Array:
    """(N, 2, 3) affines, `image_px = A @ [crop_px, 1]`, for ROIs (N, 2, 2) whose two points differ."""
    up = rois_px[:, 1] - rois_px[:, 0]
    down = -up * (2 * MARGIN / SIDE)  # in the image, for one crop pixel downward
    right = np.stack([-up[:, 1], up[:, 0]], -1) * (2 * MARGIN / SIDE)
    affine = np.stack([right, down, rois_px[:, 0] - (right + down) * (SIDE / 2)], -1)
    return affine


def cut(image_bgr: Array, image_from_crop: Array) -> Array:
    """(N, 256, 256, 3) float32 RGB crops in 0..1, bilinear; the image's edges are replicated, as in the original."""
    out = np.zeros((len(image_from_crop), SIDE, SIDE, 3), np.float32)
    for crop, affine in zip(out, image_from_crop, strict=True):
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        drawn = cv2.warpAffine(image_bgr, affine, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        np.divide(drawn[..., ::-1], np.float32(255), out=crop)
    return out
