"""Tests share a generator seeded per test, a tiny bundle, the command line, and the helpers of this folder."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of `tiny.TINY` with random weights and the stand-in body. Shared: copy it before changing it."""
    from tiny import TINY

    from jotr_deploy.export.export import export_bundle
    from jotr_deploy.export.load import load_stand_in

    return export_bundle(load_stand_in(TINY), tmp_path_factory.mktemp("bundles") / "tiny").path


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., object]:
    """Call the command line in this process: `cli("run", bundle, ...)` -> Outcome."""
    from outcome import Outcome

    from jotr_deploy.cli import main

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["jotr-deploy", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        return Outcome(int(stop.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture(autouse=True)
def ctrl_c_is_heard() -> Iterator[None]:
    """What is started in the background is deaf to SIGINT, and so would be the tests of it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
