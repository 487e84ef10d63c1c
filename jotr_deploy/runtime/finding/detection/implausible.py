"""Plausibility checks of a network's outputs: signs that a file only looks like the assumed format."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jotr_deploy.support.aliases import Array

_ROUNDING = 0.01  # excess over 0..1 that half precision and int8 may leave
_MOST = 0.5  # fraction of the values or boxes of an output
_LARGEST_SHARE = 2.0  # boxes may extend beyond the image


def odd_scores(scores: Array) -> str | None:
    """Reason that scores of any shape are not in 0..1, such as logits or pixels; None if they are."""
    finite = scores[np.isfinite(scores)]
    low, high = float(finite.min(initial=0)), float(finite.max(initial=0))
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        return f"its scores go from {low:.3g} to {high:.3g}, not from 0 to 1"
    return None


def odd_pixels(boxes: Array, scores: Array, threshold: float) -> str | None:
    """Reason that boxes (N, 4) above the threshold are not corners in pixels, such as fractions; None if they are."""
    found = boxes[(scores > threshold) & np.isfinite(boxes).all(1)]
    if not len(found):
        return None
    if float(np.abs(found).max()) <= _LARGEST_SHARE:
        return "its boxes are fractions of the picture, not pixels"
    if (found[:, 2:] <= found[:, :2]).any(1).mean() > _MOST:
        return "its boxes end before they begin, as if the last two numbers were width and height"
    return None


def odd_numbers(outputs: Mapping[str, Array]) -> str | None:
    """Reason that outputs are mostly not finite, such as from an overflow in half precision; None if they are."""
    for name, answer in outputs.items():
        if answer.dtype.kind == "f" and answer.size and 1 - np.isfinite(answer).mean() > _MOST:
            return f"most values of {name} are NaN or infinite"
    return None


def odd_shares(boxes: Array, scores: Array, threshold: float) -> str | None:
    """Reason that boxes (N, 4) above the threshold are not fractions of the image; None if they are."""
    found = boxes[(scores > threshold) & np.isfinite(boxes).all(1)]
    if len(found) and float(np.abs(found).max()) > _LARGEST_SHARE:
        return "its boxes are in pixels, not fractions of the picture"
    return None
