"""Tests share a generator seeded per test, a tiny bundle, the command line, and the helpers of this folder."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from filelock import FileLock

sys.path.insert(0, str(Path(__file__).parent))


# FFmpeg inside OpenCV takes its level from the first film of the process, which some tests write without this package.
os.environ["OPENCV_FFMPEG_LOGLEVEL"] = "-8"

FETCHED_IN = os.environ.get("XDG_DATA_HOME", "")
"""The user's data folder, for tests of the networks that were fetched."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that no worker is still busy with one after the others have finished."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def nothing_fetched(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on what the user has fetched."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.getbasetemp() / "no-data"))


@pytest.fixture(scope="session", autouse=True)
def own_cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """`once(name, make)`: a path that `make` has written, one time for all processes of this run. Copy to change."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"
    folder.mkdir(exist_ok=True)

    def call(name: str, make: Callable[[Path], object]) -> Path:
        with FileLock(folder / f"{name}.lock"):
            if not (folder / name).exists():
                make(folder / name)
        return folder / name

    return call


@pytest.fixture(scope="session")
def tiny_bundle(once: Once) -> Path:
    """A bundle of `tiny.TINY` with random weights and the stand-in body."""
    from tiny import TINY

    from jotr_deploy.export.assemble import load_stand_in
    from jotr_deploy.export.to_bundle import export_bundle

    return once("tiny", lambda path: export_bundle(load_stand_in(TINY), path))


@pytest.fixture(scope="session")
def golden_file(once: Once) -> Path:
    """The published network of `golden_case`, exported."""
    from golden_case import SEED, network

    from jotr_deploy.export.to_onnx import export_onnx

    return once("golden.onnx", lambda path: onnx.save(export_onnx(network(SEED)), path))


@pytest.fixture(scope="session")
def tiny_golden_file(once: Once) -> Path:
    """`golden_case.tiny_golden`, exported."""
    from golden_case import tiny_golden

    from jotr_deploy.export.to_onnx import export_onnx

    return once("tiny_golden.onnx", lambda path: onnx.save(export_onnx(tiny_golden()), path))


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
