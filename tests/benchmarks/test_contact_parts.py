"""The parts of the first contact on fakes and on the CPU: what is right passes, what is wrong does not."""

from __future__ import annotations

import ctypes
import json
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from engines.tensorrt.fake_machine import fake_machine
from measuring import (
    contact_crops,
    contact_kernel,
    contact_machine,
    contact_networks,
    contact_onnxruntime,
    contact_plugin,
    contact_pytorch,
    contact_race,
    contact_streams,
    contact_tensorrt,
    contact_training,
    sampling_kernel,
)
from measuring.report import LeftOut, Report
from runtime.fake_cuda import fake_cuda
from runtime.sessions.test_onnxruntime_cuda import machine
from tiny import TINY

from jotr_deploy.bundle import open_bundle
from jotr_deploy.errors import MissingDependency
from jotr_deploy.runtime.sessions import device_array
from jotr_deploy.runtime.sessions.device_array import DeviceArray


class Rows(Report):
    """Keeps what it is told."""

    def __init__(self, folder: Path, seconds: float = 600) -> None:
        super().__init__(folder / "rows", seconds)
        self.folder = folder

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "rows").read_text().splitlines()]

    def wrong(self) -> list[str]:
        return [f"{row['what']}: {row['note']}" for row in self.rows() if row["state"] == "failed"]

    def states(self) -> set[str]:
        return {row["state"] for row in self.rows()}


@pytest.fixture
def report(tmp_path: Path) -> Rows:
    return Rows(tmp_path)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact_networks, "BATCHES", (1, 2))
    monkeypatch.setattr(contact_networks, "ROUNDS", 1)


# ── the kernel ───────────────────────────────────────────────────────────────────────────────────────────────────


def at(address: int, count: int, dtype: torch.dtype) -> torch.Tensor:
    """Elements of memory as a tensor."""
    nbytes = count * dtype.itemsize
    return torch.frombuffer((ctypes.c_ubyte * max(nbytes, 1)).from_address(address), dtype=dtype, count=count)


def emulated(
    features: int, points: int, samples: int, shape: tuple[int, ...], count: int, name: str, stream: int = 0,
    fault: str = "",
) -> None:  # fmt: skip
    """The kernel on the CPU, which may have a fault."""
    dtype, batch = getattr(torch, name), shape[0]
    if not batch * count:
        return
    volume = at(features, int(np.prod(shape)), dtype).view(shape).double().numpy()
    found = sampling_kernel.exact(volume, at(points, batch * count * 3, torch.float32).view(batch, count, 3).numpy())
    if fault == "reads beyond":
        found[0, 0, 0] += 0 * float(at(features - dtype.itemsize, 1, dtype)[0])
    values = torch.from_numpy(found).to(dtype).flatten()
    written = len(values) - (fault == "leaves one out")
    at(samples, written, dtype)[:] = values[:written]
    if fault == "writes beyond":
        at(samples + len(values) * dtype.itemsize, 1, dtype)[:] = 0


@pytest.mark.parametrize(
    ("fault", "states"),
    [("", {"ok"}), ("leaves one out", {"failed"}), ("writes beyond", {"failed"}), ("reads beyond", {"failed"})],
)
def test_the_kernel_is_caught(fault: str, states: set[str], report: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    launch = partial(emulated, fault=fault)
    monkeypatch.setattr(
        sampling_kernel, "worst_error", partial(sampling_kernel.worst_error, device="cpu", launch=launch)
    )
    contact_kernel.errors(report)
    assert len(report.rows()) == 3
    assert report.states() == states


# ── our layer over CUDA ──────────────────────────────────────────────────────────────────────────────────────────


class OnGpu:
    """An array of a library that knows the fake's GPU."""

    def __init__(self, values: np.ndarray) -> None:
        self._memory = contact_streams.cuda.Memory.on_device(values.nbytes)
        inside = (ctypes.c_ubyte * values.nbytes).from_address(self._memory.pointer)
        self.values = np.frombuffer(inside, values.dtype).reshape(values.shape)
        self.values[...] = values
        self.__cuda_array_interface__ = {**self.values.__array_interface__, "stream": None, "version": 3}


class OnHost:
    """Shows an array's capsule as one of host memory."""

    def __init__(self, array: DeviceArray) -> None:
        self.array = array

    def __dlpack__(self, **_: Any) -> Any:
        return device_array._capsule(self.array, 1)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


def stand_in_library() -> contact_streams.Library:
    """NumPy as a library that takes our arrays through DLPack."""

    def take(array: DeviceArray) -> np.ndarray:
        return np.from_dlpack(OnHost(array))

    return contact_streams.Library(
        take, OnGpu, np.asarray, lambda array: getattr(array, "values", array).__array_interface__["data"][0]
    )


def test_streams_on_a_sound_gpu(report: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact_streams, "LIBRARIES", {"numpy": stand_in_library, "no_such_library": stand_in_library})
    monkeypatch.setattr(contact_streams, "needs", lambda *names: _without(names, "no_such_library"))
    monkeypatch.setattr(contact_streams, "waits_for_torch", lambda report: None)
    with fake_cuda() as gpu:
        contact_streams.measure(report)
        assert not gpu.mistakes
        assert gpu.live() == {}
    assert report.wrong() == []
    assert [row["what"] for row in report.rows() if row["state"] == "left out"] == ["arrays of no_such_library"]
    assert sum(row["state"] == "ok" for row in report.rows()) == 3 + 1 + 3 + 2 * 3


def _without(names: tuple[str, ...], absent: str) -> None:
    if absent in names:
        raise LeftOut(absent)


def test_an_array_at_another_address_is_a_copy(report: Rows) -> None:
    with fake_cuda():
        library = stand_in_library()
        copying = contact_streams.Library(
            lambda array: library.take(array).copy(), library.make, library.to_host, library.address
        )
        contact_streams.exchanged(report, "numpy", copying)
    assert len(report.wrong()) == 3


def test_a_graph_that_runs_while_it_is_captured_is_wrong(report: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    def capture(self: Any, queue: Any) -> Any:
        queue()
        return SimpleNamespace(launch=lambda stream: queue(), release=lambda: None)

    monkeypatch.setattr(contact_streams.cuda.Stream, "capture", capture)
    with fake_cuda():
        contact_streams.graphs(report)
    # the fake's memory holds zeros from the first values on: only what follows the capture can differ
    assert report.rows()[0]["state"] == "failed"


def test_the_race_is_there_without_the_lock_and_not_with_it(report: Rows) -> None:
    with fake_cuda() as gpu:
        contact_race.measure(report)
        assert not gpu.mistakes
        assert gpu.live() == {}
    without, with_lock, allocated = report.rows()
    assert (without["value"], without["state"]) == (contact_race.ROUNDS, "measured")
    assert (with_lock["value"], with_lock["state"]) == (0, "ok")
    assert allocated["state"] == "ok"


def test_a_lock_that_excludes_nothing_is_caught(report: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """The allocation falls into the capture itself, from another thread."""
    import threading
    from contextlib import nullcontext

    useless = SimpleNamespace(alone=nullcontext, allocating=nullcontext, free=lambda release: release())
    for module in (contact_race, contact_race.cuda):
        monkeypatch.setattr(module, "CAPTURES", useless)
    plain = contact_race.cuda.Stream.on_device

    def on_device(self: Any, *arguments: Any) -> None:
        plain(self, *arguments)
        other = threading.Thread(target=contact_race.cuda.runtime().cudaMalloc, args=(64,))
        other.start()
        other.join()

    monkeypatch.setattr(contact_race.cuda.Stream, "on_device", on_device)
    with fake_cuda():
        assert len(contact_race.captured()) == contact_race.ROUNDS


# ── networks ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_pytorch_eager_and_compiled(report: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)  # compiling takes a minute
    monkeypatch.setattr(contact_pytorch, "ROUNDS", 2)
    contact_pytorch.measure(report, "cpu", (1, 2), TINY)
    assert report.wrong() == []
    assert sum(row.get("unit") == "ms" for row in report.rows()) == 8


@pytest.mark.slow
def test_a_network_that_takes_too_long_to_compile_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    monkeypatch.setattr(contact_pytorch, "ROUNDS", 1)
    report = Rows(tmp_path, seconds=0)
    contact_pytorch.measure(report, "cpu", (1,), TINY)
    assert [row["what"].split()[0] for row in report.rows() if row["state"] == "left out"] == ["torch.compile"] * 2
    assert report.wrong() == []


@pytest.mark.slow
def test_networks_in_onnxruntime(report: Rows, tiny_bundle: Path, tmp_path: Path) -> None:
    with machine():
        contact_onnxruntime.networks(report, "tiny", tmp_path, open_bundle(tiny_bundle))
    assert report.wrong() == []
    assert sum("captured" in row["what"] for row in report.rows()) == 2
    assert sum("difference" in row["what"] for row in report.rows()) == 8


@pytest.mark.slow
def test_a_refused_capture_is_found(report: Rows, tiny_bundle: Path, tmp_path: Path) -> None:
    with machine() as onnxruntime:
        onnxruntime.refuses_graphs = True
        contact_onnxruntime.networks(report, "tiny", tmp_path, open_bundle(tiny_bundle), graphs=(True,))
    assert [line.partition(":")[0] for line in report.wrong()] == ["tiny, fp32, CUDA graph", "tiny, fp16, CUDA graph"]


@pytest.mark.slow
def test_a_wrong_network_is_found(report: Rows, tiny_bundle: Path) -> None:
    from jotr_deploy.runtime.sessions import open_session
    from jotr_deploy.support.precisions import Precision

    bundle = open_bundle(tiny_bundle)
    with open_session(bundle.file("mesh", "mesh.onnx"), device="cpu") as session:
        contact_networks.verified(report, "right", Precision.FP32, session, session, bundle, 1)
        assert report.states() == {"ok"}
        for damage in (0.01, np.nan):

            def spoilt(feeds: Any, damage: float = damage) -> dict[str, np.ndarray]:
                return {name: values + np.float32(damage) for name, values in session(feeds).items()}

            contact_networks.verified(report, "wrong", Precision.FP32, spoilt, session, bundle, 1)
    assert len(report.wrong()) == 2


@pytest.mark.slow
def test_an_engine_of_tensorrt(
    report: Rows, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = open_bundle(Path(shutil.copytree(tiny_bundle, tmp_path / "bundle")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with fake_machine(monkeypatch):
        contact_tensorrt.engine(report, "tiny", bundle, "fp32")
    assert report.wrong() == []
    assert sum("difference" in row["what"] for row in report.rows()) == 4


def test_the_starter_is_a_copy(tmp_path: Path) -> None:
    assert contact_networks.starter(tmp_path).path == tmp_path / "starter"


@pytest.mark.slow
def test_crops(report: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    from measuring import crop_times

    monkeypatch.setattr(crop_times, "SIZES_PX", ((320, 240),))
    monkeypatch.setattr(contact_crops, "ROUNDS", 1)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    with machine() as onnxruntime:
        monkeypatch.setattr("jotr_deploy.runtime.crop_graph.onnxruntime", lambda: onnxruntime)
        contact_crops.measure(report)
    assert report.wrong() == []
    assert report.states() == {"ok", "measured"}


@pytest.mark.parametrize("part", [contact_crops, contact_onnxruntime])
def test_onnxruntime_without_cuda_is_named(part: Any, report: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "needs", lambda *names: None)
    with pytest.raises(LeftOut, match="needs onnxruntime-gpu"):
        part.measure(report)


@pytest.mark.slow
def test_training_in_both_precisions(report: Rows) -> None:
    contact_training.measure(report, steps=30, batch=4, scenes=4, model=TINY.model_dump())
    assert report.wrong() == []
    speeds = [row["what"] for row in report.rows() if row.get("unit") == "people/s"]
    assert speeds == ["training in fp32, 30 steps", "training in bf16, 30 steps"]


# ── the plugin and the machine ───────────────────────────────────────────────────────────────────────────────────


def test_the_plugin_without_headers_is_left_out(report: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise MissingDependency("not found: TensorRT headers", "get them")

    monkeypatch.setattr("measuring.plugin_harness.tools", missing)
    with report.attempt("the part"):
        contact_plugin.measure(report)
    assert report.states() == {"left out"}
    assert "not found: TensorRT headers" in report.rows()[0]["note"]


@pytest.mark.parametrize(("code", "states"), [(0, {"ok", "measured"}), (1, {"ok", "measured", "failed"})])
def test_what_the_harness_says(code: int, states: set[str], report: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("measuring.plugin_harness.tools", lambda: {})
    said = [("ok  one\nFAILED two\n1 check failed\n", code), ("fp32 batch 1  3.1 us\n", 0)]
    monkeypatch.setattr("measuring.plugin_harness.built_and_run", lambda found, architectures: said)
    contact_plugin.measure(report)
    assert report.states() == states


def test_the_machine_without_a_gpu(report: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    contact_machine.measure(report)
    assert report.wrong() == ["PyTorch: no CUDA device, or PyTorch without CUDA"]
