"""The task `prior`: a small variational autoencoder of natural poses, of which the decoder is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from jotr_deploy.body.lbs import joint_transforms
from jotr_deploy.body.smpl import JOINTS, stand_in
from jotr_deploy.body.torch_rotations import matrix_from_axis_angle
from jotr_deploy.body.vposer import BODY_JOINTS, HIDDEN, LATENT, VPoserDecoder
from jotr_deploy.datasets.synthetic.poses import sample_poses
from jotr_deploy.skeletons import SMPL30_INDEX
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.writing import written_aside
from jotr_deploy.training.held_out import Figure, HeldOut, drawn_count
from jotr_deploy.training.run_config import Evaluation

FIGURES: Mapping[str, Figure] = {"joints_mm": Figure("distance of the joints", "mm")}
BLOCK = 2048  # poses drawn at once: one by one they would take thirty times as long


class Options(BaseModel):
    """The table `[prior]` of a configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rotation_weight: Annotated[float, Field(ge=0)] = 5.0
    """Weight of the mean squared difference of matrix entries."""
    joint_weight: Annotated[float, Field(ge=0)] = 100.0
    """Weight of the mean squared distance of the 30 joints, in square metres."""
    kl_weight: Annotated[float, Field(ge=0)] = 2e-3
    """Weight of the divergence of the latent numbers from the standard normal distribution, summed over them."""


class PosePrior(nn.Module):
    """Encoder of 21 rotations into the mean and spread of 32 latent numbers, and the decoder of VPoser v1."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(9 * BODY_JOINTS, HIDDEN), nn.LeakyReLU(0.2),
            nn.Linear(HIDDEN, HIDDEN), nn.LeakyReLU(0.2),
            nn.Linear(HIDDEN, 2 * LATENT),
        )  # fmt: skip
        self.decoder = VPoserDecoder()

    def encode(self, rotations: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 21, 3, 3) -> mean and standard deviation of the latent numbers, (B, 32) each."""
        mean, spread = self.encoder(rotations.flatten(1)).chunk(2, -1)
        return mean, F.softplus(spread)


class PriorTask:
    """The task `prior`: trains a `PosePrior` on new poses; see `tasks.Task`."""

    def __init__(self, options: Options, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = PosePrior()
        self._options, self._seed = options, seed
        body = stand_in()
        self._rest_joints = torch.from_numpy(body.regressor_30() @ body.v_template)
        self._block: tuple[int, Array] | None = None

    def samples(self, indices: Sequence[int]) -> dict[str, Array]:
        """`pose` (N, 21, 3) axis-angle of joints 1..21, radians."""
        return {"pose": np.stack([self._poses(index // BLOCK)[index % BLOCK] for index in indices])}

    def _poses(self, block: int) -> Array:
        if self._block is None or self._block[0] != block:
            rng = np.random.default_rng((self._seed, block))
            self._block = block, sample_poses(rng, BLOCK)[:, :BODY_JOINTS]
        return self._block[1]

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstruction of rotations and joints from one draw of the latent numbers, and their divergence."""
        options = self._options
        true = matrix_from_axis_angle(batch["pose"])
        mean, spread = self.model.encode(true)
        made = matrix_from_axis_angle(self.model.decoder(mean + spread * torch.randn_like(spread)))
        rotation = (made - true).square().mean()
        distance = (self._joints(made) - self._joints(true)).square().sum(-1)
        kl = (mean.square() + spread.square() - 1).sum(-1).mean() / 2 - spread.log().sum(-1).mean()
        loss = options.rotation_weight * rotation + options.joint_weight * distance.mean() + options.kl_weight * kl
        return loss, {"joints_mm": 1000 * distance.sqrt().mean(), "rotation": rotation, "kl": kl}

    def _joints(self, rotations: Tensor) -> Tensor:
        """(B, 21, 3, 3) -> (B, 30, 3) joints of the stand-in body about its upright pelvis, metres.

        Without a mesh: the points of the face move with the head.
        """
        count = len(rotations)
        unmoved = torch.eye(3, device=rotations.device).expand(count, 1, 3, 3)
        hands = unmoved.expand(count, JOINTS - 1 - BODY_JOINTS, 3, 3)
        rest = self._rest_joints.to(rotations.device)
        rotation, shift = joint_transforms(
            torch.cat([unmoved, rotations, hands], 1), rest[:JOINTS].expand(count, JOINTS, 3)
        )
        owner = [*range(JOINTS), *[SMPL30_INDEX["Head"]] * (len(rest) - JOINTS)]
        return (rotation[:, owner] @ rest[..., None])[..., 0] + shift[:, owner]

    def held_out(self, wanted: Evaluation) -> HeldOut:
        """Distance of the joints of other poses from those decoded from the mean of their latent numbers."""
        count = drawn_count(wanted, self._seed)
        return HeldOut(FIGURES, count, PriorTask(self._options, wanted.seed).samples, self._measure, _figures)

    def _measure(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        true = matrix_from_axis_angle(batch["pose"])
        made = matrix_from_axis_angle(self.model.decoder(self.model.encode(true)[0]))
        return {"joints_m": (self._joints(made) - self._joints(true)).norm(dim=-1)}

    def save(self, path: Path) -> None:
        """Write the decoder as a VPoser v1 snapshot that `body.vposer.load_vposer` reads."""
        with written_aside(path) as aside:
            torch.save(self.model.decoder.state_dict(), aside)


def _figures(rows: dict[str, Array]) -> dict[str, float]:
    return {"joints_mm": 1000 * float(rows["joints_m"].mean(dtype=np.float64))}


def make(options: Options, seed: int) -> PriorTask:
    """Task for the options of a configuration."""
    return PriorTask(options, seed)
