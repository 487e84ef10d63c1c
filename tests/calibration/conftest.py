"""One tiny network for all tests of calibration, and crops it is calibrated with."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny import TINY

from jotr_deploy.bundle import Bundle, open_bundle
from jotr_deploy.calibration.frames import CropSet
from jotr_deploy.engines.verify import random_crops


@pytest.fixture(scope="session")
def network(tiny_bundle: Path) -> onnx.ModelProto:
    """Shared: quantising copies it."""
    return onnx.load(tiny_bundle / "mesh.onnx")


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return open_bundle(Path(shutil.copytree(tiny_bundle, tmp_path / "bundle")))


@pytest.fixture(scope="session")
def crops() -> CropSet:
    return CropSet(random_crops(TINY, 16), "noise")


@pytest.fixture(scope="session")
def everything() -> np.ndarray:
    return np.arange(16)
