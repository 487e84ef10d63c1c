"""A bundle for each test of engines, and a fake machine."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from engines.tensorrt.fake_machine import fake_machine

from jotr_deploy.bundle import Bundle, open_bundle


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return open_bundle(Path(shutil.copytree(tiny_bundle, tmp_path / "bundle")))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A GPU with TensorRT: call it with a version and behaviours to replace, enter what it returns."""
    return partial(fake_machine, monkeypatch)
