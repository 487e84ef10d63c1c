"""The mesh task: it learns, resumes, agrees between processes, and what it saves can be exported."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from launch import first_moments, in_two, scalars
from made_scenes import STILL, config, fake_task, linear_prior_file, prior_file
from tiny import TINY
from torch import nn
from two_processes import step as one_process

from jotr_deploy.errors import BodyFileError
from jotr_deploy.export.assemble import load_network
from jotr_deploy.model.checkpoint import load_checkpoint
from jotr_deploy.training.loop import Fitted, fit
from jotr_deploy.training.mesh_samples import SceneSamples
from jotr_deploy.training.run_config import TrainingError
from jotr_deploy.training.tasks.mesh_task import LABEL, JointReader, MeshTask, Options, make

pytestmark = pytest.mark.slow


def test_32_scenes_are_overfitted(tmp_path: Path) -> None:
    linear_prior_file(tmp_path)
    task = fake_task(tmp_path)
    scenes = SceneSamples(0, STILL.crop_side, STILL.crop_factor, 0.1)(range(32))
    task.draw = lambda indices: {name: values[[i % 32 for i in indices]] for name, values in scenes.items()}
    everybody = {name: torch.from_numpy(values) for name, values in scenes.items()}
    with torch.no_grad():
        before = float(fake_task(tmp_path).loss(everybody, 0)[1]["l1"])
    fit(task, config(steps=240, batch=16, lr=4e-3, warmup=30, schedule="cosine"), tmp_path / "run")
    assert before / scalars(tmp_path / "run", "l1")[-1] > 10  # of the last 20 steps


def stop_after(task: MeshTask, steps: int) -> MeshTask:
    """A SIGTERM arrives while this step is computed."""
    import signal

    plain = task.loss

    def loss(batch: dict[str, torch.Tensor], step: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if step == steps - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(batch, step)

    task.loss = loss  # type: ignore[method-assign]
    return task


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resumed_to_the_bit(tmp_path: Path, precision: str) -> None:
    """With dropout, batch norm statistics, contrastive draws and the map of `read_back`."""
    settings, run = config(precision=precision, steps=4), {"model": TINY, "intra": 0.1, "inter": 0.1, "read_back": 1.0}
    fit(fake_task(tmp_path, **run), settings, tmp_path / "whole")
    assert fit(stop_after(fake_task(tmp_path, **run), 2), settings, tmp_path / "parts") == Fitted(2, False)
    assert fit(fake_task(tmp_path, **run), settings, tmp_path / "parts", resume=True) == Fitted(4, True)
    whole, parts = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "parts"))
    assert all(torch.equal(whole["model"][name], parts["model"][name]) for name in whole["model"])
    assert (tmp_path / "whole" / "weights.pt").read_bytes() == (tmp_path / "parts" / "weights.pt").read_bytes()


def test_two_processes_are_one_with_the_doubled_batch(tmp_path: Path) -> None:
    """With the contrastive losses, which compare people of both processes."""
    prior_file(tmp_path)
    together, alone = in_two(tmp_path, 3, 0.1)["paper"], one_process(tmp_path, 6, 0.1)
    for name in ("loss", "l1", "intra", "inter"):
        np.testing.assert_allclose(scalars(together, name), scalars(alone, name), rtol=1e-5, err_msg=name)
    moments = [first_moments(run) for run in (together, alone)]
    assert moments[1].abs().max() > 1e-4
    torch.testing.assert_close(moments[0], moments[1], rtol=1e-3, atol=1e-6)


def test_saved_weights_are_a_checkpoint_with_body_and_prior(tmp_path: Path) -> None:
    task = fake_task(tmp_path)
    fit(task, config(steps=1), tmp_path / "run")
    loaded = load_network(tmp_path / "run" / "weights.pt")
    assert loaded.labels == (LABEL, "stand-in body")
    assert loaded.model.body is not None
    batch = {name: torch.from_numpy(values) for name, values in task.samples(range(3)).items()}
    with torch.no_grad():
        out = loaded.model(batch["image"].float() / 255, batch["joints"], batch["joints_mask"])
        found, *_ = task.model(batch["image"].float() / 255, batch["joints"], batch["joints_mask"])
    torch.testing.assert_close(out.joints3d, found.joints_cam, atol=1e-4, rtol=0)
    torch.testing.assert_close(out.joints_proj / STILL.heatmap_side, found.joints_proj, atol=1e-4, rtol=0)
    torch.testing.assert_close(out.pose, found.pose)
    prior = torch.load(tmp_path / "prior.pt", weights_only=True)
    assert all(torch.equal(loaded.model.vposer.state_dict()[name], value) for name, value in prior.items())


def test_reading_back_reaches_the_backbone_and_is_not_kept(tmp_path: Path) -> None:
    """Of the losses only `read_back` counts: the given joints are found ever better in the last feature map."""
    task = fake_task(tmp_path, read_back=1.0)
    plain = task.loss

    def loss(batch: dict[str, torch.Tensor], step: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        _, parts = plain(batch, step)
        return parts["read_back"], parts

    task.loss = loss  # type: ignore[method-assign]
    first = next(task.model.network.backbone.parameters()).clone()
    fit(task, config(steps=60, batch=16, lr=4e-3), tmp_path / "run")
    errors = scalars(tmp_path / "run", "read_back")
    assert errors[-1] < 0.7 * errors[0]
    assert not torch.equal(first, next(task.model.network.backbone.parameters()))
    assert load_checkpoint(tmp_path / "run" / "weights.pt").weights.keys() >= task.model.network.state_dict().keys()
    assert not any("reader" in name for name in load_checkpoint(tmp_path / "run" / "weights.pt").weights)


def test_joints_that_are_not_given_cost_nothing() -> None:
    reader, joints, mask = JointReader(4, 2), torch.rand(3, 30, 2), torch.zeros(3, 30)
    features = torch.rand(3, 4, 2, 2)
    assert reader(features, joints, mask).item() == 0
    mask[0, 7] = 1
    expected = (joints[0, 7] - 0.5).abs().sum() / joints.numel()
    torch.testing.assert_close(reader(features, joints, mask), expected)


def test_frozen_batch_norms(tmp_path: Path) -> None:
    for frozen in (True, False):
        task = fake_task(tmp_path, freeze_bn=frozen)
        statistics = [module.running_mean for module in task.model.modules() if isinstance(module, nn.BatchNorm2d)]
        before = [value.clone() for value in statistics]
        fit(task, config(steps=1), tmp_path / f"run-{frozen}")
        same = all(torch.equal(a, b) for a, b in zip(before, statistics, strict=True))
        assert same == frozen


def test_starting_from_a_checkpoint(tmp_path: Path) -> None:
    fit(fake_task(tmp_path), config(steps=1), tmp_path / "run")
    weights = tmp_path / "run" / "weights.pt"
    task = fake_task(tmp_path, start=weights, seed=8)
    stored = load_checkpoint(weights).weights
    assert all(torch.equal(value, stored[name]) for name, value in task.model.network.state_dict().items())
    assert all(p.requires_grad != name.startswith("vposer.") for name, p in task.model.network.named_parameters())
    with pytest.raises(TrainingError, match="a network of another configuration"):
        fake_task(tmp_path, model=STILL.model_copy(update={"d_model": 64}), start=weights)


def test_a_prior_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BodyFileError, match="no such VPoser file"):
        make(Options(prior=tmp_path / "none.pt", model=TINY), 0)


def test_the_prior_of_the_start(tmp_path: Path) -> None:
    fit(fake_task(tmp_path), config(steps=1), tmp_path / "run")
    network = make(Options(start=tmp_path / "run" / "weights.pt", model=STILL), 0).model.network
    stored = load_checkpoint(tmp_path / "run" / "weights.pt").weights
    assert all(torch.equal(value, stored[f"vposer.{name}"]) for name, value in network.vposer.state_dict().items())
    with pytest.raises(TrainingError, match=r"needed without mesh\.start"):
        make(Options(model=TINY), 0)


def test_the_truth_of_a_perfect_network_costs_nothing(tmp_path: Path) -> None:
    """Feeding back what is true: every loss vanishes, so units and frames of truth and network are the same."""
    from jotr_deploy.model.jotr import place_joints
    from jotr_deploy.skeletons import JOTR15_IN_SMPL30
    from jotr_deploy.training.losses import Found, mesh_losses
    from jotr_deploy.training.tasks.mesh_task import truth_of

    task = fake_task(tmp_path)
    batch = {name: torch.from_numpy(values) for name, values in task.samples(range(4)).items()}
    joints = task.model.joints(batch["pose"], batch["betas"])
    turned = batch["pose"].clone()
    turned[:, 0] *= 1 - 2 * np.pi / turned[:, 0].norm(dim=-1, keepdim=True)  # the same rotation, the other vector
    found = Found(
        batch["joints_img"][:, list(JOTR15_IN_SMPL30)], turned, batch["betas"], batch["joints_img"][..., :2],
        place_joints(joints, torch.zeros(4, 3), 64)[1],
    )  # fmt: skip
    losses = mesh_losses(found, truth_of(batch, found))
    assert all(float(value) < 1e-5 for value in losses.values()), losses
