"""Camera of a scene, and the pixels of its picture to draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jotr_deploy.support.aliases import Array


@dataclass(frozen=True)
class Camera:
    """Pinhole camera above level ground. The level frame has its position: x right, y straight down, z ahead."""

    focal_px: float
    principal_px: Array  # (2,)
    camera_from_level: Array  # (3, 3) pitch and roll
    height_m: float  # above the ground, which is y = height_m in the level frame

    def project_px(self, points_m: Array) -> Array:
        """(..., 3) camera frame, z > 0 -> (..., 2) picture pixels."""
        pixels: Array = points_m[..., :2] / points_m[..., 2:] * self.focal_px + self.principal_px
        return pixels


@dataclass(frozen=True)
class View:
    """Grid of pixels over the picture: pixel (i, j) is centred at x_px + i * step, y_px + j * step."""

    x_px: float
    y_px: float
    step: float  # picture pixels from one to the next
    size_px: tuple[int, int]  # width, height

    def from_picture(self, points_px: Array) -> Array:
        """(..., 2) picture pixels -> (..., 2) pixels of this view."""
        moved: Array = (points_px - (self.x_px, self.y_px)) / self.step
        return moved

    def picture_px(self) -> tuple[Array, Array]:
        """Picture coordinates of the columns (width,) and of the rows (height,); float32."""
        width, height = self.size_px
        columns = self.x_px + self.step * np.arange(width)
        rows = self.y_px + self.step * np.arange(height)
        return columns.astype(np.float32), rows.astype(np.float32)


def whole_picture(size_px: tuple[int, int]) -> View:
    """View of every pixel of a picture of this size."""
    return View(0.0, 0.0, 1.0, size_px)
