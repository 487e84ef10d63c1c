"""`bench --choose`: the faster engine of a file is remembered for this processor, and opens it from then on."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from session_contract import check_session, pair

from jotr_deploy.bundle import open_bundle
from jotr_deploy.errors import OutputError
from jotr_deploy.profiling.choose import agree
from jotr_deploy.runtime.sessions import cuda, open_session
from jotr_deploy.runtime.sessions.choice import choices, remember, remembered

pytestmark = pytest.mark.slow

pytest.importorskip("openvino", reason="pip install '.[openvino]'")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cuda, "available", lambda: False)
    return choices()


def engine_of(path: Path, **options: Any) -> str:
    with open_session(path, **options) as session:
        check_session(session)
        return type(session).__name__


def test_what_was_remembered_opens_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = pair(tmp_path / "pair.onnx"), tmp_path / "other.onnx"
    other.write_bytes(path.read_bytes() + b"")
    assert remembered(path) is None
    assert engine_of(path) == "OnnxRuntimeSession"
    remember(path, "openvino")
    assert engine_of(path) == "OpenVINOSession"
    assert engine_of(other) == "OpenVINOSession"  # the same bytes
    assert engine_of(path, backend="onnxruntime") == "OnnxRuntimeSession"
    find = importlib.util.find_spec
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "openvino" else find(n, *a))
        assert engine_of(path) == "OnnxRuntimeSession"
    with monkeypatch.context() as patch:
        patch.setattr("jotr_deploy.runtime.sessions.choice.processor", lambda: ("another", ()))
        assert engine_of(path) == "OnnxRuntimeSession"
    remember(path, "onnxruntime")
    assert engine_of(path) == "OnnxRuntimeSession"


@pytest.mark.parametrize("content", ["", "no JSON", "[]", '{"a": 1}'])
def test_a_damaged_file_says_nothing(tmp_path: Path, cache: Path, content: str) -> None:
    path = pair(tmp_path / "pair.onnx")
    cache.parent.mkdir(parents=True)
    cache.write_text(content)
    assert remembered(path) is None
    remember(path, "openvino")
    assert remembered(path) == "openvino"


def test_a_cache_that_cannot_be_written(tmp_path: Path, cache: Path) -> None:
    cache.parent.parent.mkdir(parents=True)
    cache.parent.write_text("a file in its place")
    with pytest.raises(OutputError):
        remember(pair(tmp_path / "pair.onnx"), "openvino")


def test_command(tiny_bundle: Path, cli: Callable[..., Any]) -> None:
    done = cli("bench", tiny_bundle, "--choose", "--seconds", 1, "--json")
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)
    assert row["file"] == "mesh.onnx"
    assert set(row["timings"]) == {"onnxruntime", "openvino"}
    assert row["timings"][row["chosen"]]["p50_ms"] == min(each["p50_ms"] for each in row["timings"].values())
    assert remembered(open_bundle(tiny_bundle).file("mesh")) == row["chosen"]
    done = cli("bench", tiny_bundle, "--choose", "--seconds", 1)
    assert done.code == 0, done.err
    assert "chosen" in done.out
    assert f"done {choices()} (remembered for this processor and these files)" in done.out.replace("\n", "")


@pytest.mark.parametrize(
    ("value", "same"), [(1.0, True), (1.0005, True), (1.01, False), (float("nan"), False), (-1.0, False)]
)
def test_engines_must_agree(value: float, same: bool) -> None:
    expected = {"a": np.ones((2, 3), np.float32), "none": np.zeros((0, 3), np.float32)}
    assert agree(expected, {**expected, "a": expected["a"] * np.float32(value)}) is same
    assert not agree(expected, {**expected, "none": np.zeros((1, 3), np.float32)})


def test_an_engine_with_other_results_is_left_out(
    tiny_bundle: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jotr_deploy.profiling.choose.agree", lambda expected, found: expected is found)
    done = cli("bench", tiny_bundle, "--choose", "--seconds", 1, "--json")
    (row,) = json.loads(done.out)
    assert row["chosen"] == "onnxruntime"
    assert row["left_out"] == {"openvino": "its results differ from those of onnxruntime"}
