from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from jotr_deploy.body.vposer import load_vposer
from jotr_deploy.datasets.synthetic.anatomy import joints_m
from jotr_deploy.datasets.synthetic.poses import sample_poses
from jotr_deploy.geometry.rotations import matrix_from_axis_angle
from jotr_deploy.training.run_config import read_config
from jotr_deploy.training.tasks import make_task
from jotr_deploy.training.tasks.prior_task import BLOCK, Options, PriorTask

CONFIG = Path(__file__).parents[2] / "configs/starter/prior.toml"


@pytest.fixture(scope="module")
def task() -> PriorTask:
    return PriorTask(Options(), seed=3)


def tensors(task: PriorTask, indices: list[int]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in task.samples(indices).items()}


def test_a_sample_depends_on_its_index_alone(task: PriorTask) -> None:
    indices = [5, BLOCK + 1, BLOCK - 1, 5]
    poses = task.samples(indices)["pose"]
    assert poses.shape == (4, 21, 3)
    assert poses.dtype == np.float32
    np.testing.assert_array_equal(poses[0], poses[3])
    assert len({pose.tobytes() for pose in poses}) == 3
    other = PriorTask(Options(), seed=3)
    for index, pose in zip(reversed(indices), reversed(poses), strict=True):
        np.testing.assert_array_equal(other.samples([index])["pose"][0], pose)
    assert not np.array_equal(PriorTask(Options(), seed=4).samples([5])["pose"][0], poses[0])


def test_joints_are_those_of_the_chain(task: PriorTask) -> None:
    poses = sample_poses(np.random.default_rng(0), 10)
    rotations = np.tile(np.eye(3), (10, 24, 1, 1))
    rotations[:, 1:22] = matrix_from_axis_angle(poses[:, :21])
    relative = joints_m(rotations)[1]
    made = task._joints(torch.from_numpy(rotations[:, 1:22]).float()).numpy()
    assert made.shape == (10, 30, 3)
    np.testing.assert_allclose(made[:, :24] - made[:, :1], relative, atol=1e-5)
    nose = np.linalg.norm(made[:, 24] - made[:, 15], axis=-1)
    np.testing.assert_allclose(nose, nose[0], atol=1e-5)


def test_the_loss_has_its_parts(task: PriorTask) -> None:
    torch.manual_seed(0)
    batch = tensors(task, list(range(16)))
    batch["pose"][0] = 0  # the rest pose: every rotation is the identity
    loss, parts = task.loss(batch, 0)
    assert set(parts) == {"joints_mm", "rotation", "kl"}
    assert float(parts["kl"].detach()) > 0
    only = {name: {**dict.fromkeys(Options.model_fields, 0.0), name: 2.0} for name in Options.model_fields}
    weighted = []
    for weights in only.values():
        torch.manual_seed(0)
        other = PriorTask(Options(**weights), seed=3)
        torch.manual_seed(0)
        weighted.append(float(other.loss(batch, 0)[0].detach()))
    assert all(value > 0 for value in weighted)
    defaults = Options().model_dump().values()
    assert float(loss.detach()) == pytest.approx(
        sum(w * v / 2 for w, v in zip(defaults, weighted, strict=True)), rel=1e-4
    )
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in task.model.parameters() if p.grad is not None)


@pytest.mark.slow
def test_it_learns_and_is_kept_as_a_vposer_snapshot(tmp_path: Path) -> None:
    task = PriorTask(Options(), seed=0)
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=2e-3)
    distances = []
    for step in range(120):
        loss, parts = task.loss(tensors(task, list(range(64 * step, 64 * (step + 1)))), step)
        distances.append(float(parts["joints_mm"].detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert np.mean(distances[-10:]) < 0.6 * distances[0]

    task.save(tmp_path / "prior.pt")
    decoder = load_vposer(tmp_path / "prior.pt")
    latent = torch.randn(4, 32)
    torch.testing.assert_close(decoder(latent), task.model.decoder(latent), rtol=0, atol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["prior.pt"]


def test_the_configuration_makes_the_task() -> None:
    task, config = make_task(read_config(CONFIG, ["prior.kl_weight=0.5"]))
    assert isinstance(task, PriorTask)
    assert config.options["kl_weight"] == 0.5
    with pytest.raises(ValidationError):
        Options(weight=1.0)  # type: ignore[call-arg]
