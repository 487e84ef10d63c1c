"""Orientation bins share a limb's features among them by how it points in depth."""

from __future__ import annotations

import pytest
import torch

from jotr_deploy.fitting.orientation_bins import bins_of, von_mises_weights, window_weights, yz_means


def directions(z: torch.Tensor) -> torch.Tensor:
    return torch.stack([(1 - z * z).clamp(min=0).sqrt(), torch.zeros_like(z), z], -1)


Z = torch.linspace(-1, 1, 101, dtype=torch.float64)


@pytest.mark.parametrize("bins", [1, 2, 3, 4, 8])
def test_weights_are_shares_with_a_gradient(bins: int) -> None:
    pointing = directions(Z).requires_grad_()
    shares = window_weights(pointing, bins)
    assert shares.shape == (101, bins)
    torch.testing.assert_close(shares.sum(-1), torch.ones_like(Z), atol=1e-12, rtol=0)
    assert float(shares.detach().min()) >= 0
    if bins > 1:
        (shares * torch.arange(bins)).sum().backward()
        assert torch.isfinite(pointing.grad[1:-1]).all()
        assert pointing.grad[1:-1, 2].any()
    assert torch.isfinite(window_weights(torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]]), bins)).all()


@pytest.mark.parametrize(
    ("bins", "z", "label"),
    [(1, 0.9, 0), (2, 0.2, 0), (2, -0.2, 1), (3, 0.0, 0), (3, 0.29, 0), (3, 0.31, 1), (3, -0.31, 2), (3, -0.29, 0),
     (4, 0.9, 0), (4, 0.1, 1), (4, -0.1, 2), (4, -0.9, 3)],
)  # fmt: skip
def test_labels(bins: int, z: float, label: int) -> None:
    assert int(bins_of(directions(torch.tensor(z)), bins)) == label


def test_a_limb_in_the_image_plane_is_nine_tenths_in_its_bin() -> None:
    shares = window_weights(directions(torch.zeros((), dtype=torch.float64)), 3)
    assert float(shares[0]) == pytest.approx(0.905, abs=5e-4)


def test_the_papers_form_prefers_the_nearest_mean() -> None:
    means = yz_means(4)
    torch.testing.assert_close(means.norm(dim=-1), torch.ones(4, dtype=torch.float64))
    assert not means[:, 0].any()
    shares = von_mises_weights(means, means, 5.0)
    torch.testing.assert_close(shares.sum(-1), torch.ones(4, dtype=torch.float64))
    assert shares.argmax(-1).tolist() == [0, 1, 2, 3]
    assert torch.equal(von_mises_weights(means, means, 0.0), torch.full((4, 4), 0.25, dtype=torch.float64))


def test_the_papers_form_is_bayes_with_von_mises_fisher_densities() -> None:
    kappa, limb = 3.0, torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    density = kappa / (4 * torch.pi * torch.sinh(torch.tensor(kappa))) * torch.exp(kappa * yz_means(3) @ limb)
    torch.testing.assert_close(von_mises_weights(limb, yz_means(3), kappa), density / density.sum())
