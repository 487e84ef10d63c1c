"""The closed form of the weights, against the integral that it stands for, in double precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from jotr_deploy.fitting.kernel_selection import Reach, Selection, select
from jotr_deploy.fitting.rays import GridCamera, RayHit
from jotr_deploy.fitting.rendering import SelfTerm, at_slots, blended, slot_weights, unit, weights

A = 4000.0
STD_M = 1 / math.sqrt(2 * A)
PEAK = math.exp(-0.5)
WIDE = Reach(23.03, 4.6, 10, False)


def ray(depths_std: list[float], q: list[float]) -> RayHit:
    depth = 30 + torch.tensor(depths_std, dtype=torch.float64) * STD_M
    return RayHit(depth, torch.full_like(depth, A), torch.tensor(q, dtype=torch.float64))


def drawn(hit: RayHit, self_term: SelfTerm = "peak") -> Tensor:
    """Weights without the division by e^(-1/2), as the integral has them."""
    return weights(hit, self_term=self_term) * (PEAK if self_term == "peak" else 1.0)


def marched(hit: RayHit, samples: int = 20000) -> Tensor:
    """(M,) the integral of transmittance times density of each kernel, by the midpoint rule over 8 deviations."""
    low, high = float(hit.depth_m.min()) - 8 * STD_M, float(hit.depth_m.max()) + 8 * STD_M
    step = (high - low) / samples
    u = low + (torch.arange(samples, dtype=torch.float64) + 0.5) * step
    density = (hit.along / math.pi).sqrt() * torch.exp(-hit.q - hit.along * (u[:, None] - hit.depth_m) ** 2)
    passed = density.sum(1).cumsum(0) * step
    transmittance = torch.exp(-(passed - density.sum(1) * step / 2))
    return (transmittance[:, None] * density).sum(0) * step


def test_a_lone_kernel_hit_dead_centre_has_weight_one() -> None:
    assert float(weights(ray([0], [0]))) == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("q", np.linspace(0, 4, 9))
def test_one_kernel(q: float) -> None:
    exact = 1 - math.exp(-math.exp(-q))
    assert float(drawn(ray([0], [q]))) == pytest.approx(exact, abs=0.0257)
    assert float(drawn(ray([0], [q]), "exact")) == pytest.approx(exact, abs=1e-9)
    assert float(marched(ray([0], [q]))) == pytest.approx(exact, abs=1e-6)


# q in front and behind, apart in deviations; weights in closed form, with the exact self term, and marched
TWO = [
    ((0, 0), 0, (0.3679, 0.3679), (0.3834, 0.3834), (0.4323, 0.4323)),
    ((0, 0), 1, (0.5175, 0.2615), (0.5394, 0.2725), (0.5383, 0.3264)),
    ((0, 0), 2, (0.5929, 0.2283), (0.6179, 0.2379), (0.6021, 0.2625)),
    ((0, 0), 8, (0.6065, 0.2231), (0.6321, 0.2325), (0.6321, 0.2325)),
    ((1, 0), 1, (0.2612, 0.4451), (0.2626, 0.4639), (0.2537, 0.4917)),
    ((2, 2), 2, (0.1261, 0.1108), (0.1262, 0.1109), (0.1253, 0.1118)),
]


@pytest.mark.parametrize(("q", "apart", "closed", "exact", "integral"), TWO)
def test_two_kernels_give_the_recorded_numbers(
    q: tuple[float, float],
    apart: float,
    closed: tuple[float, float],
    exact: tuple[float, float],
    integral: tuple[float, float],
) -> None:
    hit = ray([0, apart], list(q))
    np.testing.assert_allclose(drawn(hit), closed, atol=6e-5)
    np.testing.assert_allclose(drawn(hit, "exact"), exact, atol=6e-5)
    np.testing.assert_allclose(marched(hit), integral, atol=6e-5)


@pytest.mark.parametrize(("self_term", "limit"), [("peak", 0.08), ("exact", 0.065)])
def test_two_kernels_are_near_the_integral(self_term: SelfTerm, limit: float) -> None:
    for q in ([0, 0], [0, 1], [1, 0], [0.5, 2], [3, 0]):
        for apart in (0, 0.25, 0.5, 1, 2, 4):
            hit = ray([0, apart], q)
            near, true = drawn(hit, self_term), marched(hit, 8000)
            assert float((near - true).abs().max()) <= limit
            assert float(torch.cosine_similarity(near, true, 0)) >= 0.99


def test_ten_kernels_that_overlap_are_near_the_integral() -> None:
    draw = np.random.default_rng(2)
    for _ in range(20):
        hit = ray(list(draw.uniform(0, 10, 10)), list(draw.uniform(0, 4, 10)))
        near, true = drawn(hit), marched(hit, 8000)
        assert float((near - true).abs().max()) <= 0.08
        assert float(torch.cosine_similarity(near, true, 0)) >= 0.98


def test_the_opacity_of_a_ray_does_not_depend_on_where_its_kernels_are() -> None:
    draw = np.random.default_rng(3)
    for count in (1, 2, 5, 10):
        hit = ray(list(draw.uniform(0, 6, count)), list(draw.uniform(0, 3, count)))
        whole = 1 - math.exp(-float(torch.exp(-hit.q).sum()))
        assert float(marched(hit).sum()) == pytest.approx(whole, abs=1e-3)


def test_what_is_in_front_counts_most() -> None:
    front, rear = drawn(ray([0, 60], [0, 0]))
    assert (float(front), float(rear)) == (pytest.approx(0.6065, abs=1e-4), pytest.approx(0.2231, abs=1e-4))
    rear, front = drawn(ray([60, 0], [0, 0]))
    assert float(front) > 2 * float(rear)


def test_the_order_of_slots_does_not_matter() -> None:
    draw = np.random.default_rng(4)
    hit = ray(list(draw.uniform(0, 5, 8)), list(draw.uniform(0, 3, 8)))
    order = torch.from_numpy(draw.permutation(8))
    shuffled = RayHit(*(part[order] for part in hit))
    torch.testing.assert_close(weights(shuffled), weights(hit)[order], atol=1e-12, rtol=0)


def test_empty_slots_change_nothing_and_have_no_gradient() -> None:
    hit = ray([0, 2, 0], [0.5, 1, math.inf])
    q = hit.q.clone().requires_grad_()
    found = weights(hit._replace(q=q))
    torch.testing.assert_close(found[:2], weights(ray([0, 2], [0.5, 1])))
    found.sum().backward()
    assert float(found[2]) == 0
    assert float(q.grad[2]) == 0
    assert torch.isfinite(q.grad).all()


def cloud(count: int = 40, people: int = 2, seed: int = 6) -> tuple[Tensor, Tensor]:
    """(B, K, 3) centres around 25 m, and (B, K, 3, 3) precisions of 300 to 800, wide against a cell."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(people, count, 3, dtype=torch.float64, generator=draw) * torch.tensor([0.25, 0.25, 0.1])
    turn, _ = torch.linalg.qr(torch.randn(people, count, 3, 3, dtype=torch.float64, generator=draw))
    widths = 300 + 500 * torch.rand(people, count, 3, dtype=torch.float64, generator=draw)
    return centres + torch.tensor([0.0, 0.0, 25.0]), turn @ torch.diag_embed(widths) @ turn.mT


def rendered(centres: Tensor, precision: Tensor, rows: Tensor, found: Selection) -> Tensor:
    drawn = slot_weights(centres, precision, found, 1.0, "peak")
    return blended(drawn, rows, found)


@pytest.mark.parametrize("isotropic", [True, False])
def test_gradients_agree_with_finite_differences(isotropic: bool) -> None:
    """Of rendered features in centres, precisions and the features themselves; who is met is held fixed."""
    centres, matrices = cloud(12, 2)
    precision = torch.tensor(500.0, dtype=torch.float64) if isotropic else matrices
    found = select(centres, precision, 300.0, GridCamera.of_crop(16), WIDE)
    assert len(found.cells) > 20
    rows = torch.randn(24, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    inputs = [value.clone().requires_grad_() for value in (centres, precision, rows)]
    symmetric = (lambda a: a) if isotropic else (lambda a: (a + a.mT) / 2)
    assert torch.autograd.gradcheck(
        lambda c, a, f: unit(rendered(c, symmetric(a), f, found)), inputs, eps=1e-6, atol=1e-5, fast_mode=not isotropic
    )


def test_blending_is_a_sum_over_slots() -> None:
    centres, precision = cloud()
    found = select(centres, precision, 300.0, GridCamera.of_crop(32), WIDE)
    drawn = slot_weights(centres, precision, found, 1.0, "peak")
    rows = torch.randn(80, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    expected = (drawn[..., None] * at_slots(rows, found)).sum(1)
    torch.testing.assert_close(blended(drawn, rows, found), expected, atol=1e-14, rtol=0)


def test_kernels_in_another_order_give_the_same_picture() -> None:
    centres, precision = cloud()
    rows = torch.randn(2, 40, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    order = torch.randperm(40, generator=torch.Generator().manual_seed(9))
    camera = GridCamera.of_crop(32)
    pictures = []
    for c, a, f in ((centres, precision, rows), (centres[:, order], precision[:, order], rows[:, order])):
        found = select(c, a, 300.0, camera, WIDE)
        pictures.append((found, rendered(c, a, f.flatten(0, 1), found)))
    (one, first), (two, second) = pictures
    assert torch.equal(one.cells, two.cells)
    torch.testing.assert_close(first, second, atol=1e-12, rtol=0)


def test_people_alone_and_together_are_the_same_picture() -> None:
    centres, precision = cloud(people=3)
    camera = GridCamera.of_crop(32)
    rows = torch.randn(3, 40, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    found = select(centres, precision, 300.0, camera, WIDE)
    together = rendered(centres, precision, rows.flatten(0, 1), found)
    for person in range(3):
        one = slice(person, person + 1)
        alone = select(centres[one], precision[one], 300.0, camera, WIDE)
        assert torch.equal(found.cells[found.people == person], alone.cells)
        picture = rendered(centres[one], precision[one], rows[person], alone)
        torch.testing.assert_close(together[found.people == person], picture, atol=1e-12, rtol=0)


@pytest.mark.parametrize("people", [0, 2])
def test_nothing_in_the_picture_is_no_cell_and_no_gradient(people: int) -> None:
    centres = (torch.zeros(people, 7, 3, dtype=torch.float64) + torch.tensor([50.0, 0.0, 20.0])).requires_grad_()
    precision = torch.tensor(500.0, dtype=torch.float64)
    found = select(centres.detach(), precision, 500.0, GridCamera.of_crop(16), WIDE)
    picture = rendered(centres, precision, torch.ones(people * 7, 3, dtype=torch.float64), found)
    assert picture.shape == (0, 3)
    picture.sum().backward()
    assert not centres.grad.any()


def test_near_zero_vectors_stay_near_zero() -> None:
    small = torch.zeros(2, 3, dtype=torch.float64)
    small[1, 0] = 1e-9
    small.requires_grad_()
    unit(small).sum().backward()
    assert float(unit(small).norm()) < 1e-2
    assert torch.isfinite(small.grad).all()
