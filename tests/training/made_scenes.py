"""A tiny mesh task whose samples need no renderer: people as coloured blobs on noise, poses that the prior can make."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from tiny import TINY

from jotr_deploy.body.lbs import SkinnedBody
from jotr_deploy.body.smpl import stand_in
from jotr_deploy.body.torch_rotations import matrix_from_axis_angle
from jotr_deploy.body.vposer import VPoserDecoder
from jotr_deploy.config import ModelConfig
from jotr_deploy.datasets.synthetic.poses import sample_poses
from jotr_deploy.model.initialise import initialise
from jotr_deploy.model.jotr import JOTR, project_cells
from jotr_deploy.training.mesh_samples import truth
from jotr_deploy.training.run_config import TrainConfig
from jotr_deploy.training.tasks.mesh_task import MeshTask, Options, make

STILL = TINY.model_copy(update={"dropout": 0.0})


def prior_file(folder: Path) -> Path:
    """A pose prior in VPoser format: the start weights of a network, which move around a standing pose."""
    decoder = initialise(JOTR(TINY, None), 0).vposer
    torch.save(decoder.state_dict(), folder / "prior.pt")
    return folder / "prior.pt"


def linear_prior_file(folder: Path) -> Path:
    """A pose prior in VPoser format that needs no training: the 32 principal components of natural poses.

    Both hidden layers pass z on as the pair z, -z, of which a leaky ReLU keeps the difference.
    """
    poses = torch.from_numpy(sample_poses(np.random.default_rng(0), 2000)[:, :21].astype(np.float32))
    six = matrix_from_axis_angle(poses)[..., :2].flatten(1)
    _, size, directions = torch.linalg.svd(six - six.mean(0), full_matrices=False)
    basis = directions[:32].T * size[:32] / len(six) ** 0.5
    decoder, z = VPoserDecoder().requires_grad_(False), torch.arange(32)
    for parameter in decoder.parameters():
        parameter.zero_()
    first, second, last = decoder.bodyprior_dec_fc1, decoder.bodyprior_dec_fc2, decoder.bodyprior_dec_out
    first.weight[z, z], first.weight[32 + z, z] = 1, -1
    second.weight[z, z], second.weight[z, 32 + z] = 1 / 1.2, -1 / 1.2
    second.weight[32 + z, z], second.weight[32 + z, 32 + z] = -1 / 1.2, 1 / 1.2
    last.weight[:, :64] = torch.cat([basis, -basis], 1) / 1.2
    last.bias.copy_(six.mean(0))
    torch.save(decoder.state_dict(), folder / "prior.pt")
    return folder / "prior.pt"


class FakeScenes:
    """Deterministic samples of an index, as `SceneSamples` gives them; `count` different ones."""

    def __init__(self, prior: VPoserDecoder, config: ModelConfig, count: int | None = None) -> None:
        self.prior, self.side, self.count = prior, config.crop_side, count

    def __call__(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
        samples = [self.sample(index if self.count is None else index % self.count) for index in indices]
        return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}

    def sample(self, index: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(index)
        pose, betas = np.zeros((24, 3), np.float32), rng.normal(0, 0.5, 10).astype(np.float32)
        with torch.no_grad():
            latent = torch.from_numpy(rng.normal(0, 0.4, (1, 32)).astype(np.float32))
            pose[1:22] = self.prior(latent)[0].numpy()
        turn = rng.uniform(-1, 1)  # half a turn about x from y up to y down, then about the person's own axis
        pose[0] = np.pi * np.array([np.cos(turn / 2), 0, -np.sin(turn / 2)])
        with torch.no_grad():
            _, joints = skinned()(torch.from_numpy(pose)[None], torch.from_numpy(betas)[None])
            placed = joints - joints[:, :1] + torch.tensor([0.05 * turn, 0.0, 40.0])
            joints_px = 4 * project_cells(placed, self.side)[0].numpy()
        image = rng.integers(0, 60, (3, self.side, self.side), np.uint8)
        rows, columns = np.mgrid[: self.side, : self.side]
        for joint, (x, y) in enumerate(joints_px):
            near = (columns - x) ** 2 + (rows - y) ** 2 < 9
            image[joint % 3][near] = 255 - 7 * joint
        mask = (rng.random(30) < 0.8).astype(np.float32)
        return {
            "image": image, "joints": (joints_px / 4).astype(np.float32), "joints_mask": mask,
            **truth(joints_px, (joints - joints[:, :1])[0].numpy(), self.side), "pose": pose, "betas": betas,
        }  # fmt: skip


@cache
def skinned() -> SkinnedBody:
    return SkinnedBody(stand_in())


def fake_task(
    folder: Path, model: ModelConfig = STILL, count: int | None = None, seed: int = 3, **options: object
) -> MeshTask:
    """The mesh task on fake scenes."""
    prior = folder / "prior.pt"
    chosen = Options(prior=prior if prior.exists() else prior_file(folder), model=model, **options)  # type: ignore[arg-type]
    task = make(chosen, seed)
    task.draw = FakeScenes(task.model.network.vposer, model, count)
    return task


def config(**values: object) -> TrainConfig:
    """A short run."""
    return TrainConfig(**{"task": "mesh", "seed": 3, "steps": 6, "batch": 2, "lr": 1e-3, "warmup": 2, **values})  # type: ignore[arg-type]
