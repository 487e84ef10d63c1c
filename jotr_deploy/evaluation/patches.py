"""Square patches on a crop: the grid of the 3DPW-AdvOcc protocol.

Sizes and strides are in pixels of a crop of 224 px, as published, and scaled to the crop of the network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jotr_deploy.errors import JotrDeployError
from jotr_deploy.support.aliases import Array

REFERENCE_SIDE = 224
SIZES, STRIDE = (40, 80), 10
"""Patch sizes and stride of the published protocol, in pixels of the reference crop."""


@dataclass(frozen=True)
class PatchGrid:
    """All places of a patch of one size, row by row."""

    size: int  # side, pixels of the reference crop
    stride: int  # pixels of the reference crop
    side_px: int  # side, pixels of this crop
    step_px: int  # stride, pixels of this crop
    count: int  # places along each axis
    boxes_px: Array  # (count * count, 4) int64 x0 y0 x1 y1 on this crop, x1 and y1 excluded; clipped at its border

    def __len__(self) -> int:
        return len(self.boxes_px)

    def place(self, index: int) -> tuple[int, int]:
        """Row and column of a place."""
        return divmod(index, self.count)


def patch_grid(size: int, stride: int, crop_side: int) -> PatchGrid:
    """The grid of one size: `ceil((224 - size) / stride + 1)` places along each axis, at whole multiples of the stride.

    The last patches may be cut by the border. Places that rounding moves out of the crop are left out.

    Args:
        size: of the patch in pixels of a crop of 224, as `stride`.
        stride: from patch to patch.
        crop_side: side of the network's crop in pixels, to which both are scaled, then rounded.

    Raises:
        JotrDeployError: a size or stride that is not in 1..224.
    """
    for option, value in (("--occlusion", size), ("--stride", stride)):
        if not 1 <= value <= REFERENCE_SIDE:
            raise JotrDeployError(
                f"{option} {value}: not from 1 to {REFERENCE_SIDE}", f"give pixels of a crop of {REFERENCE_SIDE}"
            )
    side_px, step_px = (max(1, round(value * crop_side / REFERENCE_SIDE)) for value in (size, stride))
    count = min(math.ceil((REFERENCE_SIDE - size) / stride + 1), math.ceil(crop_side / step_px))
    start = step_px * np.arange(count)
    y0, x0 = (axis.ravel() for axis in np.meshgrid(start, start, indexing="ij"))
    boxes_px = np.stack([x0, y0, x0 + side_px, y0 + side_px], -1).clip(0, crop_side)
    return PatchGrid(size, stride, side_px, step_px, count, boxes_px)


def covered(points_px: Array, boxes_px: Array) -> Array:
    """True for points under a patch: (J, 2) crop pixels and (P, 4) to (P, J) bool; the far edges are excluded."""
    low, high = boxes_px[:, None, :2], boxes_px[:, None, 2:]
    return np.asarray(((points_px >= low) & (points_px < high)).all(-1))


def patch_sizes(text: str) -> tuple[int, ...]:
    """Parse patch sizes such as `40,80`.

    Raises:
        JotrDeployError: anything else, or a repeated number.
    """
    parts = [part.strip() for part in text.split(",")]
    sizes: Sequence[int] = [int(part) for part in parts if part.isdecimal()]
    if len(sizes) != len(parts):
        raise JotrDeployError(f"--occlusion {text}: not a list of patch sides", "give one such as 40,80")
    if len(set(sizes)) != len(sizes):
        raise JotrDeployError(f"--occlusion {text}: a side is given twice", "give every side once, such as 40,80")
    return tuple(sizes)
