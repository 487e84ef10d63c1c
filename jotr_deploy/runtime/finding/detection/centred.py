"""Shared input and decoding of YOLOv5, its successors and relatives: RGB in 0..1, letterboxed in the middle."""

from __future__ import annotations

import numpy as np

from jotr_deploy.runtime.finding import recognition
from jotr_deploy.runtime.finding.detection.letterbox import letterbox_centred
from jotr_deploy.runtime.sessions import Session
from jotr_deploy.support.aliases import Array


def answers(session: Session, image_bgr: Array, size_px: tuple[int, int]) -> tuple[dict[str, Array], Array, Array]:
    """Outputs for one image without the batch axis, floating-point ones as float32.

    Args:
        session: session of the network.
        image_bgr: (H, W, 3) uint8.
        size_px: width, height of the input.

    Returns:
        The outputs by name, and scale and offset as from `letterbox_centred`.
    """
    canvas, scale, left_top = letterbox_centred(image_bgr, size_px)
    rgb = canvas[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32) / 255
    out = {name: rows[0] for name, rows in recognition.in_batches(session, rgb).items()}
    return {name: in_float32(rows) for name, rows in out.items()}, scale, left_top


def in_float32(rows: Array) -> Array:
    """Floating-point arrays as float32; integer arrays unchanged."""
    return rows.astype(np.float32) if rows.dtype.kind == "f" else rows


def corners(centre_size: Array) -> Array:
    """(N, 4) centre and size -> (N, 4) x0 y0 x1 y1."""
    centre, size = centre_size[:, 0:2], centre_size[:, 2:4]
    both: Array = np.concatenate([centre - size / 2, centre + size / 2], 1)
    return both


def best_of(scores: Array, people: list[int]) -> Array:
    """Class scores (N, C) -> highest score (N,) among the person classes."""
    best: Array = scores[:, people].max(1)
    return best
