"""The grid's camera is JOTR's, cells are pixels by the stride, and single precision holds at 48 m."""

from __future__ import annotations

import pytest
import torch
from toy_scene import people, volume

from jotr_deploy.fitting.kernel_selection import Reach, select
from jotr_deploy.fitting.rays import GridCamera, cells_from_pixels, ray_gaussian
from jotr_deploy.fitting.rendering import slot_weights
from jotr_deploy.model.jotr import project_cells

ISOTROPIC = torch.tensor(4000.0, dtype=torch.float64)


def test_the_grid_sees_what_jotr_sees() -> None:
    """The heat-map cells of the network's own projection, at a crop of 256 pixels; it adds 0.1 mm to each depth."""
    bodies = people(3)
    with torch.no_grad():
        points = volume()(bodies.pose_rad.double(), bodies.betas.double()).centres_m
    points = points + bodies.translation_m[:, None].double()
    torch.testing.assert_close(GridCamera.of_crop(64).project(points), project_cells(points, 256), atol=1e-3, rtol=0)


def test_a_ray_goes_through_what_is_projected_onto_its_cell() -> None:
    camera = GridCamera(1250.0, (40.0, 38.0), 80, 78)
    points = torch.rand(50, 3, dtype=torch.float64) * torch.tensor([2.0, 2.0, 10.0]) + torch.tensor([-1.0, -1.0, 30.0])
    u, v = camera.project(points).unbind(-1)
    torch.testing.assert_close(camera.directions(u, v), points / points.norm(dim=-1, keepdim=True))


@pytest.mark.parametrize(("stride", "beside"), [(1, 0.0), (2, 0.25), (4, 0.375), (8, 0.4375)])
def test_cells_are_pixels_by_the_stride_and_not_the_centre_aligned_ones(stride: int, beside: float) -> None:
    pixels = torch.tensor([[0.0, 255.0], [128.0, 3.5]])
    centre_aligned = (pixels + 0.5) / stride - 0.5
    torch.testing.assert_close(cells_from_pixels(pixels, stride), centre_aligned + beside)


def test_a_kernel_seen_at_a_pixel_is_drawn_at_the_cell_of_that_pixel() -> None:
    """Dead-centre at pixel 4 * cell: weight 1 there, equal weights on either side."""
    camera, depth = GridCamera.of_crop(64), 20.0
    focal_px, centre_px = 5000.0, 128.0
    pixel = torch.tensor([100.0, 60.0], dtype=torch.float64)
    centre = torch.cat([(pixel - centre_px) * depth / focal_px, torch.tensor([depth], dtype=torch.float64)])[None, None]
    found = select(centre, ISOTROPIC, 4000.0, camera, Reach(23.0, 4.6, 4, False))
    drawn = slot_weights(centre, ISOTROPIC, found, 1.0, "peak")[:, 0]
    u, v = cells_from_pixels(pixel, 4).long().tolist()
    by_cell = {divmod(cell, 64): float(weight) for cell, weight in zip(found.cells.tolist(), drawn, strict=True)}
    assert by_cell[v, u] == pytest.approx(1, abs=1e-12)
    assert by_cell[v, u - 1] == pytest.approx(by_cell[v, u + 1], rel=0.02)
    assert max(by_cell, key=by_cell.__getitem__) == (v, u)


def positive(generator: torch.Generator, count: int) -> torch.Tensor:
    """(count, 3, 3) precisions between 1000 and 8000 per square metre."""
    turn, _ = torch.linalg.qr(torch.randn(count, 3, 3, dtype=torch.float64, generator=generator))
    widths = 1000 + 7000 * torch.rand(count, 3, dtype=torch.float64, generator=generator)
    return turn @ torch.diag_embed(widths) @ turn.mT


def textbook_q(centres: torch.Tensor, directions: torch.Tensor, precision: torch.Tensor) -> torch.Tensor:
    turned = (precision @ directions[..., None])[..., 0]
    squared = (centres * (precision @ centres[..., None])[..., 0]).sum(-1)
    return squared - (centres * turned).sum(-1) ** 2 / (directions * turned).sum(-1)


@pytest.mark.parametrize("depth_m", [2.0, 10.0, 34.7, 48.8])
def test_single_precision_is_enough_in_the_shifted_form_only(depth_m: float) -> None:
    draw = torch.Generator().manual_seed(3)
    count = 2000
    near = torch.rand(count, 2, dtype=torch.float64, generator=draw) * 2 - 1
    directions = torch.cat([near * 0.02, torch.ones(count, 1)], 1)
    directions = (directions / directions.norm(dim=1, keepdim=True)).float()
    aside = torch.randn(count, 3, dtype=torch.float64, generator=draw)
    centres = (depth_m * directions.double() + 0.012 * aside).float()
    precision = positive(draw, count).float()
    exact = ray_gaussian(centres.double(), directions.double(), precision.double()).q
    shifted = (ray_gaussian(centres, directions, precision).q.double() - exact).abs()
    chosen = exact < 4
    assert float(shifted[chosen].max()) < 2e-4
    textbook = (textbook_q(centres, directions, precision).double() - exact).abs()
    assert float(textbook[chosen].max()) > 10 * float(shifted[chosen].max())


def test_a_multiple_of_the_identity_is_isotropic() -> None:
    draw = torch.Generator().manual_seed(4)
    centres = torch.randn(40, 3, dtype=torch.float64, generator=draw) * 0.02 + torch.tensor([0.0, 0.0, 30.0])
    directions = GridCamera.of_crop(64).directions(*(32 + torch.randn(2, 40, dtype=torch.float64, generator=draw)))
    plain = ray_gaussian(centres, directions, ISOTROPIC)
    matrices = ray_gaussian(centres, directions, ISOTROPIC * torch.eye(3, dtype=torch.float64).expand(40, 3, 3))
    for one, other in zip(plain, matrices, strict=True):
        torch.testing.assert_close(one, other)


def test_the_peak_along_the_ray_is_where_the_density_is_largest() -> None:
    """x, s and q reproduce the density of an anisotropic Gaussian at every point of the ray."""
    draw = torch.Generator().manual_seed(5)
    precision = positive(draw, 6)
    centres = torch.randn(6, 3, dtype=torch.float64, generator=draw) * 0.02 + torch.tensor([0.0, 0.0, 30.0])
    direction = torch.tensor([0.01, -0.02, 1.0], dtype=torch.float64)
    direction = direction / direction.norm()
    hit = ray_gaussian(centres, direction, precision)
    along = torch.linspace(-0.05, 0.05, 21, dtype=torch.float64) + 30
    offset = along[:, None, None] * direction - centres
    density = (offset[..., None, :] @ precision @ offset[..., None])[..., 0, 0]
    torch.testing.assert_close(density, hit.q + hit.along * (along[:, None] - hit.depth_m) ** 2)
