"""Files for engines made from a bundle's extractor: what is kept, what is refused, which one a fit opens."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

pytest.importorskip("torch", reason="needs PyTorch: pip install '.[fit]'")

from engines.tensorrt.fake_machine import content, fake_machine
from feature_bundle import SMALL, feature_bundle

import jotr_deploy as jd
from jotr_deploy.bundle import Bundle, open_bundle
from jotr_deploy.calibration import derived_features
from jotr_deploy.calibration.derived_features import Drawn, FeatureNetwork
from jotr_deploy.engines import derived_files
from jotr_deploy.engines.tensorrt.engine import check_network
from jotr_deploy.errors import JotrDeployError, MissingDependency, VerificationError
from jotr_deploy.fitting import options
from jotr_deploy.fitting.fitter import open_fitter
from jotr_deploy.fitting.options import Stage
from jotr_deploy.runtime.finding.people_networks import file_for
from jotr_deploy.support.choices import BACKENDS
from jotr_deploy.support.precisions import Precision

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def original(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return feature_bundle(tiny_bundle, tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="module")
def drawn(original: Bundle) -> Drawn:
    """Two people, drawn once for all tests."""
    with open_fitter(original, device="cpu") as fitter:
        return derived_features.drawn_people(original, fitter, 2)


@pytest.fixture
def bundle(original: Bundle, drawn: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle of its own for a test, with a fit of few steps, and few crops."""
    monkeypatch.setattr(derived_features, "drawn_people", lambda *given: drawn)
    monkeypatch.setattr(derived_features, "_calibration_images", lambda *given: np.asarray(drawn.crops.image))
    monkeypatch.setattr(derived_files, "BATCHES", (1, 2))
    quick = replace(options.preset("default"), stages=(Stage(2, ("root", "body")),), mirror="none")
    monkeypatch.setitem(options.PRESETS, "default", quick)
    return open_bundle(Path(shutil.copytree(original.path, tmp_path / "bundle")))


@pytest.mark.parametrize(
    ("backend", "precision", "name"),
    [
        ("onnxruntime", "fp16", "features.fp16.onnx"),
        ("onnxruntime", "int8", "features.int8.onnxruntime.onnx"),
        ("openvino", "bf16", "features.bf16.openvino.onnx"),
        ("openvino", "int8", "features.int8.openvino.onnx"),
    ],
)
def test_a_file_joins_the_bundle(bundle: Bundle, backend: Any, precision: str, name: str) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino", reason="needs OpenVINO: pip install '.[openvino]'")
    built = jd.build_engine(bundle.path, network="features", backend=backend, precision=precision)
    grown = open_bundle(bundle.path)
    entry, first = grown.entry("features", name), grown.entry("features")
    assert built.path == bundle.path / name
    assert first == bundle.entry("features")
    assert (entry.precision, entry.backend) == (precision, {"onnxruntime": "onnx"}.get(backend, backend))
    assert (entry.recipe, entry.batch) == (first.recipe, first.batch)
    rows = [(row.output, row.batch) for row in built.differences]
    fitted = [(output, batch) for batch in (1, 2) for output in ("fit", "fit, rounding")]
    assert rows == [*(("features", batch) for batch in (1, 2)), *fitted]
    fits = [row for row in built.differences if row.output == "fit"]
    assert entry.error_mm is not None
    assert entry.error_mm.max == pytest.approx(max(row.max for row in fits), rel=0.1)
    model = onnx.load(grown.file("features", name))
    assert any(node.op_type == "QuantizeLinear" for node in model.graph.node) == (precision == "int8")
    with open_fitter(grown, device="cpu", file=name) as fitter:
        image = np.random.default_rng(0).random((2, 3, fitter.side, fitter.side), np.float32)
        assert fitter.name == name
        np.testing.assert_allclose(np.linalg.norm(fitter.seen(image), axis=1), 1, atol=1e-3)
    with open_fitter(grown, device="cpu") as fitter:  # eight bits, and what is for other hardware, only if asked for
        assert precision != "int8" or fitter.name == "features.onnx"


def write_extractor(path: Path, side: int = SMALL.side, channels: int = SMALL.channels, weight: float = 1.0) -> None:
    """An extractor of one convolution: the colours of a cell, not even unit vectors."""
    nodes = [
        helper.make_node("AveragePool", ["image"], ["cells"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Conv", ["cells", "weight"], ["features"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", *shape])
        for name, shape in (("image", (3, side, side)), ("features", (channels, side // 4, side // 4)))
    ]
    weights = onnx.numpy_helper.from_array(np.full((channels, 3, 1, 1), weight, np.float32), "weight")
    graph = helper.make_graph(nodes, "features", ends[:1], ends[1:], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


@pytest.mark.parametrize(
    ("other", "cause"),
    [
        ({}, "it: features differs from its reference by .* 1 - cosine at batch 1"),
        ({"weight": np.nan}, "it: output features is not finite at batch 1"),
        ({"side": SMALL.side + 32}, "it: its crop or its features have another size"),
        ({"channels": SMALL.channels + 1}, "the feature bank has 16 and 16 channels, the feature map 17"),
    ],
)
def test_another_extractor_is_refused(bundle: Bundle, tmp_path: Path, other: Any, cause: str) -> None:
    write_extractor(tmp_path / "other.onnx", **other)
    with pytest.raises(JotrDeployError, match=cause):
        FeatureNetwork().measured(bundle, tmp_path / "other.onnx", Precision.FP16, (1, 2), "it", "onnxruntime")


@pytest.mark.parametrize(
    ("limits", "cause"),
    [
        ({"EIGHT_BIT_COSINE": 2.0}, r"the mean cosine to the original's features is \d\.\d{4} at batch 1, limit 2.0"),
        ({"EIGHT_BIT_COSINE": 0.0, "FIT_MM": -1000.0}, "fits of 2 people differ by"),
    ],
)
def test_beyond_a_limit_the_bundle_is_as_it_was(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, limits: dict[str, float], cause: str
) -> None:
    before = content(bundle.path)
    for name, value in limits.items():
        monkeypatch.setattr(derived_features, name, value)
    with pytest.raises(VerificationError, match=f"features.int8.onnxruntime.onnx: {cause}"):
        jd.build_engine(bundle.path, network="features", backend="onnxruntime", precision="int8")
    assert content(bundle.path) == before


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("precision", list(Precision))
def test_what_a_backend_has_no_use_for_is_refused(backend: Any, precision: Precision) -> None:
    if precision in derived_features.PRECISIONS[backend]:
        FeatureNetwork().refuse(backend, precision)
        return
    with pytest.raises(JotrDeployError, match=f"--precision {precision}: not for an extractor in {backend}"):
        FeatureNetwork().refuse(backend, precision)


def test_without_pytorch_nothing_is_made(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derived_features.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="verified by a fit, which needs torch"):
        jd.build_engine(bundle.path, network="features", backend="onnxruntime")


def test_a_picture_to_try_is_for_others(bundle: Bundle) -> None:
    with pytest.raises(JotrDeployError, match="--try is for a detector or a pose network"):
        jd.build_engine(bundle.path, network="features", backend="onnxruntime", picture="people.jpg")


def test_tensorrt_takes_the_extractor(bundle: Bundle) -> None:
    for precision in derived_features.PRECISIONS["tensorrt"]:
        assert check_network(bundle, precision, original=FeatureNetwork()) == []


def test_an_engine_joins_the_bundle_and_fits_with_it(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_machine(monkeypatch):
        jd.build_engine(bundle.path, network="features", precision="fp16", batch=(1, 2, 2))
        grown = open_bundle(bundle.path)
        entry = file_for(grown, "features")
        assert (entry.name, entry.batch) == ("features.fp16.sm87.engine", "1:2:2")
        assert file_for(grown, "features", "cpu").name == "features.onnx"
        with open_fitter(grown) as fitter:
            image = np.zeros((3, 3, fitter.side, fitter.side), np.float32)
            assert fitter.name == entry.name
            assert fitter.seen(image).shape == (3, fitter.channels, fitter.cells, fitter.cells)  # in two calls


def test_the_people_of_a_comparison(original: Bundle, drawn: Drawn) -> None:
    with open_fitter(original, device="cpu") as fitter:
        assert np.asarray(drawn.crops.image).shape == (2, 3, fitter.side, fitter.side)
        assert drawn.inside.shape == (2, fitter.cells, fitter.cells)
    assert len(drawn.people) == len(drawn.crops.joints) == 2
    assert np.asarray(drawn.crops.image).std() > 0.05


def test_images_to_calibrate_on_are_of_other_scenes(
    original: Bundle, drawn: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(derived_features, "CROPS", 2)
    images = derived_features._calibration_images(original, SMALL.side)
    assert images.shape == np.asarray(drawn.crops.image).shape
    assert not np.array_equal(images, drawn.crops.image)
