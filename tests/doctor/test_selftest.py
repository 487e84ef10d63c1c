"""`doctor --selftest` without a GPU, and on a machine with one that is made of fakes."""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from engines.tensorrt.fake_machine import fake_machine
from outcome import Outcome
from tiny import TINY

from jotr_deploy.bundle import Bundle, open_bundle
from jotr_deploy.config import ModelConfig
from jotr_deploy.doctor import selftest as module
from jotr_deploy.doctor.selftest import SelfTest, operator_feeds, operator_model, selftest
from jotr_deploy.errors import SessionError
from jotr_deploy.plugins import kernel
from jotr_deploy.plugins.reference import trilinear_sample_3d
from jotr_deploy.support.precisions import Precision

pytestmark = pytest.mark.slow

pytest.importorskip("torch", reason="pip install '.[export]'")

STAND_IN = module._stand_in
ENGINES = {"kernel", "ONNX Runtime CPU", "ONNX Runtime CUDA", "TensorRT"}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def exported_once(monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path) -> list[ModelConfig]:
    """Tracing takes longer than all the rest: what would be exported is here already. The asked ones are listed."""
    asked: list[ModelConfig] = []

    def stand_in(config: ModelConfig, path: Path) -> Bundle:
        asked.append(config)
        return open_bundle(tiny_bundle)

    monkeypatch.setattr(module, "_stand_in", stand_in)
    return asked


def by_engine(found: SelfTest, network: str, engine: str) -> dict[str, str]:
    return {row.precision: row.result for row in found.rows if (row.network, row.engine) == (network, engine)}


def test_without_a_gpu_the_cpu_is_tested_and_the_rest_says_why(tiny_bundle: Path) -> None:
    steps: list[str] = []
    found = selftest(open_bundle(tiny_bundle), steps.append)
    assert found.passed
    assert {row.engine for row in found.rows} == ENGINES
    assert by_engine(found, "operator", "ONNX Runtime CPU") == {"fp32": "ok", "fp16": "ok"}
    for network in ("tiny", "full"):
        assert by_engine(found, network, "ONNX Runtime CPU") == {"fp16": "ok"}
    for row in found.rows:
        assert bool(row.difference) == (row.result == "ok")
        assert bool(row.detail) == (row.result == "not run")
    assert set(by_engine(found, "full", "TensorRT")) == {"fp32", "fp16", "bf16"}
    assert set(by_engine(found, "full", "TensorRT").values()) == {"not run"}
    assert "operator in ONNX Runtime CPU, fp16" in steps
    assert not [step for step in steps if "TensorRT" in step]
    assert json.loads(json.dumps(found.machine))["cuda"] is None


def by_reference(features: int, points: int, samples: int, shape: Any, count: int, dtype: str, stream: int = 0) -> None:
    """The kernel, as far as its addresses can tell; the memory of a fake GPU is this process's."""
    import ml_dtypes

    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))

    def at(address: int, shape: tuple[int, ...], kind: np.dtype[Any]) -> Any:
        size = int(np.prod(shape)) * kind.itemsize
        return np.frombuffer((ctypes.c_char * size).from_address(address), kind).reshape(shape)

    where = at(points, (shape[0], count, 3), np.dtype(np.float32))
    at(samples, (shape[0], count, shape[-1]), kind)[:] = trilinear_sample_3d(at(features, shape, kind), where)


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., SelfTest]:
    def run(bundle: Bundle, launch: Any = by_reference) -> SelfTest:
        with fake_machine(monkeypatch) as machine:

            def queued(*arguments: Any) -> None:
                machine.gpu.queue(arguments[-1], lambda: launch(*arguments))

            monkeypatch.setattr(kernel, "launch", queued)
            found = selftest(bundle)
            assert machine.trt.alive() == {}
            return found

    return run


def test_on_a_gpu_everything_is_built_and_compared(tiny_bundle: Path, on_a_gpu: Callable[..., SelfTest]) -> None:
    before = {path.name: path.read_bytes() for path in tiny_bundle.iterdir()}
    found = on_a_gpu(open_bundle(tiny_bundle))
    assert by_engine(found, "operator", "kernel") == {"fp32": "ok", "fp16": "ok", "bf16": "ok"}
    for network in ("operator", "tiny", "full"):
        by_precision = by_engine(found, network, "TensorRT")
        assert (by_precision["fp32"], by_precision["fp16"]) == ("ok", "ok")
    assert found.machine["cuda"]["capability"] == "8.7"
    assert {path.name: path.read_bytes() for path in tiny_bundle.iterdir()} == before


@pytest.fixture
def no_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_networks", lambda bundle, folder: {})


@pytest.mark.usefixtures("no_networks")
def test_a_wrong_kernel_is_found_and_the_rest_goes_on(tiny_bundle: Path, on_a_gpu: Callable[..., SelfTest]) -> None:
    found = on_a_gpu(open_bundle(tiny_bundle), launch=lambda *arguments: None)
    assert not found.passed
    rows = [row for row in found.rows if row.engine == "kernel"]
    assert {row.result for row in rows} == {"failed"}
    assert all(row.detail.startswith("differs by ") for row in rows)
    assert by_engine(found, "operator", "TensorRT")["fp32"] == "ok"


@pytest.mark.usefixtures("no_networks")
def test_a_refused_launch_is_a_failed_row(tiny_bundle: Path, on_a_gpu: Callable[..., SelfTest]) -> None:
    def refuse(*arguments: Any) -> None:
        raise SessionError("CUDA cannot launch the kernel (invalid)", "report this")

    found = on_a_gpu(open_bundle(tiny_bundle), launch=refuse)
    assert {row.detail for row in found.rows if row.engine == "kernel"} == {"CUDA cannot launch the kernel (invalid)"}


def test_without_pytorch_the_tiny_network_is_not_run(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_stand_in", STAND_IN)
    monkeypatch.setitem(sys.modules, "jotr_deploy.export.to_bundle", None)
    found = selftest(open_bundle(tiny_bundle))
    assert {row.result for row in found.rows if row.network == "tiny"} == {"not run"}
    assert by_engine(found, "full", "ONNX Runtime CPU") == {"fp16": "ok"}


def test_the_full_network_is_the_published_one_where_no_bundle_is_named(exported_once: list[ModelConfig]) -> None:
    assert selftest().passed
    assert exported_once == [TINY, ModelConfig()]


def test_the_tiny_network_is_exported_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_bundle: Path) -> None:
    """But for the tracing: the file is compared with PyTorch, so that no other network would be taken."""
    proto = onnx.load(tiny_bundle / "mesh.onnx")
    monkeypatch.setattr("jotr_deploy.export.to_bundle.export_onnx", lambda *_: proto)
    made = STAND_IN(TINY, tmp_path / "tiny")
    assert made.manifest.model == TINY
    assert made.file("mesh").read_bytes() == (tiny_bundle / "mesh.onnx").read_bytes()


def test_the_operator_alone_samples(tmp_path: Path) -> None:
    assert [node.name for node in operator_model(Precision.FP16).graph.node if node.domain] == ["sample"]
    feeds = operator_feeds(3)
    assert {name: feed.shape for name, feed in feeds.items()} == {"features": (3, 8, 8, 8, 256), "points": (3, 15, 3)}
    assert (feeds["points"] < 0).any()  # padding is tested too


def test_the_table_and_the_exit_code(cli: Callable[..., Outcome], tiny_bundle: Path) -> None:
    outcome = cli("doctor", tiny_bundle, "--selftest")
    assert outcome.code == 0
    assert "ONNX Runtime CPU" in outcome.out
    assert "4 ok, 0 failed, 18 not run. Paste all of this into a bug report." in outcome.out
    found = json.loads(cli("doctor", tiny_bundle, "--selftest", "--json").out)
    assert len(found["rows"]) == 22


def test_a_network_with_weights_in_float16_can_be_tested_in_fp16(tmp_path: Path) -> None:
    """The starter's, and every network trained here."""
    rows = module._in_onnxruntime(
        open_bundle(Path(module.__file__).parents[1] / "starter"), Precision.FP16, False, tmp_path / "work"
    )
    assert {row.output for row in rows} >= {"vertices", "pose"}
