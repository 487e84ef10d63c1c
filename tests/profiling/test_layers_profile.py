"""Where a call spends its time."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from jotr_deploy.bundle import open_bundle
from jotr_deploy.profiling import layer_times, peaks
from jotr_deploy.profiling.layer_times import GLUE, HEAT_MAPS, block_of, blocks_of, median_kernels, profile
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.runtime.sessions.session import Kernel
from jotr_deploy.support.processor import sums_saturate

pytestmark = pytest.mark.slow

ENGINES = ["onnxruntime", *(["openvino"] if importlib.util.find_spec("openvino") else [])]


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(peaks, "SIDE", 32)
    monkeypatch.setattr(peaks, "_MEMORY_BYTES", 1 << 12)
    monkeypatch.setattr(layer_times, "CALLS", 3)
    peaks.product_gflops.cache_clear()
    peaks.memory_gb_per_s.cache_clear()
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def node(name: str, result: str) -> onnx.NodeProto:
    return onnx.helper.make_node("Relu", ["x"], [result], name=name)


GRAPH = onnx.helper.make_graph(
    [
        node("backbone.layer1.0.conv1/Conv", "relu_3"),
        node("fusion/Add", "sum"),
        node("body/Add_6", "vertices"),
        node("/Mul", "mul"),
    ],
    "g",
    [],
    [],
)


@pytest.mark.parametrize(
    ("kernel", "block"),
    [
        ("backbone.layer1.0.conv1/Conv", "backbone.layer1"),
        ("backbone.layer1.0.conv1/Conv_token_80", "backbone.layer1"),
        ("backbone.layer1.0.conv2/Conv/WithoutBiases", "backbone.layer1"),
        ("backbone.layer9.0.conv1/Conv", GLUE),
        ("relu_3_nchwc", "backbone.layer1"),
        ("relu_3_q", "backbone.layer1"),
        ("fusion/Add", "fusion"),
        ("VariadicSplit_89499___body/Concat_1", "body"),
        ("/Exp", HEAT_MAPS),
        ("ReorderInput", GLUE),
        ("Transpose_token_78", GLUE),
        ("", GLUE),
    ],
)
def test_block_of(kernel: str, block: str) -> None:
    assert block_of(kernel, blocks_of(onnx.helper.make_model(GRAPH))) == block


def test_median_kernels() -> None:
    calls = [
        [Kernel("a", "Conv", 1), Kernel("b", "Add", 5), Kernel("b", "Add", 1)],
        [Kernel("a", "Conv", 3), Kernel("b", "Add", 4)],
        [Kernel("a", "Conv", 2)],  # the other took no time that can be counted
    ]
    assert median_kernels(calls) == [Kernel("a", "Conv", 2), Kernel("b", "Add", 4)]
    assert median_kernels([]) == []


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("engine", ENGINES)
def test_the_large_product_is_one(engine: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if (engine, precision) == ("openvino", "int8") and sums_saturate():
        pytest.skip("OpenVINO's integer kernels clip their sums on this processor, which has no VNNI")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(peaks, "SIDE", 32)
    onnx.save(peaks._product(precision), tmp_path / "product.onnx")
    x = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    with open_session(tmp_path / "product.onnx", engine, "cpu") as session:
        found = session({"x": x})["y"]
    wanted = x @ np.random.default_rng(1).normal(size=(32, 32)).astype(np.float32)
    assert np.abs(found - wanted).max() < {"fp32": 1e-4, "bf16": 0.3, "int8": 1.0}[precision]


def test_every_kernel_is_in_a_block(bundle: Path) -> None:
    found = profile(open_bundle(bundle), batch=2, threads=1)
    (mesh,) = found.files
    assert (mesh.file, mesh.backend, found.batch, found.notes) == ("mesh.onnx", "onnxruntime", 2, ())
    blocks = {block.name: block for block in mesh.blocks}
    assert {"backbone.layer1", "lifting.encoder", "fusion.decoder", "heads", "vposer", "body", GLUE} <= set(blocks)
    assert sum(block.kernels for block in mesh.blocks) == len(mesh.kernels)
    assert mesh.ms == pytest.approx(sum(kernel.ms for kernel in mesh.kernels))
    assert blocks["backbone.layer1"].gflop > 0
    assert mesh.floor_ms == max(mesh.computing_ms, mesh.weights_ms) > 0
    once = profile(open_bundle(bundle), batch=1, threads=1).files[0]
    assert sum(block.gflop for block in once.blocks) == pytest.approx(sum(block.gflop for block in mesh.blocks) / 2)


def test_command(bundle: Path, cli: Callable[..., Any]) -> None:
    for engine in ENGINES:
        precision = {"onnxruntime": "fp16", "openvino": "bf16"}[engine]
        assert cli("build-engine", bundle, "--backend", engine, "--precision", precision).code == 0
    result = cli("bench", bundle, "--layers", "--batches", "1", "--threads", 1)
    assert result.code == 0, result.err
    assert "backbone.layer1" in result.out
    assert "all / floor" in result.out
    assert "profiled; nothing was written" in result.out
    as_json = cli("bench", bundle, "--layers", "--batches", "1", "--threads", 1, "--json")
    files = json.loads(as_json.out)["files"]
    assert [file["backend"] for file in files] == ["onnxruntime", *ENGINES]
    assert files[0]["kernels"][0]["ms"] >= files[0]["kernels"][-1]["ms"]


def test_one_thing_at_a_time(bundle: Path, cli: Callable[..., Any]) -> None:
    result = cli("bench", bundle, "--layers", "--choose")
    assert result.code == 2
    assert "--layers and --choose are both given" in result.err


def test_no_file_that_runs(bundle: Path, cli: Callable[..., Any]) -> None:
    (bundle / "mesh.onnx").write_bytes(b"")
    result = cli("bench", bundle, "--layers")
    assert result.code == 2
    assert "mesh.onnx" in result.err
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["files"] = [entry for entry in manifest["files"] if entry["role"] != "mesh"]
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    result = cli("bench", bundle, "--layers")
    assert result.code == 2
