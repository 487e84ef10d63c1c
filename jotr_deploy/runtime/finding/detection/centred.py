"""Detectors that take RGB in 0..1, letterboxed in the middle: what YOLOv5, its successors and relatives share."""

from __future__ import annotations

import numpy as np

from jotr_deploy.runtime.finding import recognition
from jotr_deploy.runtime.finding.detection.letterbox import letterbox_centred
from jotr_deploy.runtime.sessions import Session
from jotr_deploy.support.aliases import Array


def answers(session: Session, image_bgr: Array, size_px: tuple[int, int]) -> tuple[dict[str, Array], Array, Array]:
    """The outputs for one picture without their batch, in float32 where they are fractions.

    Args:
        session: of the network.
        image_bgr: (H, W, 3) uint8.
        size_px: width, height of the input.

    Returns:
        The outputs by name, and scale and place of `letterbox_centred`.
    """
    canvas, scale, left_top = letterbox_centred(image_bgr, size_px)
    rgb = canvas[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32) / 255
    out = {name: rows[0] for name, rows in recognition.in_batches(session, rgb).items()}
    return {name: in_float32(rows) for name, rows in out.items()}, scale, left_top


def in_float32(rows: Array) -> Array:
    """Fractions of any width in float32; whole numbers as they are."""
    return rows.astype(np.float32) if rows.dtype.kind == "f" else rows


def corners(centre_size: Array) -> Array:
    """(N, 4) centre and size -> (N, 4) x0 y0 x1 y1."""
    centre, size = centre_size[:, 0:2], centre_size[:, 2:4]
    both: Array = np.concatenate([centre - size / 2, centre + size / 2], 1)
    return both


def best_of(scores: Array, people: list[int]) -> Array:
    """(N, C) scores of classes -> (N,) the highest of those that are people."""
    best: Array = scores[:, people].max(1)
    return best
