"""One exported bundle for all tests of engines, since tracing takes longer than anything they do; a fake machine."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from engines.fake_machine import fake_machine
from tiny import TINY

from jotr_deploy.bundle import Bundle, open_bundle


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the tiny stand-in network; copy it before changing anything."""
    from jotr_deploy.export.export import export_bundle
    from jotr_deploy.export.load import load_stand_in

    return export_bundle(load_stand_in(TINY), tmp_path_factory.mktemp("tiny") / "bundle").path


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return open_bundle(Path(shutil.copytree(tiny_bundle, tmp_path / "bundle")))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A GPU with TensorRT: call it with a version and behaviours to replace, enter what it returns."""
    return partial(fake_machine, monkeypatch)
