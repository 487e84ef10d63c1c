"""The task `qat`: continues training a mesh network with the rounding of its calibrated file, so that int8 costs less.

Its targets are the float32 outputs of the original network, not the labels of the scenes: labels would move the network
that drift is measured from, and a gain would be due to longer training.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from jotr_deploy.body.joint_regression import JointsBody
from jotr_deploy.body.lbs import SkinnedBody
from jotr_deploy.body.smpl import stand_in
from jotr_deploy.model.checkpoint import build_model, load_checkpoint, save_checkpoint
from jotr_deploy.model.jotr import JOTR, place_joints
from jotr_deploy.support.aliases import Array
from jotr_deploy.training.fake_quant import fake_quantized
from jotr_deploy.training.held_out import Figure, HeldOut, drawn_count
from jotr_deploy.training.held_out_people import EVALUATED, JOINTS, HeldOutPeople, joint_errors
from jotr_deploy.training.losses import Found, Truth, mesh_losses, nearer_turn
from jotr_deploy.training.mesh_samples import SceneSamples
from jotr_deploy.training.qdq_positions import read_placement
from jotr_deploy.training.run_config import Evaluation


class Options(BaseModel):
    """The table `[qat]`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    start: Path
    """Checkpoint of the trained network, as `export` takes it."""
    bundle: Path
    """Bundle exported from it and calibrated for int8; its blocks and ranges are used in training."""
    drop_joints: Annotated[float, Field(ge=0, le=1)] = 0.1


FIGURES: Mapping[str, Figure] = {"drift_mm": Figure("drift of the joints", "mm"), **JOINTS}


class QatModel(nn.Module):
    """Network to train."""

    def __init__(self, network: JOTR) -> None:
        super().__init__()
        self.network = network


class QatTask:
    """The task `qat`; see `tasks.Task`."""

    def __init__(self, options: Options, seed: int) -> None:
        self.options, self.seed, self.checkpoint = options, seed, load_checkpoint(options.start)
        self.placement = read_placement(options.bundle, self.checkpoint)
        self.teacher = build_model(self.checkpoint, None)
        self.model = QatModel(_trained(self.teacher))
        self.body = JointsBody(SkinnedBody(self.checkpoint.body or stand_in()))
        with torch.no_grad():
            fake_quantized(self.teacher, self.placement)  # raises if they do not match
        config = self.checkpoint.config
        scenes: Any = SceneSamples(seed, config.crop_side, config.crop_factor, options.drop_joints)
        self.draw: Callable[[Sequence[int]], dict[str, Array]] = scenes

    def samples(self, indices: Sequence[int]) -> dict[str, Array]:
        """Samples of `mesh_samples.SceneSamples.sample`."""
        return self.draw(indices)

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of the six losses against the unrounded outputs of `start`; all of it in float32."""
        device = batch["joints"].device
        feeds = (batch["image"].float() / 255, batch["joints"], batch["joints_mask"])
        with torch.autocast(device.type, enabled=False):
            found = self.find(fake_quantized(self.model.network, self.placement), feeds)
            with torch.no_grad():
                said = self.find(self.teacher.to(device), feeds)
            parts = mesh_losses(found, truth_said(said, found))
        return torch.stack(list(parts.values())).sum(), parts

    def find(self, network: JOTR, feeds: tuple[Tensor, Tensor, Tensor]) -> Found:
        """Predictions of a network without a body."""
        features = network.features(*feeds)
        found = network.read(features, network.lifting(features))
        joints_30 = self.body.to(features.device)(found.pose, found.betas)
        _, joints3d, cells = place_joints(joints_30, found.cam, network.config.crop_side)
        return Found(found.joints_img, found.pose, found.betas, cells / network.config.heatmap_side, joints3d)

    def held_out(self, wanted: Evaluation) -> HeldOut:
        """Distance from the unrounded network, and both errors, on people of other scenes as `eval` gives them."""
        config = self.checkpoint.config
        people = HeldOutPeople(wanted.seed, config.crop_side, config.crop_factor)
        return HeldOut(FIGURES, drawn_count(wanted, self.seed), people, self._measure, _figures)

    def _measure(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        feeds = (batch["image"], batch["joints"], batch["joints_mask"])
        found = self.find(fake_quantized(self.model.network, self.placement), feeds)
        said = self.find(self.teacher.to(batch["image"].device), feeds)
        return {
            "found_m": found.joints_cam[:, EVALUATED], "said_m": said.joints_cam[:, EVALUATED],
            "true_m": batch["true_m"],
        }  # fmt: skip

    def save(self, path: Path) -> None:
        """Write an ordinary checkpoint, with the labels and the body of `start`."""
        whole = JOTR(self.checkpoint.config, self.checkpoint.body)
        state = {name: value.cpu() for name, value in self.model.network.state_dict().items()}
        whole.load_state_dict(state, strict=False)
        save_checkpoint(path, whole, self.checkpoint.labels)


def _figures(rows: dict[str, Array]) -> dict[str, float]:
    return {"drift_mm": joint_errors(rows, true="said_m")["mpjpe_mm"], **joint_errors(rows)}


def truth_said(said: Found, found: Found) -> Truth:
    """Predictions of one network as ground truth for another, all of it known."""
    pose = nearer_turn(said.pose, found.pose)
    of_15, of_24, of_30 = (torch.ones_like(value[..., 0]) for value in (said.joints_img, pose, said.joints_proj))
    every = of_30[:, 0]
    return Truth(
        said.joints_img, of_15, said.joints_img, of_15, pose, of_24, said.betas, said.joints_proj, of_30,
        said.joints_cam, of_30, every, every,
    )  # fmt: skip


def _trained(plain: JOTR) -> JOTR:
    network = copy.deepcopy(plain).requires_grad_(True)
    network.vposer.requires_grad_(False)
    # Convolutions are up to a third faster so, also on CPUs.
    network.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def make(options: Options, seed: int) -> QatTask:
    """Task on scenes of `seed`.

    Raises:
        CheckpointError: no such checkpoint, damaged, or without its pose prior.
        BundleError: not an intact bundle, or not calibrated for int8.
        TrainingError: a bundle of another network, or quantised differently.
    """
    return QatTask(options, seed)
