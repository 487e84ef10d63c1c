"""What the tests of several commands share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from outcome import Outcome, tree
from pictures import picture


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path) -> pytest.MonkeyPatch:
    """The slow step of `export`, tracing, gives the tiny network with the stand-in body, whatever went in.

    What is exported must be that network: everything after this step is real, the comparison with PyTorch too.
    """
    proto = onnx.load(tiny_bundle / "mesh.onnx")
    monkeypatch.setattr("jotr_deploy.export.to_bundle.export_onnx", lambda *_: proto)
    return monkeypatch


@pytest.fixture
def place(tmp_path: Path, tiny_bundle: Path) -> Path:
    """A folder with a bundle of its own, a picture, and results of an earlier run in `out`."""
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    picture(tmp_path / "photo.png")
    (tmp_path / "out").mkdir()
    for name in ("photo.npz", "photo.json", "photo_overlay.jpg"):
        (tmp_path / "out" / name).write_text("of an earlier run")
    return tmp_path


@pytest.fixture
def refused(cli: Callable[..., Outcome], place: Path) -> Callable[..., tuple[str, str]]:
    """`run` in `place`: its cause and remedy, after a look that nothing there has changed."""

    def call(*options: object, source: str = "photo.png", output: str = "out") -> tuple[str, str]:
        before = tree(place)
        outcome = cli("run", place / "bundle", place / source, "-o", place / output, *options)
        assert tree(place) == before
        return outcome.mistake

    return call
