"""`export` that cannot write, fails on the way, or is stopped: nothing half-written, the bundle before untouched."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from outcome import Outcome, full_disk, tree
from tiny import tiny_checkpoint

from jotr_deploy.engines.verify import Difference

Cli = Callable[..., Outcome]

PLACE = "choose a writable folder that exists and has free space"
NOT_A_BUNDLE = "choose another -o"
EXISTS = "choose another -o, or add --force to replace the bundle"


def occupied(folder: Path, what: str, tiny_bundle: Path) -> Path:
    if what == "bundle":
        shutil.copytree(tiny_bundle, folder / "taken")
    elif what == "folder":
        (folder / "taken").mkdir()
    else:
        (folder / "taken").write_text("mine")
    return folder / "taken"


@pytest.mark.parametrize(
    ("what", "more", "cause", "remedy"),
    [
        ("bundle", [], "already exists", EXISTS),
        ("file", [], "already exists and is not a bundle", NOT_A_BUNDLE),
        ("folder", ["--force"], "already exists and is not a bundle", NOT_A_BUNDLE),
        ("file", ["--force"], "already exists and is not a bundle", NOT_A_BUNDLE),
    ],
)
def test_an_output_that_is_taken(
    cli: Cli, tmp_path: Path, tiny_bundle: Path, what: str, more: list[str], cause: str, remedy: str
) -> None:
    output, checkpoint = occupied(tmp_path, what, tiny_bundle), tiny_checkpoint(tmp_path)
    before = tree(tmp_path)
    outcome = cli("export", checkpoint, "--body", "stand-in", "-o", output, *more)
    assert outcome.mistake == (f"{output}: {cause}", remedy)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("place", "reason"), [("file/bundle", "Not a directory"), ("file/deep/bundle", "Not a directory"),
                          ("x" * 300, "File name too long")],
)  # fmt: skip
def test_an_output_that_cannot_be(cli: Cli, tmp_path: Path, place: str, reason: str) -> None:
    (tmp_path / "file").touch()
    checkpoint, output = tiny_checkpoint(tmp_path), tmp_path / place
    before = tree(tmp_path)
    outcome = cli("export", checkpoint, "--body", "stand-in", "-o", output)
    assert outcome.mistake == (f"{output}: cannot be written ({reason})", PLACE)
    assert tree(tmp_path) == before


def far(*_: Any) -> list[Difference]:
    return [Difference("vertices", 3, 12.5, 2.0, True)]


@pytest.mark.parametrize("before", [None, "bundle"])
@pytest.mark.parametrize(
    ("broken", "stand_in_for_it", "cause", "remedy"),
    [
        ("onnx.save", full_disk, "{output}: cannot be written (No space left on device)", PLACE),
        ("numpy.save", full_disk, "{output}: cannot be written (No space left on device)", PLACE),
        ("jotr_deploy.export.to_bundle.write_manifest", full_disk,
         "{output}: cannot be written (No space left on device)", PLACE),
        ("jotr_deploy.export.to_bundle.measure", far,
         "mesh.onnx: vertices differs from its reference by 12.5 mm at batch 3, limit 0.1 mm (max)",
         "nothing was kept; report this with the versions of `doctor`"),
    ],
)  # fmt: skip
def test_failures_on_the_way(
    cli: Cli, traced: pytest.MonkeyPatch, tmp_path: Path, tiny_bundle: Path,
    before: str | None, broken: str, stand_in_for_it: Callable[..., Any], cause: str, remedy: str,
) -> None:  # fmt: skip
    output = occupied(tmp_path, before, tiny_bundle) if before else tmp_path / "deep" / "bundle"
    checkpoint = tiny_checkpoint(tmp_path)
    there = tree(tmp_path)
    traced.setattr(broken, stand_in_for_it)
    outcome = cli("export", checkpoint, "--body", "stand-in", "-o", output, "--force")
    assert outcome.mistake == (cause.format(output=output), remedy)
    assert tree(tmp_path) == there


@pytest.mark.parametrize("before", [None, "bundle"])
def test_an_interrupt_leaves_nothing(
    cli: Cli, traced: pytest.MonkeyPatch, tmp_path: Path, tiny_bundle: Path, before: str | None
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    output = occupied(tmp_path, before, tiny_bundle) if before else tmp_path / "deep" / "bundle"
    checkpoint = tiny_checkpoint(tmp_path)
    there = tree(tmp_path)
    traced.setattr("jotr_deploy.export.to_bundle.measure", stop)
    outcome = cli("export", checkpoint, "--no-body", "-o", output, "--force")
    assert outcome.code == 130
    assert outcome.err.endswith("interrupted\n")
    assert tree(tmp_path) == there


def test_force_replaces_a_bundle_and_nothing_else(
    cli: Cli, traced: pytest.MonkeyPatch, tmp_path: Path, tiny_bundle: Path
) -> None:
    output = occupied(tmp_path, "bundle", tiny_bundle)
    (output / "mesh.fp16.onnx").write_bytes(b"derived from the old one")
    (tmp_path / "beside").write_text("mine")
    outcome = cli("export", tiny_checkpoint(tmp_path), "--body", "stand-in", "-o", output, "--force")
    assert outcome.code == 0
    assert set(tree(tmp_path)) == {
        "beside", "taken", "taken/bundle.json", "taken/faces.npy", "taken/mesh.onnx", "tiny.pt",
    }  # fmt: skip


def test_force_in_the_folder_itself(cli: Cli, traced: pytest.MonkeyPatch, tmp_path: Path, tiny_bundle: Path) -> None:
    output = occupied(tmp_path, "bundle", tiny_bundle)
    checkpoint = tiny_checkpoint(tmp_path)
    traced.chdir(output)
    outcome = cli("export", checkpoint, "--body", "stand-in", "-o", ".", "--force")
    traced.chdir(tmp_path)
    assert outcome.code == 0, outcome.err
    assert set(tree(output)) == {"bundle.json", "faces.npy", "mesh.onnx"}
