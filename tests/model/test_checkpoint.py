"""Checkpoints: the published layouts and ours are read; whatever does not fit is named and refused."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_case import body, network, published_state
from tiny import TINY, tiny_checkpoint

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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("snapshot_3.pth.tar", snapshot),
        ("3dpw_best_ckpt.pth.tar", published),
        ("bare.pth.tar", lambda: published("")),
        ("bare_snapshot.pth.tar", lambda: snapshot("")),
        ("wrapped_twice.pth.tar", lambda: snapshot("module.module.")),
        ("lightning.ckpt", lambda: {"state_dict": published("model."), "callbacks": {}}),
        ("mean_of_the_weights.pth", lambda: {"model": None, "ema": published("")}),
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
        CheckpointError,
        match=r"another network: of the 513 weights of JOTR 513 are missing, and it has 0\.weight, 0\.bias",
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
    with pytest.raises(CheckpointError, match=r"holds pickled code \(getattr\), which is never run"):
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
        (lambda p: (p.write_bytes(b"") and p) or p, "not a checkpoint: it is an empty file"),
        (lambda p: p.write_text("hello") and p, "not a checkpoint: it is plain text"),
        (truncated, "not a checkpoint: it is a zip archive that is cut off"),
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
        ({"decoder_layers": 0}, "greater than or equal to 1"),
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


# ── files that downloads and other projects leave ────────────────────────────────────────────────────────────────

HTML = b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head></html>"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.mark.parametrize(
    ("content", "cause", "remedy"),
    [
        (HTML, "not a checkpoint: it is an HTML page (a download page rather than the file)",
         "download the file itself, not the page about it"),
        (LFS, "not a checkpoint: it is a Git LFS pointer (the file itself was not downloaded)",
         "get the file itself: git lfs pull"),
        (b"\x02\0\0\0\0\0\0\0{}", "not a checkpoint: it is a safetensors file",
         "convert it: torch.save(safetensors.torch.load_file(PATH), NEW)"),
        ({"state_dict": {"epoch": 3}, "epoch": 1},
         "not a JOTR checkpoint: it holds no dictionary of tensors but 'state_dict', 'epoch'", None),
        ({}, "not a JOTR checkpoint: it holds no dictionary of tensors", None),
        ({1: torch.zeros(1)}, "not a JOTR checkpoint: it holds no dictionary of tensors but 1", None),
        ({"network": {"a": torch.zeros(2).to_sparse()}},
         "not a JOTR checkpoint: it holds no dictionary of tensors but 'network'", None),
        ({"format": "jotr-deploy-run/1"}, "the state of a training run", "give the weights.pt that the run ends with"),
        ({"format": torch.zeros(3)}, "checkpoint format 'tensor([0., 0., 0.])', this version reads 'jotr-deploy/1'",
         None),
    ],
)  # fmt: skip
def test_what_is_no_checkpoint_is_named(tmp_path: Path, content: Any, cause: str, remedy: str | None) -> None:
    path = tmp_path / "downloaded.pth.tar"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save(path, content)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    usual = "give a JOTR .pth.tar as published, or a checkpoint written by this package"
    assert (error.value.cause, error.value.remedy) == (f"{path}: {cause}", remedy or usual)


@pytest.mark.parametrize(
    ("names", "what", "remedy"),
    [
        (("bodyprior_dec_fc1.weight",), "VPoser",
         "give this file with --vposer, and as CHECKPOINT the .pth.tar of JOTR"),
        (("conv1.weight", "layer1.0.conv1.weight"), "a ResNet alone",
         "give the .pth.tar of all of JOTR; a ResNet starts a training, as its option backbone"),
        (("model.0.conv.weight",), "another network",
         "give a JOTR .pth.tar as published, or a checkpoint written by this package"),
    ],
)  # fmt: skip
def test_the_weights_of_something_else_are_named(
    tmp_path: Path, names: tuple[str, ...], what: str, remedy: str
) -> None:
    loaded = load_checkpoint(save(tmp_path / "c.pth", {"state_dict": dict.fromkeys(names, torch.zeros(1))}))
    with pytest.raises(CheckpointError, match=f"holds the weights of {what}:") as error:
        build_model(loaded, None)
    assert error.value.remedy == remedy


@pytest.mark.parametrize("archive", [True, False])
def test_what_scripts_store_beside_the_weights_is_no_code(tmp_path: Path, archive: bool) -> None:
    state = published("module.")
    beside = {"args": Namespace(lr=1e-4), "best": np.float64(47.1), "curve": np.arange(3), "epoch": np.int64(3)}
    torch.save({"network": state, **beside}, tmp_path / "c.pth.tar", _use_new_zipfile_serialization=archive)
    assert (
        load_checkpoint(tmp_path / "c.pth.tar").weights.keys()
        == load_checkpoint(save(tmp_path / "d", state)).weights.keys()
    )


def test_a_large_architecture_takes_no_memory_without_its_weights(tmp_path: Path) -> None:
    config = {"d_model": 8192, "ffn_fusion": 65536, "encoder_layers": 64, "decoder_layers": 64}
    content = {"format": "jotr-deploy/1", "config": config, "weights": {"a": torch.zeros(1)}}
    with pytest.raises(CheckpointError, match="are missing"):
        build_model(load_checkpoint(save(tmp_path / "c.pt", content)), None)


@pytest.mark.parametrize("kind", [torch.int32, torch.complex64, torch.float8_e4m3fn])
def test_weights_of_another_type_are_refused(tmp_path: Path, kind: torch.dtype) -> None:
    loaded = load_checkpoint(tiny_checkpoint(tmp_path))
    loaded.weights["heads.root.0.weight"] = loaded.weights["heads.root.0.weight"].to(kind)
    said = rf"1 of another type: heads\.root\.0\.weight {str(kind).removeprefix('torch.')}\)"
    with pytest.raises(CheckpointError, match=said):
        build_model(loaded, None)


def test_a_label_is_one_line(tmp_path: Path) -> None:
    content = torch.load(tiny_checkpoint(tmp_path), weights_only=True)
    path = save(tmp_path / "c.pt", {**content, "labels": ["\x1b[31m\nred"]})
    assert load_checkpoint(path).labels == (r"\x1b[31m\nred",)


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a checkpoint: it is a folder"):
        load_checkpoint(tmp_path)
