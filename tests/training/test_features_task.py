"""The task of the features: samples, bank, steps, resuming, configurations, and what is refused."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_sets import write
from torch.nn import functional as F

from jotr_deploy.errors import FitError, JotrDeployError
from jotr_deploy.fitting.extractor import Extractor, ExtractorConfig
from jotr_deploy.fitting.trained import load_trained
from jotr_deploy.training.feature_samples import DrawnFeatureSamples
from jotr_deploy.training.loop import Fitted, fit
from jotr_deploy.training.run_config import TrainConfig, TrainingError, read_config
from jotr_deploy.training.tasks import make_task
from jotr_deploy.training.tasks.features_task import FeaturesTask, Options, make

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = {"side": 64, "depth": 10, "width": 8, "bottom": 16, "ups": ((16, 16), (16, 8), (8, 8)), "channels": 8}


def options(**values: Any) -> Options:
    return Options(**{"network": SMALL, "kernels": 60, "precision": 400.0, "q_max": 4.6, "clutter": 64, **values})


def config(**values: Any) -> TrainConfig:
    return TrainConfig(**{"task": "features", "steps": 4, "batch": 2, "lr": 1e-3, "precision": "fp32", **values})


def batch_of(task: FeaturesTask, *numbers: int) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values) for name, values in task.samples(numbers).items()}


# ── samples ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_samples_depend_on_their_index_alone() -> None:
    together, alone = make(options(patches=0.5), 5).samples(range(6)), make(options(patches=0.5), 5).samples([4])
    for name, values in together.items():
        np.testing.assert_array_equal(values[4], alone[name][0])
    assert together["image"].shape == (6, 3, 64, 64)
    assert together["shown"].shape == (6, 16, 16)


def test_the_volume_lies_where_the_picture_shows_the_person() -> None:
    """Of turned, moved, scaled and mirrored crops, each kind with its own place for mistakes."""
    task = make(options(network={**SMALL, "side": 192}, kernels=430, precision=1500.0), 5)
    batch = batch_of(task, *range(16))
    weights, selection, _ = task._drawn(batch, 48)
    shown = batch["shown"]
    drawn = torch.zeros_like(shown).flatten(1)
    drawn[selection.people, selection.cells] = True
    assert (weights[:, 0] > 0).sum() == shown.flatten(1)[selection.people, selection.cells].sum()
    both = (drawn & shown.flatten(1)).sum(1)[shown.flatten(1).sum(1) > 60] / shown.flatten(1).sum(1)[
        shown.flatten(1).sum(1) > 60
    ]
    assert len(both) > 8
    assert both.min() > 0.9
    near = F.max_pool2d(shown.float()[:, None], 7, 1, 3).flatten(1) > 0
    whole = shown.flatten(1).sum(1) > 100
    beyond = (drawn & ~near)[whole].sum() / drawn[whole].sum()
    assert beyond < 0.35  # hidden parts, and no more


def test_a_patch_hides_what_is_behind_it() -> None:
    plain, patched = (DrawnFeatureSamples(5, 64, 1.1, share) for share in (0.0, 1.0))
    for number in range(4):
        before, after = plain.sample(number), patched.sample(number)
        changed = (before["image"] != after["image"]).any(0)
        rows, columns = np.nonzero(changed)
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert 0.15 * 64 - 2 <= min(height, width) <= max(height, width) <= 0.45 * 64 + 1
        under = np.zeros((64, 64), bool)
        under[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
        inner = under[::4, ::4] & (np.pad(under, 1)[:-2, :-2])[::4, ::4]
        assert not after["shown"][inner].any()
        np.testing.assert_array_equal(after["shown"][~under[::4, ::4]], before["shown"][~under[::4, ::4]])
        np.testing.assert_array_equal(after["pose"], before["pose"])


# ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_step_moves_the_rows_that_are_seen_and_fills_the_queue() -> None:
    task = make(options(), 5)
    bank = task.model.bank
    before = bank.rows.clone()
    batch = batch_of(task, 0, 1)
    weights, selection, bins = task._drawn(batch, 16)
    task.loss(batch, 0)
    moved = (bank.rows != before).any(1)
    of_bodies, of_clutter = moved.split([60 * 3, 64])
    expected = torch.zeros(3, 60, dtype=torch.bool)
    for row in (weights[:, 0] > 0).nonzero()[:, 0].tolist():
        person, kernel = divmod(int(selection.kernels[row, 0]), 60)
        expected[bins[person, kernel], kernel] = True
    assert torch.equal(of_bodies.unflatten(0, (3, 60)), expected)
    assert of_clutter.nonzero()[:, 0].tolist() == list(range(20))  # ten cells of each image
    torch.testing.assert_close(bank.rows.norm(dim=1), torch.ones(len(bank.rows)))


def test_nobody_in_the_crop_is_an_ordinary_batch() -> None:
    task = make(options(), 5)
    batch = batch_of(task, 0, 1)
    batch["joints_known"][:] = 0
    loss, parts = task.loss(batch, 0)
    loss.backward()
    assert parts["contrast"].item() == 0
    assert torch.isfinite(loss)


def test_a_few_steps_lower_the_loss() -> None:
    task = make(options(), 5)
    batch, optimizer = batch_of(task, 0, 1, 2, 3), torch.optim.AdamW(task.model.parameters(), lr=3e-3)
    losses = []
    for step in range(25):
        loss, parts = task.loss(batch, step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(parts["contrast"].item())
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])


def test_resumed_to_the_bit(tmp_path: Path) -> None:
    assert fit(make(options(), 5), config(), tmp_path / "whole") == Fitted(4, True)
    stopped = make(options(), 5)
    plain = stopped.loss

    def loss(batch: dict[str, torch.Tensor], step: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(batch, step)

    stopped.loss = loss  # type: ignore[method-assign]
    assert fit(stopped, config(), tmp_path / "parts") == Fitted(2, False)
    assert fit(make(options(), 5), config(), tmp_path / "parts", resume=True) == Fitted(4, True)
    whole, parts = (load_trained(tmp_path / name / "weights.pt") for name in ("whole", "parts"))
    assert torch.equal(whole.foreground, parts.foreground)
    assert torch.equal(whole.clutter, parts.clutter)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, parts.network.state_dict()[name]), name


def test_frozen_norms_stay_as_they_are() -> None:
    task = make(options(freeze_bn=True), 5)
    task.model.train()
    before = task.model.extractor.backbone.bn1.running_mean.clone()
    task.loss(batch_of(task, 0, 1), 0)
    assert torch.equal(task.model.extractor.backbone.bn1.running_mean, before)


# ── weights ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_saved_is_loaded_and_is_a_start(tmp_path: Path) -> None:
    task = make(options(), 5)
    task.loss(batch_of(task, 0, 1), 0)
    task.model.eval()
    task.save(tmp_path / "weights.pt")
    trained = load_trained(tmp_path / "weights.pt")
    assert trained.origin == ()
    assert trained.precision == 400.0
    assert trained.foreground.shape == (60, 3, 8)
    assert torch.equal(trained.foreground[7, 2], task.model.bank.rows[2 * 60 + 7])
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(trained.network(image), task.model.extractor(image), atol=1e-5, rtol=0)
    again = make(options(start=tmp_path / "weights.pt"), 6)
    assert torch.equal(again.model.bank.rows, task.model.bank.rows)
    for name, value in task.model.extractor.state_dict().items():
        assert torch.equal(value, again.model.extractor.state_dict()[name]), name
    with pytest.raises(TrainingError, match="features of another configuration"):
        make(options(start=tmp_path / "weights.pt", bins=1), 5)
    with pytest.raises(TrainingError, match="another number of rows of clutter"):
        make(options(start=tmp_path / "weights.pt", clutter=65), 5)


@pytest.mark.parametrize("content", [None, "hello"])
def test_other_weights_are_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "weights.pt").write_text(content)
    with pytest.raises(FitError) as refusal:
        load_trained(tmp_path / "weights.pt")
    assert refusal.value.cause.startswith(f"{tmp_path / 'weights.pt'}: ")


def test_the_mean_directions_of_the_clutter() -> None:
    from jotr_deploy.fitting.trained import directions_of

    draw = torch.Generator().manual_seed(0)
    poles = torch.eye(3)
    near = F.normalize(poles.repeat(20, 1) + 0.05 * torch.randn(60, 3, generator=draw), dim=1)
    found = directions_of(near, 3)
    assert (found @ poles.T).amax(0).min() > 0.99
    torch.testing.assert_close(directions_of(near, 1)[0], F.normalize(near.mean(0), dim=0))


# ── configurations ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_configuration_of_the_starter_makes_the_task() -> None:
    task, resolved = make_task(read_config(CONFIGS / "starter" / "features.toml"))
    assert isinstance(task, FeaturesTask)
    assert task.options.network.cells == 40
    assert resolved.options["patches"] == 0.5
    without, _ = make_task(read_config(CONFIGS / "starter" / "features.toml", ["features.patches=0"]))
    assert without.options.patches == 0  # type: ignore[attr-defined]


def test_the_published_configuration_trains_on_sets(tmp_path: Path) -> None:
    write(tmp_path)
    small = ",".join(f"{key}={value}" for key, value in (("side", 64), ("depth", 10), ("width", 8), ("channels", 8)))
    settings = [
        "batch=2", "steps=1", "workers=0", "precision=fp32", f'features.data.root="{tmp_path}"', "features.kernels=60",
        f'features.data.smpl="{tmp_path}"', "features.network={" + small + ",bottom=16,ups=[[8,8],[8,8],[8,8]]}",
    ]  # fmt: skip
    read = read_config(CONFIGS / "published" / "features.toml", settings)
    del read.options["data"]["extra_regressor"]
    task, resolved = make_task(read)
    assert fit(task, resolved, tmp_path / "run").finished
    trained = load_trained(tmp_path / "run" / "weights.pt")
    assert trained.origin == ("MSCOCO",)
    assert trained.precision == 4000.0


def test_the_defaults_are_the_published_extractor() -> None:
    published = Options()
    assert (published.kernels, published.bins, published.q_max, published.clutter) == (858, 3, 23.03, 2160)
    with torch.device("meta"):
        network = Extractor(ExtractorConfig())
    assert network.config.cells == 80
    assert network.config.channels == 128
    beside = sum(p.numel() for p in network.parameters()) - sum(p.numel() for p in network.backbone.parameters())
    assert 59e6 < beside < 61e6


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"start": "a.pt", "backbone": "b.pt"}, "features.backbone: the weights to start from have a backbone"),
        (
            {"data": {"root": "data", "sets": ["h36m"], "smpl": "smpl"}},
            "features.data.h36m_regressor: not given, and the fits of h36m are checked by it",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(JotrDeployError) as refusal:
        make(options(**values), 0)
    assert refusal.value.cause == words
