"""Numbers that a network of a format cannot give: signs that a file only looks like that format."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_ROUNDING = 0.01  # that half precision and eight bits may leave beyond 0..1
_LARGEST_SHARE = 2.0  # boxes may reach beyond the picture


def odd_scores(scores: Array) -> str | None:
    """Scores of any shape that are no shares, such as logits or pixels; None where they are within 0..1."""
    finite = scores[np.isfinite(scores)]
    low, high = float(finite.min(initial=0)), float(finite.max(initial=0))
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        return f"its scores go from {low:.3g} to {high:.3g}, not from 0 to 1"
    return None


def odd_pixels(boxes: Array, scores: Array, threshold: float) -> str | None:
    """Boxes (N, 4) that should be in pixels and are shares of the picture, judged by those above the threshold."""
    found = boxes[(scores > threshold) & np.isfinite(boxes).all(1)]
    if len(found) and float(np.abs(found).max()) <= _LARGEST_SHARE:
        return "its boxes are shares of the picture, not pixels"
    return None


def odd_shares(boxes: Array, scores: Array, threshold: float) -> str | None:
    """Boxes (N, 4) that should be shares of the picture and are in pixels, judged by those above the threshold."""
    found = boxes[(scores > threshold) & np.isfinite(boxes).all(1)]
    if len(found) and float(np.abs(found).max()) > _LARGEST_SHARE:
        return "its boxes are in pixels, not shares of the picture"
    return None
