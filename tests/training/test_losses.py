"""The losses against vectors recorded from the published implementation, values and gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from golden_case import body, load, network, standin
from torch import Tensor

from jotr_deploy.model.checkpoint import our_name
from jotr_deploy.skeletons import JOTR15_IN_SMPL30
from jotr_deploy.training.contrastive import Inter, Intra, inter_loss, intra_loss
from jotr_deploy.training.losses import NAMES, AutomaticWeighting, Found, Truth, masked_l1, mesh_losses, nearer_turn
from jotr_deploy.training.tasks.mesh_task import MeshModel

SEED = "jotr-golden-A/"
LOSS_RTOL, GRAD_NORM_RTOL = 1e-5, 2e-3  # tests/golden/weights_formula.md section 7


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in arrays.items()}


def normals(name: str, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(standin.normal(SEED, name, shape).astype(np.float32))


@pytest.mark.parametrize("flag", ["no_flag", "is3d"])
def test_elements_of_the_joint_loss(flag: str) -> None:
    recorded = tensors({name: value for name, value in load("losses").items() if name.startswith("coord/")})
    a, b = (
        torch.from_numpy(standin.normal(SEED, name, (4, 15, 3)).astype(np.float32)) for name in ("loss.a", "loss.b")
    )
    known = recorded["coord/valid"].expand(-1, -1, 3).clone()
    if flag == "is3d":
        known[..., 2] *= recorded["coord/is3d"][:, None]
    torch.testing.assert_close(masked_l1(a, b, known), recorded[f"coord/loss_{flag}"], rtol=1e-5, atol=1e-6)


def test_elements_of_the_parameter_loss() -> None:
    recorded = tensors({name: value for name, value in load("losses").items() if name.startswith("param/")})
    a, b = normals("loss.pa", (4, 72)), normals("loss.pb", (4, 72))
    torch.testing.assert_close(masked_l1(a, b, recorded["param/valid"]), recorded["param/loss"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", ["ones", "varied"])
def test_automatic_weighting(case: str) -> None:
    recorded = load("losses")
    assert [f"{name}_0" for name in NAMES] == list(recorded["awl_sorted_keys"])
    values = dict(zip((str(key).removesuffix("_0") for key in recorded["awl_keys"]), recorded["awl_in"], strict=True))
    weighting = AutomaticWeighting()
    weighting.params.data = torch.from_numpy(recorded[f"awl_{case}/params"])
    total = weighting({name: torch.tensor(value) for name, value in values.items()})
    total.backward()
    np.testing.assert_allclose(total.item(), recorded[f"awl_{case}/sum"], rtol=LOSS_RTOL)
    np.testing.assert_allclose(weighting.params.grad, recorded[f"awl_{case}/grad_params"], rtol=1e-5)


def golden_truth(grid: int = 64) -> Truth:
    """The recorded step's targets in this package's units: fractions of the crop in place of cells."""
    targets, meta = (tensors(part) for part in standin.train_targets(SEED, 4))
    chosen, truncated = list(JOTR15_IN_SMPL30), meta["orig_joint_trunc"][..., 0]
    measured, fitted = targets["orig_joint_img"] / grid, targets["fit_joint_img"] / grid
    return Truth(
        measured[:, chosen], truncated[:, chosen], fitted[:, chosen], meta["fit_joint_trunc"][:, chosen, 0],
        targets["pose_param"].unflatten(1, (24, 3)), meta["fit_param_valid"].unflatten(1, (24, 3))[..., 0],
        targets["shape_param"], measured[..., :2], truncated, targets["orig_joint_cam"],
        meta["orig_joint_valid"][..., 0], meta["is_valid_fit"], meta["is_3D"],
    )  # fmt: skip


def golden_step() -> tuple[MeshModel, Found, Tensor, Truth]:
    model = MeshModel(network(SEED), body(SEED)).eval()
    model.network.requires_grad_(True)
    model.network.vposer.requires_grad_(False)
    model.zero_grad()
    inputs = tensors(standin.case_inputs(SEED + "train/", 4, 2, 62, 0.8))
    found, volume, _ = model(inputs["img"], inputs["joints"][..., :2], inputs["joints_mask"][..., 0])
    return model, found, volume, golden_truth()


def contrastive(recorded: dict[str, Any], volume: Tensor, found: Found, truth: Truth) -> tuple[Tensor, Tensor]:
    """Both losses of the samples with measured depth, at the recorded indices."""
    use = truth.is_3d > 0
    volume, predicted, true, known = (
        volume[use],
        found.joints_img[use],
        truth.joints_img[use],
        truth.joints_img_known[use],
    )

    def drawn(kind: str, *names: str) -> list[np.ndarray]:
        return [recorded[f"contrast/{kind}_idx_{name}"].astype(np.int64) for name in names]

    anchor, positive, negative = drawn("intra", "anchor", "pos_batch", "neg")
    usable = known.numpy().any(0)[anchor % 15]
    inter = Inter(*drawn("inter", "anchor", "pos", "neg_voxel"))
    return (
        intra_loss(volume, predicted, true, Intra(anchor, positive, negative, usable)),
        inter_loss(volume, predicted, inter),
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "contrast"])
def test_a_training_step(kind: str) -> None:
    recorded = load("train_step")
    model, found, volume, truth = golden_step()
    losses = mesh_losses(found, truth)
    expected = dict(zip(recorded[f"{kind}/loss_keys"], recorded[f"{kind}/loss_mean"], strict=True))
    for name, value in losses.items():
        np.testing.assert_allclose(value.item(), expected[f"{name}_0"], rtol=LOSS_RTOL, err_msg=name)
    total = model.weighting(losses)
    if kind == "contrast":
        intra, inter = contrastive(recorded, volume, found, truth)
        expected_contrast = [recorded["contrast/intra"], recorded["contrast/inter"]]
        np.testing.assert_allclose([intra.item(), inter.item()], expected_contrast, rtol=LOSS_RTOL)
        total = total + 0.1 * intra + 0.1 * inter
    np.testing.assert_allclose(total.item(), recorded[f"{kind}/total"], rtol=LOSS_RTOL)
    total.backward()
    np.testing.assert_allclose(model.weighting.params.grad, recorded[f"{kind}/grad_awl"], rtol=1e-4, atol=1e-6)
    ours = dict(model.network.named_parameters())
    rows = zip(*(recorded[f"{kind}/grad_{part}"] for part in ("keys", "norm", "first4")), strict=True)
    for key, norm, first in rows:
        gradient = ours[our_name(str(key))].grad
        assert gradient is not None, key
        np.testing.assert_allclose(gradient.norm().item(), norm, rtol=GRAD_NORM_RTOL, atol=1e-7, err_msg=key)
        own = gradient.flatten()[:4].numpy()
        np.testing.assert_allclose(own, first[: len(own)], rtol=0.02, atol=GRAD_NORM_RTOL * norm + 1e-8, err_msg=key)
    without = {our_name(str(key)) for key in recorded[f"{kind}/no_grad_keys"]}
    assert all(ours[name].grad is None for name in without if name in ours)


@pytest.mark.parametrize(
    ("true", "found", "expected"),
    [
        ([3.1, 0, 0], [3.0, 0, 0], [3.1, 0, 0]),
        ([3.1, 0, 0], [-3.1, 0, 0], [3.1 - 2 * math.pi, 0, 0]),
        ([0.7, 0, 0], [-0.7, 0, 0], [0.7, 0, 0]),
        ([0, 0, 0], [1.0, 2.0, 2.0], [0, 0, 0]),
    ],
    ids=["near", "across half a turn", "small angles stay", "identity"],
)
def test_the_nearer_turn(true: list[float], found: list[float], expected: list[float]) -> None:
    nearest = nearer_turn(torch.tensor([true]).float(), torch.tensor([found]))
    torch.testing.assert_close(nearest, torch.tensor([expected]).float(), atol=1e-5, rtol=0)


def test_the_nearer_turn_is_the_same_rotation() -> None:
    from jotr_deploy.body.torch_rotations import matrix_from_axis_angle

    random = torch.Generator().manual_seed(0)
    true, found = (3 * torch.randn(50, 3, generator=random) for _ in range(2))
    nearest = nearer_turn(true, found)
    assert (nearest != true).any()
    torch.testing.assert_close(matrix_from_axis_angle(nearest), matrix_from_axis_angle(true), atol=1e-4, rtol=0)
