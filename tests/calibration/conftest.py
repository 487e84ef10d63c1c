"""One tiny network for all tests of calibration, crops it is calibrated with, and what comes of that."""

from __future__ import annotations

import logging
import logging.handlers
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny import TINY

from jotr_deploy.bundle import Bundle, open_bundle
from jotr_deploy.calibration.calibration_crops import CropSet
from jotr_deploy.calibration.eight_bit_copy import Calibrated, calibrate
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


ANY_MM = 1e6


@dataclass(frozen=True)
class Finished:
    """A calibration with a budget that everything meets: its bundle, and the user's cache after it."""

    result: Calibrated
    cache: Path
    log: str


@pytest.fixture(scope="session")
def finished(tiny_bundle: Path, crops: CropSet, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Shared: `calibrated` is a copy."""
    folder = tmp_path_factory.mktemp("calibrated")
    said = logging.handlers.BufferingHandler(1000)
    log = logging.getLogger("jotr_deploy")
    log.addHandler(said)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        opened = open_bundle(Path(shutil.copytree(tiny_bundle, folder / "bundle")))
        result = calibrate(opened, crops, "mse", ANY_MM)
    log.removeHandler(said)
    return Finished(result, folder / "cache", "\n".join(record.getMessage() for record in said.buffer))


@pytest.fixture
def calibrated(finished: Finished, bundle: Bundle, tmp_path: Path) -> Bundle:
    """The bundle after a calibration on `crops`, the cache filled."""
    shutil.copytree(finished.cache, tmp_path / "cache")
    shutil.copytree(finished.result.bundle.path, bundle.path, dirs_exist_ok=True)
    return open_bundle(bundle.path)
