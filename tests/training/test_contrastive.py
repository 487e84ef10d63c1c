"""The contrastive losses: recorded vectors at recorded indices, the laws of drawing, a loop over anchors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_case import load, standin
from torch import Tensor
from torch.nn import functional as F

from jotr_deploy.plugins.op import trilinear_sample_3d
from jotr_deploy.training.contrastive import (
    Inter,
    Intra,
    contrast,
    draw_inter,
    draw_intra,
    free_voxels,
    inter_loss,
    intra_loss,
)

SEED = "jotr-golden-A/"


def golden(count: int) -> tuple[Tensor, Tensor, Tensor, np.ndarray]:
    """Volume, predicted and true points in 0..1, mask of the recorded case of `count` samples."""
    arrays = standin.nce_inputs(SEED, count)
    volume = torch.from_numpy(arrays["feat"]).permute(0, 2, 3, 4, 1).contiguous().requires_grad_()
    predicted, true = ((torch.from_numpy(arrays[name]) + 1) / 2 for name in ("pred", "gt"))
    return volume, predicted.requires_grad_(), true, arrays["mask"] > 0


def indices(recorded: dict[str, np.ndarray], case: str, *names: str) -> list[np.ndarray]:
    return [recorded[f"{case}/{name}"].astype(np.int64) for name in names]


def check_gradients(recorded: dict[str, np.ndarray], case: str, volume: Tensor, predicted: Tensor) -> None:
    assert volume.grad is not None
    assert predicted.grad is not None
    # Recorded in coordinates of -1..1, twice as long.
    np.testing.assert_allclose(predicted.grad / 2, recorded[f"{case}/grad_pred"], atol=2e-6)
    np.testing.assert_allclose(volume.grad.norm().item(), recorded[f"{case}/grad_feat_norm"], rtol=1e-5)


@pytest.mark.parametrize("count", [4, 9])
def test_recorded_intra(count: int) -> None:
    recorded, case = load("losses"), f"intra_B{count}"
    volume, predicted, true, known = golden(count)
    anchor, positive, negative = indices(recorded, case, "anchor", "pos_batch", "neg")
    usable = known.any(0)[anchor % 15]
    assert not usable.all()  # one joint has no true position in any sample
    loss = intra_loss(volume, predicted, true, Intra(anchor, positive, negative, usable))
    np.testing.assert_allclose(loss.item(), recorded[f"{case}/loss"], rtol=1e-5)
    loss.backward()
    if count == 4:
        check_gradients(recorded, case, volume, predicted)


@pytest.mark.parametrize("count", [4, 9])
def test_recorded_inter(count: int) -> None:
    recorded, case = load("losses"), f"inter_B{count}"
    volume, predicted, _, _ = golden(count)
    loss = inter_loss(volume, predicted, Inter(*indices(recorded, case, "anchor", "pos", "neg_voxel")))
    np.testing.assert_allclose(loss.item(), recorded[f"{case}/loss"], rtol=1e-5)
    loss.backward()
    if count == 4:
        check_gradients(recorded, case, volume, predicted)


@pytest.mark.parametrize("count", [4, 9])
def test_recorded_pool_of_the_published_mask(count: int) -> None:
    recorded, case = load("losses"), f"inter_B{count}"
    _, predicted, _, _ = golden(count)
    pool = np.flatnonzero(free_voxels(predicted.detach().numpy(), (8, 8, 8), published=True))
    assert len(pool) == recorded[f"{case}/neg_pool_size"]
    assert pool.sum() == recorded[f"{case}/neg_pool_sum"]
    assert np.isin(recorded[f"{case}/neg_voxel"], pool).all()


def test_free_voxels_are_those_without_weight() -> None:
    points = np.random.default_rng(0).random((3, 5, 3)).astype(np.float32)
    points[0, 0] = 0.0, 1.0, 0.5  # on the border
    grid = (3, 4, 6)
    free = free_voxels(points, grid)
    voxels = torch.eye(3 * 4 * 6).reshape(1, *grid, -1).expand(3, -1, -1, -1, -1).contiguous()
    weights = trilinear_sample_3d(voxels, torch.from_numpy(points)).amax(1).reshape(3, *grid).numpy()
    assert not (free & (weights > 1e-6)).any()
    assert not (~free & (weights == 0)).sum() > 40  # a joint on a plane touches it alone
    assert 0 < free.sum() < free.size


def test_drawn_indices_obey_their_pools() -> None:
    rng = np.random.default_rng(1)
    known = rng.random((20, 15)) < 0.5
    known[:, 4] = False
    intra = draw_intra(rng, known, 100, 6, 40)
    label = intra.anchor % 15
    assert len(set(intra.anchor)) == 100
    np.testing.assert_array_equal(intra.usable, label != 4)
    assert known[intra.positive, label[:, None]][intra.usable].all()
    assert (intra.negative % 15 != label[:, None]).all()
    assert all(len(set(row)) == 40 for row in intra.negative)
    enough = known.sum(0)[label] >= 6
    assert all(len(set(row)) == 6 for row in intra.positive[enough])
    free = rng.random((20, 4, 4, 4)) < 0.5
    inter = draw_inter(rng, free, 15, 100, 64, 300)
    assert (inter.positive != inter.anchor[:, None]).all()
    assert all(len(set(row)) == 64 for row in inter.positive)
    assert free.ravel()[inter.negative].all()
    assert len(set(inter.negative)) == 300


@pytest.mark.parametrize("samples", [1, 2])
def test_small_pools_are_drawn_from_again(samples: int) -> None:
    rng = np.random.default_rng(2)
    known = np.ones((samples, 15), bool)
    intra, inter = draw_intra(rng, known), draw_inter(rng, np.ones((samples, 4, 4, 4), bool), 15)
    assert [part.shape for part in intra] == [(100,), (100, 128), (100, 256), (100,)]
    assert [part.shape for part in inter] == [(100,), (100, 1024), (2048,)]
    assert (intra.negative % 15 != (intra.anchor % 15)[:, None]).all()
    assert (inter.positive != inter.anchor[:, None]).all()
    assert set(intra.positive.ravel()) == set(range(samples))


def test_every_member_of_a_pool_is_drawn_equally_often() -> None:
    rng = np.random.default_rng(3)
    known = np.ones((8, 3), bool)
    counts = np.zeros(8)
    for _ in range(200):
        counts += np.bincount(draw_intra(rng, known, 24, 4, 4).positive.ravel(), minlength=8)
    np.testing.assert_allclose(counts / counts.sum(), 1 / 8, atol=0.01)


def test_nothing_known_is_no_loss() -> None:
    volume, predicted, true, known = golden(4)
    loss = intra_loss(volume, predicted, true, draw_intra(np.random.default_rng(0), np.zeros_like(known)))
    loss.backward()
    assert loss.item() == 0
    assert predicted.grad is not None
    assert torch.isfinite(predicted.grad).all()


def test_equal_to_a_loop_over_anchors() -> None:
    volume, predicted, true, known = golden(4)
    drawn = draw_intra(np.random.default_rng(5), known, 30, 8, 16)
    anchors, positives = (
        F.normalize(trilinear_sample_3d(volume, points), dim=-1).flatten(0, 1) for points in (predicted, true)
    )
    losses = []
    for a, positive, negative in zip(drawn.anchor[drawn.usable], drawn.positive[drawn.usable],
                                     drawn.negative[drawn.usable], strict=True):  # fmt: skip
        rest = (anchors[negative] @ anchors[a] / 0.07).exp().sum()
        for sample in positive:
            own = (positives[sample * 15 + a % 15] @ anchors[a] / 0.07).exp()
            losses.append(-torch.log(own / (own + rest)))
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(intra_loss(volume, predicted, true, drawn), expected, rtol=1e-5, atol=0)


def test_equal_generators_give_equal_losses() -> None:
    volume, predicted, true, known = golden(4)
    first, second, other = (
        contrast(np.random.default_rng(seed), volume, predicted, true, torch.from_numpy(known)) for seed in (0, 0, 1)
    )
    assert first == second
    assert first != other
