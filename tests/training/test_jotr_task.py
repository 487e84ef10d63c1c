"""The published training on sets in miniature: steps, resuming, two processes, the recipes, what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from launch import first_moments, in_two, scalars
from made_scenes import STILL, config
from made_sets import SETS, as_written, jotr_task, write
from tiny import TINY
from torch import nn
from two_processes import step as one_process

from jotr_deploy.errors import BodyFileError, CheckpointError, DatasetError, JotrDeployError
from jotr_deploy.export.assemble import load_network
from jotr_deploy.model.backbone import Backbone
from jotr_deploy.model.checkpoint import load_checkpoint
from jotr_deploy.training.backbone_weights import load_backbone
from jotr_deploy.training.loop import Fitted, fit
from jotr_deploy.training.losses import NAMES, Found
from jotr_deploy.training.parallel import with_shared_statistics
from jotr_deploy.training.run_config import TrainConfig, TrainingError, read_config
from jotr_deploy.training.tasks import make_task
from jotr_deploy.training.tasks.jotr_task import TRAINED_ON, JotrTask, Options, truth_of

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[2] / "configs" / "published"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    written = tmp_path_factory.mktemp("sets")
    write(written)
    return written


def batch_of(task: JotrTask, count: int) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values) for name, values in task.samples(range(count)).items()}


# ── training ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sets", [*((name,) for name in SETS), SETS, ("mscoco", "muco")])
def test_a_step_on_every_set(folder: Path, tmp_path: Path, sets: tuple[str, ...]) -> None:
    task = jotr_task(as_written(folder, sets))
    assert fit(task, config(steps=1, batch=4), tmp_path).finished
    for name in ("loss", "l1", *NAMES, "intra", "inter"):
        assert np.isfinite(scalars(tmp_path, name)).all(), name
    assert scalars(tmp_path, "epoch") == [pytest.approx(4 / task.epoch)]
    deep = any(name in ("h36m", "muco") for name in sets)
    assert (scalars(tmp_path, "body_joint_cam")[0] > 0) is deep
    assert (scalars(tmp_path, "intra")[0] > 0) is deep  # of people with measured depths only
    assert scalars(tmp_path, "body_joint_img")[0] > 0


def test_resumed_to_the_bit(folder: Path, tmp_path: Path) -> None:
    settings, run = config(steps=3), {"model": TINY}
    fit(jotr_task(as_written(folder), **run), settings, tmp_path / "whole")
    stopped = jotr_task(as_written(folder), **run)
    plain = stopped.loss

    def loss(batch: dict[str, torch.Tensor], step: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        import os
        import signal

        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(batch, step)

    stopped.loss = loss  # type: ignore[method-assign]
    assert fit(stopped, settings, tmp_path / "parts") == Fitted(2, False)
    assert fit(jotr_task(as_written(folder), **run), settings, tmp_path / "parts", resume=True).finished
    whole, parts = ((tmp_path / name / "weights.pt").read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_two_processes_are_one_with_the_doubled_batch(tmp_path: Path) -> None:
    """As published, the contrastive losses have but the part of their gradient of the own samples: half of it."""
    write(tmp_path)
    launched = in_two(tmp_path, 3, 0.1, "jotr", "paper", "code")
    for recipe in ("paper", "code"):
        together, alone = launched[recipe], one_process(tmp_path, 6, 0.1, "jotr", recipe)
        for name in ("loss", "l1", "intra", "inter"):
            np.testing.assert_allclose(scalars(together, name), scalars(alone, name), rtol=1e-5, err_msg=name)
        found, expected = first_moments(together), first_moments(alone)
        if recipe == "code":
            without = first_moments(one_process(tmp_path, 6, 0.0, "jotr", recipe))
            assert not torch.allclose(found, expected, rtol=1e-3, atol=1e-6)
            expected = without + (expected - without) / 2
        assert expected.abs().max() > 1e-4
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


def test_contrast_is_of_people_with_depth(folder: Path) -> None:
    task = jotr_task(as_written(folder))
    batch = batch_of(task, 8)
    deep = batch["is_3d"] > 0
    assert deep.sum() not in (0, 8)
    task.model.eval()
    parts = [task.loss(chosen, 0)[1] for chosen in (batch, {name: values[deep] for name, values in batch.items()})]
    for name in ("intra", "inter"):
        torch.testing.assert_close(parts[0][name], parts[1][name])
    flat = {name: values[~deep] for name, values in batch.items()}
    assert [task.loss(flat, 0)[1][name].item() for name in ("intra", "inter")] == [0, 0]


def test_the_two_recipes(folder: Path) -> None:
    """Other fits of CrowdPose, other negatives, and the plain difference of axis-angle vectors."""
    paper, code = (jotr_task(as_written(folder), recipe=recipe, inter=0.1) for recipe in ("paper", "code"))
    batch, other = batch_of(paper, 12), batch_of(code, 12)
    torch.testing.assert_close(batch["image"], other["image"])
    assert (batch["is_fit"] != other["is_fit"]).any()
    for task in (paper, code):
        task.model.eval()
    inter = [task.loss(batch, 0)[1]["inter"].item() for task in (paper, code)]
    assert inter[0] != inter[1]
    turned = batch["pose"].clone()
    turned[:, 0] *= 1 - 2 * np.pi / turned[:, 0].norm(dim=-1, keepdim=True).clamp(min=1e-6)  # the same rotation
    found = Found(batch["fit_img"], turned, batch["betas"], batch["joints_img"][..., :2], batch["joints_cam"])
    fitted = batch["is_fit"] > 0
    torch.testing.assert_close(truth_of(batch, found, "paper").pose[fitted], turned[fitted])
    torch.testing.assert_close(truth_of(batch, found, "code").pose, batch["pose"])
    known = truth_of(batch, found).pose_known[0]
    assert set(np.flatnonzero(known == 0)) == {7, 8, 10, 11, 20, 21, 22, 23}


def test_what_is_saved_becomes_a_network_with_the_users_body(folder: Path, tmp_path: Path) -> None:
    task = jotr_task(as_written(folder, ("muco", "crowdpose")))
    fit(task, config(steps=1), tmp_path)
    checkpoint = load_checkpoint(tmp_path / "weights.pt")
    assert checkpoint.body is None
    assert checkpoint.labels == ("trained on MuCo-3DHP, CrowdPose",)
    loaded = load_network(tmp_path / "weights.pt", body=folder / "SMPL_NEUTRAL.npz").model
    batch = batch_of(task, 2)
    with torch.no_grad():
        out = loaded(batch["image"].float() / 255, batch["joints"], batch["joints_mask"])
        found, *_ = task.model(batch["image"].float() / 255, batch["joints"], batch["joints_mask"])
    torch.testing.assert_close(out.joints3d, found.joints_cam, atol=1e-4, rtol=0)


# ── what is missing ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("absent", "options", "kind", "cause", "remedy"),
    [
        (None, {"sets": ("mscoco",)}, DatasetError, "{0}: MSCOCO (train) is not complete, missing:", "register with"),
        (None, {"sets": ("coco",)}, DatasetError, "data set 'coco' is not known", "known: h36m"),
        (None, {"sets": ("3dpw",)}, DatasetError, "3DPW has no split 'train'", "it has: test"),
        (None, {"sets": ("h36m", "crowdpose"), "h36m_regressor": None}, TrainingError,
         "jotr.h36m_regressor: not given, and the fits of h36m are checked by it", "give the published"),
        (None, {"h36m_regressor": Path("none.npy")}, BodyFileError, "none.npy: no such", "give the published"),
        (None, {"smpl": Path("none.npz")}, BodyFileError, "none.npz: no such body file", "get SMPL from"),
        ("SMPL_NEUTRAL.npz", {}, BodyFileError, "{0}: no neutral SMPL file", "get SMPL"),
        ("prior.pt", {}, BodyFileError, "{0}/prior.pt: no such VPoser file", "give the"),
        (None, {"start": Path("none.pt")}, CheckpointError, "none.pt: no such checkpoint", "give a JOTR"),
        (None, {"start": Path("a"), "backbone": Path("b")}, TrainingError, "jotr.backbone: the", "give start or"),
        (None, {"extra_regressor": Path("none.npy")}, BodyFileError, "none.npy: no such", "give the"),
        ("CrowdPose/images/100.jpg", {}, DatasetError, "{0}/CrowdPose/images/100.jpg: cannot", "put the"),
    ],
)  # fmt: skip
def test_what_is_missing(
    tmp_path: Path, absent: str | None, options: dict[str, Any], kind: type[JotrDeployError], cause: str, remedy: str
) -> None:  # fmt: skip
    made = write(tmp_path, ("crowdpose",))
    if absent:
        (tmp_path / absent).unlink()
    with pytest.raises(kind) as error:
        jotr_task({**made, **options})
    assert error.value.cause.startswith(cause.format(tmp_path))
    assert error.value.remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({}, "jotr.root: Field required"),
        ({"sets": []}, "jotr.sets: Tuple should have at least 1 item"),
        ({"recipe": "best"}, "jotr.recipe: Input should be 'paper' or 'code'"),
        ({"intra": -1}, "jotr.intra: Input should be greater than or equal to 0"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], cause: str) -> None:
    given = {"root": ".", "smpl": ".", "prior": ".", **options} if options else {}
    with pytest.raises(TrainingError) as error:
        make_task(TrainConfig(task="jotr", steps=1, batch=1, lr=1e-3, options=given))
    assert error.value.cause.startswith(cause)


# ── the start ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_backbone_of_others(folder: Path, tmp_path: Path) -> None:
    """Names as torchvision has them, and as they stand in a training snapshot."""
    theirs = {
        name: torch.randn_like(value) if value.is_floating_point() else value
        for name, value in Backbone(STILL).state_dict().items()
        if not name.startswith("heatmap_fusion")
    }
    snapshots = {
        "plain.pt": {**theirs, "fc.weight": torch.zeros(2, 2)},
        "snapshot.pt": {"epoch": 1, "network": {f"module.backbone.{name}": value for name, value in theirs.items()}},
    }
    for name, content in snapshots.items():
        torch.save(content, tmp_path / name)
        backbone = jotr_task(as_written(folder, ("crowdpose",)), backbone=tmp_path / name).model.network.backbone
        assert all(torch.equal(backbone.state_dict()[key], value) for key, value in theirs.items())


class Sneaky:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (None, "no such file"),
        ("code", "holds pickled code"),
        (b"", "not a state dict: it is an empty file"),
        ({}, "of this ResNet are missing or misshapen, first conv1.weight"),
        ({"network": 3}, "of this ResNet are missing or misshapen, first conv1.weight"),
        ({"conv1.weight": torch.zeros(1)}, "of this ResNet are missing or misshapen, first conv1.weight"),
        ([1], "of this ResNet are missing or misshapen, first conv1.weight"),
    ],
)
def test_a_backbone_that_does_not_fit(tmp_path: Path, content: Any, cause: str) -> None:
    path, target = tmp_path / "weights.pt", tmp_path / "touched"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save({"conv1.weight": Sneaky(target)} if content == "code" else content, path)
    with pytest.raises(CheckpointError, match=cause):
        load_backbone(Backbone(STILL), path)
    assert not target.exists()


# ── configurations and several processes ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "settings", "values", "options"),
    [
        ("main", (), {"lr": 1e-4, "weight_decay": 1e-4, "batch": 32},
         {"recipe": "paper", "intra": 0.01, "inter": 0.01}),
        ("main", ("jotr.recipe=code",), {"lr": 1e-4, "weight_decay": 1e-4, "batch": 32},
         {"recipe": "code", "intra": 0.0, "inter": 0.0}),
        ("main", ("jotr.recipe=code", "jotr.intra=0.2"), {}, {"intra": 0.2, "inter": 0.0}),
        ("contrast", (), {"lr": 5e-5, "weight_decay": 1e-3, "batch": 16, "steps": 10000},
         {"recipe": "code", "intra": 0.1, "inter": 0.1}),
    ],
)  # fmt: skip
def test_the_configurations(
    name: str, settings: tuple[str, ...], values: dict[str, Any], options: dict[str, Any]
) -> None:
    read = read_config(CONFIGS / f"{name}.toml", settings)
    assert {key: getattr(read, key) for key in values} == values
    assert (read.schedule, read.clip_norm, read.beta2, read.matrix_lr) == ("constant", None, 0.999, None)
    resolved = Options.model_validate(read.options)
    assert {key: getattr(resolved, key) for key in options} == options
    assert set(resolved.sets) == set(TRAINED_ON) == set(SETS)
    assert resolved.model == type(resolved.model)()  # as the published checkpoints


def test_shared_statistics(folder: Path) -> None:
    """The weights are the same objects, frozen statistics stay frozen."""
    task = jotr_task(as_written(folder, ("crowdpose",)), freeze_bn=True)
    before, names = list(task.model.parameters()), list(task.model.state_dict())
    model = with_shared_statistics(task.model)
    assert model is task.model
    assert all(a is b for a, b in zip(before, model.parameters(), strict=True))
    assert list(model.state_dict()) == names
    norms = [module for module in model.train().modules() if isinstance(module, nn.SyncBatchNorm)]
    assert len(norms) > 5
    assert not any(module.training for module in norms)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
