"""Camera of a feature grid, its rays, and Gaussians along a ray (docs/fitting.md section 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from jotr_deploy.geometry.camera import crop_camera


@dataclass(frozen=True)
class GridCamera:
    """A pinhole camera whose pixels are the cells of a feature grid; cell (row, column) samples the ray of (v, u)."""

    focal_cells: float
    principal_cells: tuple[float, float]  # u, v
    height: int
    width: int

    @classmethod
    def of_crop(cls, side: int) -> GridCamera:
        """JOTR's crop camera, for a grid of `side` cells over the same square."""
        focal, principal = crop_camera(side)
        return cls(focal, (principal, principal), side, side)

    @property
    def cells(self) -> int:
        """Number of cells in the grid."""
        return self.height * self.width

    def directions(self, columns: Tensor, rows: Tensor) -> Tensor:
        """(...) and (...) cells -> (..., 3) unit vectors of the camera frame."""
        x = (columns - self.principal_cells[0]) / self.focal_cells
        y = (rows - self.principal_cells[1]) / self.focal_cells
        length = (x * x + y * y + 1).sqrt()
        return torch.stack([x / length, y / length, 1 / length], -1)

    def project(self, points_m: Tensor) -> Tensor:
        """(..., 3) camera frame -> (..., 2) u, v in cells."""
        principal = points_m.new_tensor(self.principal_cells)
        return points_m[..., :2] / points_m[..., 2:] * self.focal_cells + principal


def cells_from_pixels(pixels: Tensor, stride: int) -> Tensor:
    """Crop pixels -> cells of a grid of this stride: division, as published.

    Centres of pixels are integers. The centre-aligned form, `(pixels + 0.5) / stride - 0.5`, lies
    `(stride - 1) / (2 stride)` cells beside it, 0.375 at stride 4, a centimetre on the body: everything here, the rays,
    the joints and the extractor, uses this one.
    """
    return pixels / stride


class RayHit(NamedTuple):
    """Gaussian along a ray: a peak of e^-q at a depth, with its own precision."""

    depth_m: Tensor
    along: Tensor  # precision along the ray, 1 / m^2
    q: Tensor  # >= 0, zero where the ray goes through the centre


def ray_gaussian(centres_m: Tensor, directions: Tensor, precision: Tensor) -> RayHit:
    """Gaussians exp(-(X - M)^T A (X - M)) along rays.

    The offset of the centre from the ray is computed first. The textbook form, `M.AM - (M.Ad)^2 / d.Ad`, is equal but
    loses every digit in float32 at 35 m. Sums are written out, for a product of matrices may be in TF32.

    Args:
        centres_m: (..., 3) camera frame, broadcast against the directions.
        directions: (..., 3) unit vectors.
        precision: () for one isotropic precision, or (..., 3, 3).
    """
    (x, y, z), (dx, dy, dz) = centres_m.unbind(-1), directions.unbind(-1)
    near = dx * x + dy * y + dz * z
    rx, ry, rz = x - near * dx, y - near * dy, z - near * dz
    if precision.ndim == 0:
        return RayHit(near, precision.expand(near.shape), precision * (rx * rx + ry * ry + rz * rz))
    offset = torch.stack([rx, ry, rz], -1)
    turned = (precision * directions[..., None, :]).sum(-1)
    along = (directions * turned).sum(-1)
    across = (offset * turned).sum(-1)
    squared = (offset * (precision * offset[..., None, :]).sum(-1)).sum(-1)
    return RayHit(near + across / along, along, squared - across * across / along)
