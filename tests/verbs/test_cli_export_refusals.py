"""`export` refuses: cause, remedy, exit code 2, nothing half-written, and what was there before untouched."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from outcome import Outcome, tree
from tiny import tiny_checkpoint

Cli = Callable[..., Outcome]

CUT = "a zip archive that is cut off or damaged (.pth and .npz files are zip archives)"
AGAIN = "download or copy it again, and compare its size with that of the original"
CHECKPOINT = "give a JOTR .pth.tar as published, or a checkpoint written by this package"
SMPL = "get SMPL from https://smpl.is.tue.mpg.de, or export with --stand-in"
VPOSER = "give the folder of VPoser v1.0 from https://smpl-x.is.tue.mpg.de (it holds snapshots/*.pt)"
REGRESSOR = "give the published J_regressor_extra.npy, or leave --extra-regressor out"


class Sneaky:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def truncated(folder: Path) -> Path:
    path = tiny_checkpoint(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def with_nan(folder: Path) -> Path:
    content = torch.load(tiny_checkpoint(folder), weights_only=True)
    content["weights"]["backbone.conv1.weight"][0] = float("nan")
    return saved(folder / "tiny.pt", content)


def bytes_in(folder: Path, content: bytes) -> Path:
    (folder / "tiny.pt").write_bytes(content)
    return folder / "tiny.pt"


def other_architecture(folder: Path) -> Path:
    layers = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    return saved(folder / "tiny.pt", layers.state_dict())


def our_format(folder: Path, **changes: Any) -> Path:
    content = {"format": "jotr-deploy/1", "config": {}, "weights": {}, "labels": [], **changes}
    return saved(folder / "tiny.pt", content)


@pytest.mark.parametrize(
    ("make", "cause", "remedy"),
    [
        pytest.param(lambda f: f / "tiny.pt", "no such checkpoint", CHECKPOINT, id="missing"),
        pytest.param(
            lambda f: (f / "tiny.pt").mkdir() or f / "tiny.pt",
            "not a checkpoint: it is a folder",
            CHECKPOINT,
            id="folder",
        ),
        pytest.param(truncated, f"not a checkpoint: it is {CUT}", AGAIN, id="truncated"),
        pytest.param(lambda f: bytes_in(f, b""), "not a checkpoint: it is an empty file", AGAIN, id="empty"),
        pytest.param(lambda f: bytes_in(f, b"hello"), "not a checkpoint: it is plain text", CHECKPOINT, id="text"),
        pytest.param(
            lambda f: saved(f / "tiny.pt", [1, 2]),
            "not a JOTR checkpoint: it holds no dictionary of tensors", CHECKPOINT, id="no dictionary",
        ),
        pytest.param(
            other_architecture,
            "holds the weights of another network: of the 513 weights of JOTR 513 are missing, and it has 0.weight,"
            " 0.bias, 1.weight, 1.bias", CHECKPOINT, id="another architecture",
        ),
        pytest.param(
            lambda f: our_format(f, format="jotr-deploy/2"),
            "checkpoint format 'jotr-deploy/2', this version reads 'jotr-deploy/1'",
            "upgrade: git pull, then pip install . in a clone of jotr-deploy", id="newer",
        ),
        pytest.param(
            lambda f: our_format(f, config={"heads": 3}),
            "damaged checkpoint (config: d_model 256 must be a multiple of heads (3) and of 4)",
            CHECKPOINT, id="impossible configuration",
        ),
        pytest.param(
            lambda f: our_format(f, config={"width": 3}),
            "damaged checkpoint (width: Extra inputs are not permitted)", CHECKPOINT, id="unknown configuration",
        ),
        pytest.param(
            lambda f: saved(f / "tiny.pt", {"format": "jotr-deploy/1", "config": {}}),
            "damaged checkpoint (it lacks 'weights')", CHECKPOINT, id="incomplete",
        ),
        pytest.param(
            lambda f: our_format(f, weights={"a": 1}), "damaged checkpoint (weights that are no dense tensors)",
            CHECKPOINT, id="no weights",
        ),
        pytest.param(
            with_nan, "1 weights hold NaN or infinity: backbone.conv1.weight",
            "the training diverged or the file is damaged: give an earlier snapshot", id="NaN",
        ),
        pytest.param(
            tiny_checkpoint, "the checkpoint holds no body model",
            "give one with --body FILE (or --body stand-in), or leave it out with --no-body", id="no body",
        ),
    ],
)  # fmt: skip
def test_checkpoints(cli: Cli, tmp_path: Path, make: Callable[[Path], Path], cause: str, remedy: str) -> None:
    checkpoint = make(tmp_path)
    before = tree(tmp_path)
    outcome = cli("export", checkpoint, "-o", tmp_path / "made" / "bundle")
    assert outcome.mistake == (f"{checkpoint}: {cause}", remedy)
    assert tree(tmp_path) == before


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("protocol", [2, 4])
def test_pickled_code_is_not_run(cli: Cli, tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "evil.pth.tar"
    torch.save({"network": Sneaky(tmp_path / "touched")}, path, pickle_protocol=protocol)
    before = tree(tmp_path)
    outcome = cli("export", path, "-o", tmp_path / "bundle")
    cause, remedy = outcome.mistake
    how = "holds pickled code (getattr), which" if protocol == 2 else "is pickled in a way that"
    assert cause == f"{path}: {how} is never run"
    assert remedy.startswith("write its tensors alone where you trust it: torch.save(")
    assert tree(tmp_path) == before


def wrong_body(folder: Path) -> Path:
    arrays = {name: np.zeros(3) for name in ("shapedirs", "posedirs", "J_regressor", "weights", "f", "kintree_table")}
    np.savez(folder / "asset.npz", v_template=np.zeros((6890, 2)), **arrays)
    return folder / "asset.npz"


def regressor(folder: Path, shape: tuple[int, ...]) -> Path:
    np.save(folder / "asset.npy", np.zeros(shape))
    return folder / "asset.npy"


@pytest.mark.parametrize(
    ("option", "make", "cause", "remedy"),
    [
        ("--body", wrong_body, "v_template is (6890, 2), expected (6890, 3)", SMPL),
        ("--body", lambda f: f / "SMPL_NEUTRAL.pkl", "no such body file", SMPL),
        ("--body", lambda f: f, "no SMPL file in this folder (looked for SMPL_NEUTRAL.pkl and its like)", SMPL),
        ("--extra-regressor", lambda f: f / "x.npy", "no such file", REGRESSOR),
        ("--extra-regressor", lambda f: regressor(f, (9, 3)), "the regressor is (9, 3), expected (9, 6890)", REGRESSOR),
        ("--vposer", lambda f: f / "vposer", "no such VPoser file", VPOSER),
        ("--vposer", lambda f: f, "no VPoser snapshot in this folder", VPOSER),
    ],
)
def test_assets(cli: Cli, tmp_path: Path, option: str, make: Callable[[Path], Path], cause: str, remedy: str) -> None:
    (tmp_path / "assets").mkdir()
    asset, checkpoint = make(tmp_path / "assets"), tiny_checkpoint(tmp_path)
    before = tree(tmp_path)
    outcome = cli("export", checkpoint, option, asset, "-o", tmp_path / "made" / "bundle")
    assert outcome.mistake == (f"{asset}: {cause}", remedy)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "cause", "remedy"),
    [
        (["-o", "b"], "no checkpoint is given", "give one, or --stand-in for random weights"),
        (["c.pt", "--stand-in", "-o", "b"], "--stand-in and CHECKPOINT are both given", "leave one of them out"),
        (["--stand-in", "-o", "b", "--body", "x"], "--stand-in and --body are both given", "leave one of them out"),
        (["--stand-in", "-o", "b", "--vposer", "x"], "--stand-in and --vposer are both given", "leave one of them out"),
        (["c.pt", "--no-body", "--body", "x", "-o", "b"], "--no-body and --body are both given",
         "leave one of them out"),
        (["c.pt", "--no-body", "--extra-regressor", "x", "-o", "b"],
         "--no-body and --extra-regressor are both given", "leave one of them out"),
        (["c.pt", "-o", "b", "--sampling", "grid"], "--sampling: 'grid' is not known", "give one of function, inline"),
        (["c.pt"], "Missing option '-o' / '--output'.", "see jotr-deploy export --help"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together(cli: Cli, arguments: list[str], cause: str, remedy: str) -> None:
    outcome = cli("export", *arguments)
    assert outcome.mistake == (cause, remedy)
    assert len(outcome.err.splitlines()) == 2


@pytest.mark.parametrize("lacking", [("torch",), ("onnxruntime",), ("torch", "onnxscript", "onnxruntime")])
def test_packages_that_are_not_installed(cli: Cli, monkeypatch: pytest.MonkeyPatch, lacking: tuple[str, ...]) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in lacking else find(name, *a))
    outcome = cli("export", "--stand-in", "-o", "b")
    assert outcome.mistake == (
        f"export needs {', '.join(lacking)}",
        "pip install '.[export,cpu]' in a clone of jotr-deploy",
    )
    assert len(outcome.err.splitlines()) == 2


def test_a_file_without_permission(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.pt").touch()
    monkeypatch.setattr(os, "access", lambda *_, **__: False)  # root may read every file
    cause, remedy = cli("export", tmp_path / "c.pt", "-o", tmp_path / "out").mistake
    assert cause.endswith("c.pt' is not readable.")
    assert remedy == "check its permissions"
