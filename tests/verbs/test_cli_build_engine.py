"""`build-engine --network` on the command line: what it prints, what it checks, what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from outcome import Outcome, tree

from jotr_deploy.bundle import open_bundle
from jotr_deploy.runtime.sessions import openvino

Cli = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "computes_bfloat16", lambda: False)


def test_the_file_is_verified_and_this_machine_says_whether_it_uses_it(cli: Cli, tmp_path: Path) -> None:
    options = "--network", "pose", "--backend", "onnxruntime"
    outcome = cli("build-engine", "starter", *options, "-o", tmp_path / "copy")
    assert outcome.code == 0, outcome.err
    lines = " ".join(outcome.out.split())
    assert "pose.fp16.onnx against pose.onnx in ONNX Runtime, max (mean)" in lines
    assert "not used here, where pose.onnx is: it is for ONNX Runtime on a GPU" in lines
    assert f"Next: jotr-deploy run {tmp_path / 'copy'} IMAGE -o DIR" in lines
    assert open_bundle(tmp_path / "copy").entry("pose", "pose.fp16.onnx").precision == "fp16"
    again = cli("build-engine", tmp_path / "copy", *options, "--json")
    told = json.loads(again.out)
    assert (told["file"], told["trtexec"], told["used_here"]) == ("pose.fp16.onnx", [], "pose.onnx")
    assert {row["output"] for row in told["differences"]} == {"joints"}


@pytest.mark.parametrize("network", ["detector", "pose"])
def test_the_rules_are_checked_without_a_gpu(cli: Cli, network: str) -> None:
    outcome = cli("build-engine", "starter", "--network", network, "--check-only", "--json")
    assert (outcome.code, json.loads(outcome.out)) == (0, [])


OF_TENSORRT = (
    ["--batch", "1,4,16"], ["--plugin", "none"], ["--portable", "version"], ["--attention"], ["--workspace", "1GiB"],
    ["--timing-cache", "c"], ["--level", "3"], ["--check-only"],
)  # fmt: skip


@pytest.mark.parametrize(
    ("options", "cause", "remedy"),
    [
        (["--network", "face"], "--network: 'face' is not known", "give one of mesh, detector, pose, features"),
        (["--try", "a.png"], "--try is for a detector or a pose network", "leave it out, or give --network"),
        (["--network", "pose", "--plugin", "library"],
         "--plugin library: a pose network has no sampling operator to replace", "leave --plugin out"),
        (["--network", "pose", "--precision", "int8", "--check-only"],
         "--precision int8: only the mesh network is calibrated, not the pose network",
         "give --precision fp16 or fp32"),
        *[(["--backend", backend, *options], f"--backend {backend} and {options[0]} are both given",
           "leave one of them out") for backend in ("onnxruntime", "openvino") for options in OF_TENSORRT],
        *[(["--check-only", *options], f"--check-only and {options[0]} are both given", "leave one of them out")
          for options in (["--output", "new"], ["--try", "a.png"], ["--batch", "1,4"], ["--portable", "version"],
                          ["--level", "3"])],
        (["--network", "detector", "--backend", "onnxruntime"], None, None),
    ],
)  # fmt: skip
def test_refused(cli: Cli, place: Path, options: list[str], cause: str | None, remedy: str | None) -> None:
    before = tree(place)
    found = cli("build-engine", place / "bundle", *options).mistake
    if cause is None:
        cause = f"{place / 'bundle'}: the bundle has no detector file"
        remedy = "put it in: jotr-deploy add BUNDLE --detector FILE"
    assert found == (cause, remedy)
    assert tree(place) == before
