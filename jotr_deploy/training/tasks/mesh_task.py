"""The task `mesh`: JOTR of any size on synthetic scenes, with the stand-in body and a frozen pose prior."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from jotr_deploy.body.joint_regression import JointsBody
from jotr_deploy.body.lbs import SkinnedBody
from jotr_deploy.body.smpl import BodyModel, stand_in
from jotr_deploy.body.vposer import load_vposer
from jotr_deploy.config import ModelConfig
from jotr_deploy.model.checkpoint import build_model, load_checkpoint, save_checkpoint
from jotr_deploy.model.initialise import initialise
from jotr_deploy.model.jotr import JOTR, place_joints
from jotr_deploy.skeletons import JOTR15_IN_SMPL30, SMPL30
from jotr_deploy.support.aliases import Array
from jotr_deploy.training.contrastive import contrast
from jotr_deploy.training.found_joints import BlazeJoints, FoundJoints
from jotr_deploy.training.held_norms import hold_norms
from jotr_deploy.training.held_out import HeldOut, drawn_count
from jotr_deploy.training.held_out_people import EVALUATED, JOINTS, HeldOutPeople, joint_errors
from jotr_deploy.training.losses import AutomaticWeighting, Found, Truth, masked_l1, mesh_losses, nearer_turn
from jotr_deploy.training.mesh_samples import USES, Given, Pose, SceneSamples
from jotr_deploy.training.parallel import gathered
from jotr_deploy.training.run_config import Evaluation, TrainingError

LABEL = "trained on synthetic people only"
_HANDS = (22, 23)  # not in the pose prior; fits to pictures do not know ankles, feet and wrists either, these scenes do


class Options(BaseModel):
    """The table `[mesh]`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    prior: Path | None = None
    """Decoder of the pose prior, VPoser format; it is not trained. Without it that of `start`."""
    model: ModelConfig = ModelConfig()
    start: Path | None = None
    """Checkpoint of this package to start from; random weights without it."""
    pose: Path | None = None
    """Weights of a run of the task `pose`, which then finds the joints of some samples."""
    people: Annotated[int, Field(ge=1)] | None = None
    """People to train on, round after round, kept in memory; without it new ones come in all the time."""
    blazepose: bool = False
    """BlazePose, which `jotr-deploy fetch people` gets, finds the joints of some samples: with `pose`, of every other
    one of these."""
    given: Given = Given()
    wide: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of scenes with wider poses, cameras, lights, clothes and lenses."""
    drop_joints: Annotated[float, Field(ge=0, le=1)] = 0.1
    intra: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the joint-to-joint contrastive loss: 0.01 in the paper, 0.1 in the fine-tuning of its code."""
    inter: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the joint-to-non-joint contrastive loss; as `intra`."""
    read_back: Annotated[float, Field(ge=0)] = 0.0
    """Weight of an auxiliary loss: a linear map, trained with the network and not saved, has to find the given joints
    in the last feature map, so that the backbone keeps their exact positions."""
    uses: Annotated[int, Field(ge=1)] = USES
    """Times that a drawn person is trained on, without `people`."""
    freeze_bn: bool = False
    """Leave the running statistics of batch norms as they are, and use them."""


class MeshModel(nn.Module):
    """The network without a body, the joints of a body, learned weights of the losses, and the map of `read_back`."""

    def __init__(self, network: JOTR, body: BodyModel, freeze_bn: bool = False, read_back: bool = False) -> None:
        super().__init__()
        self.network, self.weighting, self.freeze_bn = network, AutomaticWeighting(), freeze_bn
        self.joints = JointsBody(SkinnedBody(body))
        self.reader = JointReader(network.backbone.channels, network.config.voxel_grid) if read_back else None

    def train(self, mode: bool = True) -> MeshModel:
        """The usual, but frozen batch norms stay in evaluation mode."""
        super().train(mode)
        if self.freeze_bn:
            hold_norms(self)
        return self

    def forward(self, image: Tensor, joints: Tensor, joints_mask: Tensor) -> tuple[Found, Tensor, Tensor]:
        """The network's inputs -> what it finds, the feature volume (B, D, H, W, C), and the last feature map.

        Only the image and the volume are computed in the precision of an autocast: coordinates need float32.
        """
        network = self.network
        features = network.features(image, joints, joints_mask)
        volume = network.lifting(features).float()
        with torch.autocast(image.device.type, enabled=False):
            features = features.float()
            found = network.read(features, volume)
            side = network.config.crop_side
            _, joints3d, cells = place_joints(self.joints(found.pose, found.betas), found.cam, side)
            fractions = cells / network.config.heatmap_side
        return Found(found.joints_img, found.pose, found.betas, fractions, joints3d), volume, features


class JointReader(nn.Module):
    """Linear map from the last feature map (B, C, G, G) to the given joints."""

    def __init__(self, channels: int, grid: int) -> None:
        super().__init__()
        self.map = nn.Linear(channels * grid * grid, 2 * len(SMPL30))
        nn.init.zeros_(self.map.weight)
        nn.init.constant_(self.map.bias, 0.5)  # the middle of the crop

    def forward(self, features: Tensor, joints: Tensor, joints_mask: Tensor) -> Tensor:
        """Mean absolute error of the joints (B, 30, 2), fractions of the crop; of 0 where the mask (B, 30) is 0."""
        read = self.map(features.flatten(1)).view_as(joints)
        return masked_l1(read, joints, joints_mask[..., None]).mean()


class MeshTask:
    """The task `mesh`; see `tasks.Task`."""

    def __init__(
        self, model: MeshModel, options: Options, seed: int, samples: Callable[[Sequence[int]], dict[str, Array]]
    ) -> None:
        self.model, self.options, self.seed, self.draw = model, options, seed, samples

    def samples(self, indices: Sequence[int]) -> dict[str, Array]:
        """Samples of `mesh_samples.SceneSamples.sample`."""
        return self.draw(indices)

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Automatically weighted losses, plus those of `read_back` and contrast if they have weights."""
        image = batch["image"].float() / 255
        found, volume, features = self.model(image, batch["joints"], batch["joints_mask"])
        with torch.autocast(image.device.type, enabled=False):
            truth = truth_of(batch, found)
            parts = mesh_losses(found, truth)
            total = self.model.weighting(parts)
            parts["l1"] = torch.stack(list(parts.values())).sum().detach()
            if self.model.reader is not None:
                side = self.model.network.config.heatmap_side
                parts["read_back"] = self.model.reader(features, batch["joints"] / side, batch["joints_mask"])
                total = total + self.options.read_back * parts["read_back"]
            if self.options.intra or self.options.inter:
                rng = np.random.default_rng((self.seed, step))  # equal in all processes
                volume, predicted, true, known = map(
                    gathered, (volume, found.joints_img, truth.joints_img, truth.joints_img_known)
                )
                parts["intra"], parts["inter"] = contrast(rng, volume, predicted, true, known)
                total = total + self.options.intra * parts["intra"] + self.options.inter * parts["inter"]
        return total, parts

    def held_out(self, wanted: Evaluation) -> HeldOut:
        """Errors of people of other scenes with true boxes and noisy joints, as `eval` measures them."""
        config = self.model.network.config
        people = HeldOutPeople(wanted.seed, config.crop_side, config.crop_factor)
        return HeldOut(JOINTS, drawn_count(wanted, self.seed), people, self._measure, joint_errors)

    def _measure(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        found, *_ = self.model(batch["image"], batch["joints"], batch["joints_mask"])
        return {"found_m": found.joints_cam[:, EVALUATED], "true_m": batch["true_m"]}

    def save(self, path: Path) -> None:
        """A checkpoint of this package with the pose prior and the stand-in body, for `jotr-deploy export`."""
        network = self.model.network
        whole = JOTR(network.config, stand_in())
        whole.load_state_dict({name: value.cpu() for name, value in network.state_dict().items()}, strict=False)
        save_checkpoint(path, whole, (LABEL,))


def truth_of(batch: dict[str, Tensor], found: Found) -> Truth:
    """Ground truth for the losses from a batch of `SceneSamples`; measured joints and those of the fit are the same."""
    joints, known, chosen = batch["joints_img"], batch["joints_known"], list(JOTR15_IN_SMPL30)
    of_15, known_15 = joints[:, chosen], known[:, chosen]
    pose_known = torch.ones_like(batch["pose"][..., 0])
    pose_known[:, list(_HANDS)] = 0
    every = torch.ones_like(known)
    pose = nearer_turn(batch["pose"], found.pose)
    return Truth(
        of_15, known_15, of_15, known_15, pose, pose_known, batch["betas"], joints[..., :2], known, batch["joints_cam"],
        every, every[:, 0], every[:, 0],
    )  # fmt: skip


def make(options: Options, seed: int) -> MeshTask:
    """Task on scenes of `seed`, which also seeds the initial weights.

    Raises:
        BodyFileError: no prior of that name, or not in VPoser format.
        CheckpointError, TrainingError: a checkpoint to start from that is damaged or of another network.
        BundleError: BlazePose was never fetched.
    """
    network = start_network(options.model, options.prior, options.start, seed)
    poses: list[Pose] = [] if options.pose is None else [FoundJoints(options.pose)]
    if options.blazepose:
        poses.append(BlazeJoints())
    samples: Any = SceneSamples(
        seed, options.model.crop_side, options.model.crop_factor, options.drop_joints, tuple(poses), options.given,
        options.wide, options.people, options.uses,
    )  # fmt: skip
    model = MeshModel(network, stand_in(), options.freeze_bn, options.read_back > 0)
    return MeshTask(model, options, seed, samples)


def start_network(config: ModelConfig, prior: Path | None, start: Path | None, seed: int) -> JOTR:
    """Network without a body to train, from a checkpoint or with random weights; the pose prior is frozen.

    Raises:
        BodyFileError: no prior of that name, or not in VPoser format.
        CheckpointError, TrainingError: a checkpoint to start from that is damaged or of another network.
    """
    decoder = None if prior is None else load_vposer(prior)
    if start is None and decoder is None:
        raise TrainingError(
            "mesh.prior: needed without mesh.start", "give a VPoser file, or a checkpoint to start from"
        )
    if start is None:
        network = initialise(JOTR(config, None), seed)
        network.vposer = decoder  # type: ignore[assignment]
    else:
        checkpoint = load_checkpoint(start)
        if checkpoint.config != config:
            raise TrainingError(
                f"{start}: a network of another configuration", "write its configuration under the task's model table"
            )
        network = build_model(checkpoint, None, decoder)
    network.requires_grad_(True)
    network.vposer.requires_grad_(False)
    # Convolutions are up to a third faster so, also on CPUs.
    network.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network
