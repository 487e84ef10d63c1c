"""Detected people drawn over their picture: boxes with scores, and joints."""

from __future__ import annotations

import cv2
import numpy as np

from jotr_deploy.skeletons import SMPL30_BONES
from jotr_deploy.support.aliases import Array
from jotr_deploy.visual.palette import person_colours


def draw_found(image_bgr: Array, boxes_px: Array, scores: Array, joints_px: Array | None = None) -> Array:
    """Draw everybody's box, score and joints into a copy of the picture.

    Args:
        image_bgr: (H, W, 3) uint8; not changed.
        boxes_px: (N, 4) x0 y0 x1 y1.
        scores: (N,) drawn at the boxes.
        joints_px: (N, 30, 3) x, y, confidence in the order of `SMPL30`; those with confidence 0 are not drawn.

    Returns:
        (H, W, 3) uint8.
    """
    picture = image_bgr.copy()
    size = max(picture.shape[:2])
    line, font = max(1, round(size / 600)), size / 1500
    for k, colour in enumerate(person_colours(np.full(len(boxes_px), -1))[:, ::-1].tolist()):
        x0, y0, x1, y1 = np.rint(np.clip(boxes_px[k], -30000, 30000)).astype(int).tolist()
        cv2.rectangle(picture, (x0, y0), (x1, y1), colour, 2 * line)
        at = (x0 + 3 * line, min(max(y0, 0) + round(34 * font), picture.shape[0] - 1))
        cv2.putText(picture, f"{scores[k]:.2f}", at, cv2.FONT_HERSHEY_SIMPLEX, font, colour, 2 * line, cv2.LINE_AA)
        if joints_px is not None:
            _draw_joints(picture, joints_px[k], colour, line)
    return picture


def _draw_joints(picture: Array, joints_px: Array, colour: list[int], line: int) -> None:
    there = (joints_px[:, 2] > 0) & np.isfinite(joints_px).all(1)
    points = np.rint(np.clip(np.nan_to_num(joints_px[:, :2]), -30000, 30000)).astype(int).tolist()
    for a, b in SMPL30_BONES:
        if there[a] and there[b]:
            cv2.line(picture, points[a], points[b], colour, 2 * line, cv2.LINE_AA)
    for point in np.flatnonzero(there):
        cv2.circle(picture, points[point], 2 * line + 1, (255, 255, 255), -1, cv2.LINE_AA)
        cv2.circle(picture, points[point], 2 * line, colour, -1, cv2.LINE_AA)
