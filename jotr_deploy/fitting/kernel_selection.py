"""Selection of the kernels that each ray meets, nearest first (docs/fitting.md section 3).

The selection is discrete and has no gradient: rendering recomputes everything from the kernels that it names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jotr_deploy.fitting.rays import GridCamera, ray_gaussian

PAIRS_AT_ONCE = 1 << 21
"""Pairs of kernel and cell that are evaluated at once, which bounds the memory of a selection."""


@dataclass(frozen=True)
class Reach:
    """Limits within which a ray meets a kernel."""

    q_max: float  # kernels with q below are drawn
    q_mask: float  # a cell is body where a kernel's q is below
    per_ray: int  # M, the number of kernels kept, nearest first
    only_masked: bool  # leave out cells that are not body


@dataclass(frozen=True, eq=False)
class Selection:
    """Kernels of every cell that meets any, over all people: n cells with M slots, nearest first."""

    people: Tensor  # (n,) person of the cell, ascending
    cells: Tensor  # (n,) row * width + column
    directions: Tensor  # (n, 3) the cell's ray
    mask: Tensor  # (n,) bool, the cell is body
    kernels: Tensor  # (n, M) person * K + kernel; 0 where the slot is empty
    filled: Tensor  # (n, M) bool
    slots: Tensor  # (N,) the filled slots, n * M of them, ordered by kernel
    per_kernel: Tensor  # (B * K,) number of slots of each kernel

    def visible(self, count: int) -> Tensor:
        """(B, K) bool: the kernels, `count` a person, that are the nearest of at least one cell."""
        seen = torch.zeros(self.per_kernel.shape, dtype=torch.bool, device=self.kernels.device)
        seen[self.kernels[:, 0]] = True  # the first slot of a cell is always filled
        return seen.unflatten(0, (-1, count))


@torch.no_grad()
def select(centres_m: Tensor, precision: Tensor, lowest: float, camera: GridCamera, reach: Reach) -> Selection:
    """Find the kernels that each cell meets.

    Only a window around each kernel's projection is searched, wide enough for a sphere that contains every point of
    `q_max`: the result equals that of searching every cell.

    Args:
        centres_m: (B, K, 3) camera frame.
        precision: () or (B, K, 3, 3), 1 / m^2.
        lowest: smallest eigenvalue of any precision.
        camera: of the grid.
        reach: limits.
    """
    people, count, _ = centres_m.shape
    radius = (reach.q_max / lowest) ** 0.5
    windows = _windows(centres_m, radius, camera)
    at_once = max(1, PAIRS_AT_ONCE // max(1, windows.height * windows.width))
    parts = [
        _pairs(centres_m.flatten(0, 1), precision, radius, windows, some, camera, reach)
        for some in windows.kernels.split(at_once)
    ]
    joined = [torch.cat(column) for column in zip(*parts, strict=True)]
    kernel, cell, depth, q = joined
    cell = cell + kernel // count * camera.cells
    body = torch.zeros(people * camera.cells, dtype=torch.bool, device=cell.device)
    body[cell[q < reach.q_mask]] = True
    if reach.only_masked:
        kept = body[cell]
        kernel, cell, depth = kernel[kept], cell[kept], depth[kept]
    return _arranged(kernel, cell, depth, body, people * count, camera, reach.per_ray)


@dataclass(frozen=True, eq=False)
class _Windows:
    """Rectangles of cells that kernels may reach, all as large as the largest."""

    kernels: Tensor  # (n,) person * K + kernel, those that reach the grid
    first: Tensor  # (B * K, 2) first column and row
    width: int
    height: int


def _windows(centres_m: Tensor, radius: float, camera: GridCamera) -> _Windows:
    """Windows of the kernels that lie wholly in front of the camera."""
    firsts, counts = [], []
    limits = (camera.width, camera.height)
    z = centres_m[..., 2].flatten()
    for axis, (principal, limit) in enumerate(zip(camera.principal_cells, limits, strict=True)):
        across = centres_m[..., axis].flatten()
        distance = torch.hypot(across, z)
        before = (z > 0) & (distance > radius)
        angle, spread = torch.atan2(across, z), torch.asin((radius / distance).clamp(max=1))
        low = camera.focal_cells * torch.tan(angle - spread) + principal
        high = camera.focal_cells * torch.tan(angle + spread) + principal
        low, high = low.clamp(0, limit), high.clamp(-1, limit - 1)
        firsts.append(torch.where(before, low.ceil(), limit).long())
        counts.append(torch.where(before, high.floor() - low.ceil() + 1, 0))
    reaching = ((counts[0] > 0) & (counts[1] > 0)).nonzero()[:, 0]
    width, height = (int(count[reaching].max()) if len(reaching) else 0 for count in counts)
    return _Windows(reaching, torch.stack(firsts, -1), width, height)


def _pairs(
    centres_m: Tensor,
    precision: Tensor,
    radius: float,
    windows: _Windows,
    chosen: Tensor,
    camera: GridCamera,
    reach: Reach,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Kernel, cell of its person's grid, depth and q of every pair of these kernels with q below the limit, by kernel.

    Most cells of a window are beside the sphere of `radius`; that is decided first, with few operations.
    """
    centres, first = centres_m.index_select(0, chosen), windows.first.index_select(0, chosen)
    columns = first[:, :1] + torch.arange(windows.width, device=chosen.device)
    rows = first[:, 1:] + torch.arange(windows.height, device=chosen.device)
    near = _in_sphere(centres, radius, columns, rows, camera)
    place, size, width = near.flatten().nonzero()[:, 0], max(1, windows.height * windows.width), max(1, windows.width)
    index, within = place // size, place % size
    row, column = within // width, within % width
    row, column = row + first[:, 1].index_select(0, index), column + first[:, 0].index_select(0, index)
    kernel = chosen.index_select(0, index)
    some = precision if precision.ndim == 0 else precision.flatten(0, 1).index_select(0, kernel)
    rays = camera.directions(column.to(centres.dtype), row.to(centres.dtype))
    hit = ray_gaussian(centres.index_select(0, index), rays, some)
    met = ((hit.q < reach.q_max) & (hit.depth_m > 0)).nonzero()[:, 0]
    cell = row * camera.width + column
    return tuple(each.index_select(0, met) for each in (kernel, cell, hit.depth_m, hit.q))  # type: ignore[return-value]


def _in_sphere(centres_m: Tensor, radius: float, columns: Tensor, rows: Tensor, camera: GridCamera) -> Tensor:
    """(n, H, W) bool: the ray of a cell in columns (n, W) and rows (n, H) of the grid meets a sphere, or nearly does.

    With the ray (u, v, 1) to a cell: (u x + v y + z)^2 > (|M|^2 - radius^2) (u^2 + v^2 + 1).
    """
    x, y, z = (axis[:, None, None] for axis in centres_m.unbind(-1))
    u = ((columns - camera.principal_cells[0]) / camera.focal_cells).to(centres_m.dtype)[:, None, :]
    v = ((rows - camera.principal_cells[1]) / camera.focal_cells).to(centres_m.dtype)[:, :, None]
    squared = x * x + y * y + z * z
    rounding = 16 * torch.finfo(centres_m.dtype).eps * squared
    along = (u * x + z) + v * y
    inside = along * along > (squared - radius * radius - rounding) * ((u * u + 1) + v * v)
    return inside & (columns < camera.width)[:, None, :] & (rows < camera.height)[:, :, None]


def _arranged(
    kernel: Tensor, cell: Tensor, depth: Tensor, body: Tensor, kernels: int, camera: GridCamera, per_ray: int
) -> Selection:
    """Selection of the `per_ray` nearest of each cell, from pairs ordered by kernel."""
    device = cell.device
    order = _by_cell_and_depth(cell, depth)
    sorted_cell = cell[order]
    starts = torch.ones_like(sorted_cell, dtype=torch.bool)
    starts[1:] = sorted_cell[1:] != sorted_cell[:-1]
    place = starts.cumsum(0) - 1
    begin = starts.nonzero()[:, 0]
    rank = torch.arange(len(cell), device=device) - begin[place]
    near = rank < per_ray
    slot_of = torch.full_like(cell, -1)
    slot_of[order[near]] = (place * per_ray + rank)[near]
    chosen = slot_of >= 0
    slots, kernel = slot_of[chosen], kernel[chosen]
    cells = sorted_cell[begin]
    table = torch.zeros(len(cells) * per_ray, dtype=torch.long, device=device)
    filled = torch.zeros_like(table, dtype=torch.bool)
    table[slots], filled[slots] = kernel, True
    within = cells % camera.cells
    return Selection(
        people=cells // camera.cells,
        cells=within,
        directions=camera.directions((within % camera.width).to(depth.dtype), (within // camera.width).to(depth.dtype)),
        mask=body[cells],
        kernels=table.unflatten(0, (-1, per_ray)) if len(cells) else table.reshape(0, per_ray),
        filled=filled.reshape(-1, per_ray),
        slots=slots,
        per_kernel=torch.bincount(kernel, minlength=kernels),
    )


def _by_cell_and_depth(cell: Tensor, depth: Tensor) -> Tensor:
    """Order of pairs by cell, then depth: one sort of integers that encode both, depth to far below a micron."""
    if not len(cell):
        return cell
    bits = min(50, 62 - int(cell.max() + 1).bit_length())
    nearest, farthest = depth.min(), depth.max()
    share = (depth - nearest).double() / (farthest - nearest).clamp(min=1e-6)
    key = (cell << bits) | (share * (2**bits - 1)).long()
    if key.device.type != "cpu":
        return key.argsort()
    order: Any = np.argsort(key.numpy())  # some ten times as fast as PyTorch's
    return torch.from_numpy(order)
