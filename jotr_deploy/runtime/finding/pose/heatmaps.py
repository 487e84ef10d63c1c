"""HRNet, SimpleBaseline, ViTPose: one heat map per joint.

Input as in `TopDown`; one output [B, K, H / 4, W / 4]. The sub-cell position of a peak, and the position of a cell in
the input, depend on how the weights were trained, which the file does not record:

- quarter: a quarter of a cell towards the higher neighbour; cell c is at input pixel 4 c.
- dark: the peak of the Gaussian fitted to the smoothed map; cell c is at input pixel 4 c.
- udp: the same peak; the corner cells coincide with the corner pixels of the input, and those with the crop's corners.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import cv2
import numpy as np

from jotr_deploy.runtime.finding import recognition
from jotr_deploy.runtime.finding.joint_outputs import as_confidence
from jotr_deploy.runtime.finding.pose import top_down_network
from jotr_deploy.runtime.finding.pose.top_down import corners_aligned
from jotr_deploy.runtime.finding.pose.top_down_network import TopDown
from jotr_deploy.runtime.sessions import Session
from jotr_deploy.support.aliases import Array

PX_PER_CELL = 4
KERNEL_CELLS = {2: 11, 3: 17}
"""Published smoothing width by standard deviation of the Gaussians; OpenCV derives its own sigma from it."""
_LEAST = 1e-10  # floor before taking logarithms


class Recipe(top_down_network.Recipe):
    """Settings of a heat-map network."""

    decode: Literal["quarter", "dark", "udp"] = "quarter"
    """Decoding that the weights were trained for, listed above."""
    sigma: Literal[2, 3] = 2
    """Standard deviation, in cells, of the training Gaussians; for "dark" and "udp"."""


class HeatMaps(TopDown):
    """Heat-map pose network such as HRNet."""

    name = "heatmaps"
    recipe = Recipe
    options: Recipe

    @staticmethod
    def fits(session: Session) -> bool:
        """Accept one image as input, and one output of a quarter of its size with a map per joint."""
        size_px = recognition.image_size_px(session)
        if size_px is None or len(session.outputs) != 1:
            return False
        (spec,) = session.outputs.values()
        width, height = size_px
        return (
            len(spec.shape) == 4
            and isinstance(spec.shape[1], int)
            and spec.shape[2:] == (height / PX_PER_CELL, width / PX_PER_CELL)
        )

    def facts(self) -> tuple[str, ...]:
        """Skeleton and decoding."""
        return (*super().facts(), f"peaks by {self.options.decode}")

    def input_from_image(self, boxes_px: Array) -> Array:
        """Affines of the crops, corner-aligned for "udp"."""
        affines = super().input_from_image(boxes_px)
        return corners_aligned(affines, self.size_px) if self.options.decode == "udp" else affines

    def points(self, outputs: Mapping[str, Array]) -> tuple[Array, Array]:
        """Peaks of the maps; a joint whose map has a non-finite value gets no confidence."""
        ((_, maps),) = outputs.items()
        maps = np.where(np.isfinite(maps).all((2, 3), keepdims=True), maps, 0).astype(np.float32)
        if self.options.decode == "quarter":
            cells = peaks_by_quarters(maps)
        else:
            cells = peaks_by_newton(maps, KERNEL_CELLS[self.options.sigma])
        px_per_cell: Array = np.full(2, float(PX_PER_CELL))
        if self.options.decode == "udp":
            px_per_cell = (np.array(self.size_px) - 1) / (np.array(maps.shape[:1:-1]) - 1)
        return cells * px_per_cell, as_confidence(maps.max((2, 3)))


def peaks_by_quarters(maps: Array) -> Array:
    """Maps (N, J, h, w) -> x, y (N, J, 2) of the highest cell, moved 1/4 towards the higher neighbour on each axis.

    At the border, where there is only one neighbour, it is not moved.
    """
    cells, around = _highest(maps)
    rise = np.stack([around[..., 1, 2] - around[..., 1, 0], around[..., 2, 1] - around[..., 0, 1]], -1)
    return cells + 0.25 * np.sign(np.nan_to_num(rise))


def peaks_by_newton(maps: Array, kernel_cells: int) -> Array:
    """Maps (N, J, h, w) -> x, y (N, J, 2) of the peak of the Gaussian through the highest cell of the smoothed map.

    The logarithm of a Gaussian is a parabola, so its maximum is one Newton step away. The step is skipped at the border
    and if it leads beyond the neighbouring cells, as there is no such peak then.
    """
    flat, kernel = maps.reshape(-1, *maps.shape[2:]), (kernel_cells, kernel_cells)
    smooth = np.stack([cv2.GaussianBlur(each, kernel, 0, borderType=cv2.BORDER_CONSTANT) for each in flat])
    cells, around = _highest(smooth.reshape(maps.shape))
    log = np.log(np.maximum(around, _LEAST))
    dx, dy = (log[..., 1, 2] - log[..., 1, 0]) / 2, (log[..., 2, 1] - log[..., 0, 1]) / 2
    dxx = log[..., 1, 2] - 2 * log[..., 1, 1] + log[..., 1, 0]
    dyy = log[..., 2, 1] - 2 * log[..., 1, 1] + log[..., 0, 1]
    dxy = (log[..., 2, 2] - log[..., 2, 0] - log[..., 0, 2] + log[..., 0, 0]) / 4
    with np.errstate(divide="ignore", invalid="ignore"):
        step = np.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], -1) / (dxx * dyy - dxy**2)[..., None]
    return cells + np.where((np.abs(step) <= 1).all(-1, keepdims=True), step, 0)


def _highest(maps: Array) -> tuple[Array, Array]:
    """x, y (N, J, 2) int of the highest cell, and its 3 x 3 neighbourhood (N, J, 3, 3), NaN beyond the border."""
    y, x = np.divmod(maps.reshape(*maps.shape[:2], -1).argmax(-1), maps.shape[3])
    padded = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=np.nan)
    person, joint = (index[..., None, None] for index in np.indices(x.shape))
    row, column = np.ogrid[:3, :3]
    return np.stack([x, y], -1), padded[person, joint, y[..., None, None] + row, x[..., None, None] + column]
