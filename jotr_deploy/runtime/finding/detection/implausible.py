"""Numbers that a network of a format cannot give: signs that a file only looks like that format."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jotr_deploy.support.aliases import Array

_ROUNDING = 0.01  # that half precision and eight bits may leave beyond 0..1
_MOST = 0.5  # of the numbers or boxes of an answer
_LARGEST_SHARE = 2.0  # boxes may reach beyond the picture


def odd_scores(scores: Array) -> str | None:
    """Scores of any shape that are no shares, such as logits or pixels; None where they are within 0..1."""
    finite = scores[np.isfinite(scores)]
    low, high = float(finite.min(initial=0)), float(finite.max(initial=0))
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        return f"its scores go from {low:.3g} to {high:.3g}, not from 0 to 1"
    return None


def odd_pixels(boxes: Array, scores: Array, threshold: float) -> str | None:
    """Corners (N, 4) that should be in pixels, judged by those above the threshold: shares of the picture, or sizes."""
    found = boxes[(scores > threshold) & np.isfinite(boxes).all(1)]
    if not len(found):
        return None
    if float(np.abs(found).max()) <= _LARGEST_SHARE:
        return "its boxes are shares of the picture, not pixels"
    if (found[:, 2:] <= found[:, :2]).any(1).mean() > _MOST:
        return "its boxes end before they begin, as where the last two numbers are width and height"
    return None


def odd_numbers(outputs: Mapping[str, Array]) -> str | None:
    """Answers of a network that are no numbers, such as those of one that half precision is too small for."""
    for name, answer in outputs.items():
        if answer.dtype.kind == "f" and answer.size and 1 - np.isfinite(answer).mean() > _MOST:
            return f"most numbers of {name} are NaN or infinite"
    return None


def odd_shares(boxes: Array, scores: Array, threshold: float) -> str | None:
    """Boxes (N, 4) that should be shares of the picture and are in pixels, judged by those above the threshold."""
    found = boxes[(scores > threshold) & np.isfinite(boxes).all(1)]
    if len(found) and float(np.abs(found).max()) > _LARGEST_SHARE:
        return "its boxes are in pixels, not shares of the picture"
    return None
