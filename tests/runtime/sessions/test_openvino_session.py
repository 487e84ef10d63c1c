"""OpenVINO behind the contract: batches put together from parts, models in stages, files it cannot open."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from session_contract import check_session, feeds, pair, save
from tiny import TINY

from jotr_deploy.engines.verify import measure, require
from jotr_deploy.errors import MissingDependency, SessionError
from jotr_deploy.runtime.sessions import Session, open_session
from jotr_deploy.runtime.sessions import openvino as module
from jotr_deploy.runtime.sessions.openvino import PARTS, parts
from jotr_deploy.runtime.sessions.openvino_stages import STAGES
from jotr_deploy.support.precisions import Precision

openvino = pytest.importorskip("openvino", reason="pip install '.[openvino]'")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "jotr-deploy" / "openvino"


def opened(path: Path, **options: Any) -> Session:
    return open_session(path, backend="openvino", **options)


@pytest.mark.parametrize("options", [{}, {"device": "cpu"}, {"threads": 1}])
def test_it_keeps_the_contract(tmp_path: Path, options: dict[str, Any]) -> None:
    check_session(opened(pair(tmp_path / "pair.onnx"), **options))


def test_the_name_of_a_file_chooses_it(tmp_path: Path) -> None:
    check_session(open_session(pair(tmp_path / "pair.openvino.onnx")))


@pytest.mark.parametrize(
    ("batch", "expected"), [(0, []), (1, [1]), (3, [2, 1]), (8, [8]), (13, [8, 4, 1]), (19, [8, 8, 2, 1])]
)
def test_batches_are_put_together(tmp_path: Path, batch: int, expected: list[int]) -> None:
    assert parts(batch) == expected
    with opened(pair(tmp_path / "pair.onnx")) as session:
        given = feeds(batch)
        results = session(given)
        assert set(session._stages) == set(expected) <= set(PARTS)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(results["same"], given["points"])
    np.testing.assert_allclose(results["scaled"], given["points"] * given["scale"], rtol=1e-6)


@pytest.mark.slow
def test_the_operator_of_this_package_is_written_out(tiny_bundle: Path) -> None:
    file = tiny_bundle / "mesh.onnx"
    with open_session(file, device="cpu") as reference, opened(file, threads=1) as session:
        assert (session.inputs, session.outputs) == (reference.inputs, reference.outputs)
        require(measure(reference, session, TINY), Precision.FP32, "OpenVINO")


def test_other_shapes_than_a_batch(tmp_path: Path) -> None:
    nodes = [helper.make_node("Concat", ["a", "a"], ["c"], axis=1)]
    with opened(save(tmp_path / "wide.onnx", nodes, {"a": [2, "n"]}, ["c"], [2, "m"])) as session:
        assert session.inputs["a"].shape == (2, "?")
        for width in (1, 3):
            assert session({"a": np.ones((2, width), np.float32)})["c"].shape == (2, 2 * width)
    nodes = [helper.make_node("Add", ["a", "a"], ["c"])]
    with opened(save(tmp_path / "fixed.onnx", nodes, {"a": [1, 2]}, ["c"], [1, 2])) as session:
        assert session({"a": np.ones((1, 2), np.float32)})["c"].tolist() == [[2, 2]]


def staged(path: Path, stages: object) -> Path:
    """A network with these stages: y = x + 1, z = 3 y by a product of matrices, w = z + x."""
    nodes = [
        helper.make_node("Add", ["x", "one"], ["y"]),
        helper.make_node("MatMul", ["y", "three"], ["z"]),
        helper.make_node("Add", ["z", "x"], ["w"]),
    ]
    save(path, nodes, {"x": ["batch", 64]}, ["z", "w"], ["batch", 64])
    model = onnx.load(path)
    for name, value in (("one", np.ones(1, np.float32)), ("three", 3 * np.eye(64, dtype=np.float32))):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    helper.set_model_props(model, {STAGES: stages if isinstance(stages, str) else json.dumps(stages)})
    onnx.save(model, path)
    return path


HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
needs_bf16 = pytest.mark.skipif(not HAS_BF16, reason="this processor has no bfloat16")


@pytest.mark.parametrize(
    ("stages", "count"),
    [
        ([["f32", []]], 1),
        ([["f32", ["y"]], ["f32", []]], 2),
        ([["f32", ["z"]], ["f32", []]], 2),  # an output of the file, which the next stage needs too
        ([["f32", ["y"]], ["f32", ["z"]], ["f32", []]], 3),
        ([["f32", ["w"]], ["f32", []]], 1),  # nothing is left for the last one
    ],
)
def test_stages_change_nothing(tmp_path: Path, stages: list[Any], count: int) -> None:
    with opened(staged(tmp_path / "staged.onnx", stages)) as session:
        assert len(session._models) == (count if HAS_BF16 else 1)  # type: ignore[attr-defined]
        for batch in (1, 3):
            x = np.arange(64 * batch, dtype=np.float32).reshape(batch, 64)
            results = session({"x": x})
            np.testing.assert_array_equal(results["z"], 3 * (x + 1))
            np.testing.assert_array_equal(results["w"], 3 * (x + 1) + x)


@needs_bf16
def test_every_stage_has_its_precision(tmp_path: Path) -> None:
    x = np.full((1, 64), 1 + 2**-12, np.float32)  # not a number of bfloat16
    exact = (x + 1) * 3 + x
    for precision, equal in (("f32", True), ("bf16", False)):
        with opened(staged(tmp_path / "staged.onnx", [[precision, ["z"]], ["f32", []]])) as session:
            results = session({"x": x})
        assert (results["w"] == exact).all() == equal
        np.testing.assert_array_equal(results["w"], results["z"] + x)  # the last stage is in float32


@needs_bf16
@pytest.mark.parametrize("stages", ["no JSON", '[["f32"]]', "[1]", '[["f32", ["nowhere"]], ["f32", []]]'])
def test_metadata_that_mean_nothing(tmp_path: Path, stages: str) -> None:
    path = staged(tmp_path / "staged.onnx", stages)
    with pytest.raises(SessionError) as refusal:
        opened(path)
    assert refusal.value.cause == f"{path}: its metadata names stages that are not in it"


@pytest.mark.parametrize(
    "make",
    [
        lambda p: p.write_bytes(b"hello"),
        lambda p: p.write_bytes(pair(p).read_bytes()[:-40]),
        lambda p: save(p, [helper.make_node("Levitate", ["a"], ["c"])], {"a": [1]}, ["c"], [1]),
    ],
)
def test_files_that_cannot_be_opened(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    path = tmp_path / "mesh.onnx"
    make(path)
    with pytest.raises(SessionError) as refusal:
        opened(path)
    starts = ("OpenVINO cannot load it (", "not an ONNX model: it is plain text", "an ONNX model, but damaged (")
    assert refusal.value.cause.removeprefix(f"{path}: ").startswith(starts)
    assert "\n" not in refusal.value.cause
    assert refusal.value.remedy == "check the file; export it again"


def test_not_on_a_gpu(tmp_path: Path) -> None:
    path = pair(tmp_path / "pair.onnx")
    with pytest.raises(SessionError, match="OpenVINO is for the CPU here"):
        opened(path, device="cuda")


def test_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(module, "_core", module._core.__wrapped__)  # another test's core may be remembered
    with pytest.raises(MissingDependency) as refusal:
        opened(pair(tmp_path / "pair.onnx"))
    assert refusal.value.remedy == "pip install '.[openvino]' in a clone of jotr-deploy"


def test_compiled_models_are_kept(tmp_path: Path, cache: Path) -> None:
    path = pair(tmp_path / "pair.onnx")
    for _ in range(2):
        with opened(path) as session:
            session(feeds(3))
        kept = sorted(cache.glob("*.blob"))
        assert len(kept) == 2  # of batches of 2 and of 1
    for blob in kept:
        blob.write_bytes(b"damaged")
    check_session(opened(path))


def test_a_cache_that_cannot_be_written(tmp_path: Path, cache: Path) -> None:
    cache.parent.parent.mkdir()
    cache.parent.write_text("a file in its place")
    check_session(opened(pair(tmp_path / "pair.onnx")))
