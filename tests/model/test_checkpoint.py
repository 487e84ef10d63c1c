"""Checkpoints: the published layouts and ours are read; whatever does not fit is named and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_case import body, network, published_state
from tiny import TINY

from jotr_deploy.body.smpl import HEAD_TOP_VERTEX
from jotr_deploy.config import ModelConfig
from jotr_deploy.errors import CheckpointError, OutputError
from jotr_deploy.model.checkpoint import build_model, load_checkpoint, save_checkpoint
from jotr_deploy.model.initialise import initialise
from jotr_deploy.model.jotr import JOTR

SEED = "jotr-golden-A/"


def published(prefix: str = "module.") -> dict[str, Any]:
    return {prefix + key: value for key, value in published_state(SEED).items()}


def snapshot(prefix: str = "module.") -> dict[str, Any]:
    awl = {"module.params": torch.ones(6)}
    return {"epoch": 3, "network": published(prefix), "optimizer": {"state": {}, "param_groups": []}, "awl": awl}


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("snapshot_3.pth.tar", snapshot),
        ("3dpw_best_ckpt.pth.tar", published),
        ("bare.pth.tar", lambda: published("")),
        ("bare_snapshot.pth.tar", lambda: snapshot("")),
    ],
)
def test_published_layouts(tmp_path: Path, name: str, content: Any) -> None:
    loaded = load_checkpoint(save(tmp_path / name, content()))
    model = build_model(loaded, loaded.body)
    expected = network(SEED).state_dict()
    for key, value in model.state_dict().items():
        if key != "body.regressor_30":  # the head top is not in a checkpoint
            assert torch.equal(value, expected[key]), key
    assert not model.training


def test_the_checkpoints_own_body_has_a_documented_head_top(tmp_path: Path) -> None:
    path = save(tmp_path / "c.pth.tar", published())
    own = load_checkpoint(path).body
    assert own is not None
    np.testing.assert_array_equal(own.regressor_30()[29].nonzero()[0], [HEAD_TOP_VERTEX])
    given = load_checkpoint(path, body(SEED).head_top).body
    assert given is not None
    np.testing.assert_array_equal(given.regressor_30(), body(SEED).regressor_30())


def test_our_own_format(tmp_path: Path) -> None:
    model = initialise(JOTR(TINY, None), seed=1)
    save_checkpoint(tmp_path / "tiny.pt", model)
    loaded = load_checkpoint(tmp_path / "tiny.pt")
    assert loaded.config == TINY
    again = build_model(loaded, None)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    ("edit", "cause"),
    [
        (lambda s: s.pop("query.weight"), r"1 missing: fusion.joint_query"),
        (lambda s: s.update(stranger=torch.zeros(1)), r"1 unexpected: stranger"),
        (
            lambda s: s.update({"query.weight": torch.zeros(17, 256)}),
            r"1 misshapen: fusion.joint_query \(17, 256\) instead of \(15, 256\)",
        ),
        (
            lambda s: [s.pop(k) for k in list(s) if k.startswith("transformer.decoder.layers.3.")],
            r"18 missing: fusion.decoder.layers.3.self_attn.in_proj_weight, .* and 14 more",
        ),
    ],
)
def test_keys_that_do_not_fit_are_named(tmp_path: Path, edit: Any, cause: str) -> None:
    state = published("")
    edit(state)
    loaded = load_checkpoint(save(tmp_path / "c.pth.tar", state))
    with pytest.raises(CheckpointError, match=cause):
        build_model(loaded, None)


def test_a_checkpoint_of_another_architecture(tmp_path: Path) -> None:
    other = torch.nn.Sequential(torch.nn.Linear(3, 3)).state_dict()
    loaded = load_checkpoint(save(tmp_path / "other.pt", other))
    with pytest.raises(
        CheckpointError, match=r"does not fit the network \(\d+ missing: .*; 2 unexpected: 0.weight, 0.bias\)"
    ):
        build_model(loaded, None)


def test_a_missing_pose_prior_names_its_option(tmp_path: Path) -> None:
    state = {k: v for k, v in published("").items() if not k.startswith("vposer.")}
    loaded = load_checkpoint(save(tmp_path / "c.pth.tar", state))
    with pytest.raises(CheckpointError) as error:
        build_model(loaded, None)
    assert error.value.remedy == "give the pose prior with --vposer DIR"
    build_model(loaded, None, network(SEED).vposer)


class Sneaky:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_pickled_code_is_refused_and_not_run(tmp_path: Path) -> None:
    target = tmp_path / "touched"
    path = save(tmp_path / "evil.pth.tar", {"network": Sneaky(target)})
    with pytest.raises(CheckpointError, match="the file holds pickled code, which is never run"):
        load_checkpoint(path)
    assert not target.exists()


def truncated(path: Path) -> Path:
    save(path, {"a": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:-500])
    return path


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda p: p, "no such checkpoint"),
        (lambda p: (p.write_bytes(b"") and p) or p, "truncated or not a checkpoint"),
        (lambda p: p.write_text("hello") and p, "truncated or not a checkpoint"),
        (truncated, "truncated or not a checkpoint"),
        (lambda p: save(p, [1, 2, 3]), "it holds no dictionary of tensors"),
        (lambda p: save(p, {"network": {}}), "it holds no dictionary of tensors"),
        (lambda p: save(p, {"format": "jotr-deploy/2"}), "checkpoint format 'jotr-deploy/2', this version reads"),
        (lambda p: save(p, {"format": "jotr-deploy/1"}), "damaged checkpoint"),
        (lambda p: save(p, {"format": "jotr-deploy/1", "config": {"d_model": 7}, "weights": {}}), "damaged checkpoint"),
    ],
)
def test_unreadable_files(tmp_path: Path, make: Any, cause: str) -> None:
    with pytest.raises(CheckpointError, match=cause):
        load_checkpoint(make(tmp_path / "c.pth.tar"))


def test_saving_leaves_nothing_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match="No space left on device"):
        save_checkpoint(tmp_path / "c.pt", initialise(JOTR(TINY, None)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"d_model": 250}, "must be a multiple of heads"),
        ({"crop_side": 200}, "must be 16 or 32 times voxel_grid"),
        ({"decoder_layers": 0}, "layers and widths start at 1"),
        ({"unknown": 1}, "Extra inputs are not permitted"),
    ],
)
def test_configurations_that_cannot_be(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        ModelConfig(**values)


@pytest.mark.parametrize("config", [TINY, TINY.model_copy(update={"crop_side": 128}), ModelConfig(backbone_depth=18)])
def test_other_configurations_run(config: ModelConfig) -> None:
    model = initialise(JOTR(config, None))
    side, cells = config.crop_side, config.heatmap_side
    with torch.inference_mode():
        out = model(torch.rand(2, 3, side, side), torch.rand(2, 30, 2) * cells, torch.ones(2, 30))
    assert out.joints_img.shape == (2, 15, 3)
    assert all(torch.isfinite(value).all() for value in out)


def test_start_weights_depend_on_the_seed_alone() -> None:
    a, b, c = (initialise(JOTR(TINY, None), seed) for seed in (0, 0, 1))
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not all(torch.equal(x, y) for x, y in zip(a.parameters(), c.parameters(), strict=True))
