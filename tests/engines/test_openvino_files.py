"""`build-engine --backend openvino`: files of standard operators that OpenVINO computes as they ask for."""

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
from tiny import TINY

from jotr_deploy.bundle import open_bundle
from jotr_deploy.engines.openvino import HEATMAPS, LOW_PRECISION, for_openvino
from jotr_deploy.engines.verify import random_crops
from jotr_deploy.errors import BundleError
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.runtime.sessions.openvino_stages import STAGES

pytestmark = pytest.mark.slow

pytest.importorskip("openvino", reason="pip install '.[openvino]'")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "jotr-deploy" / "openvino"


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_file_is_verified_and_runs(bundle: Path, cli: Callable[..., Any], precision: str) -> None:
    done = cli("build-engine", bundle, "--backend", "openvino", "--precision", precision, "--json")
    assert done.code == 0, done.err
    name = f"mesh.{precision}.openvino.onnx"
    assert json.loads(done.out)["file"] == name
    opened = open_bundle(bundle)
    entry = opened.entry("mesh", name)
    assert (entry.precision, entry.backend, entry.only_parsed) == (precision, "openvino", False)
    assert opened.entry("mesh").name == "mesh.onnx"  # `run` takes the exported one
    model = onnx.load(opened.file("mesh", name))
    assert not model.functions
    assert {each.domain for each in model.opset_import} <= {"", "ai.onnx"}
    feeds = random_crops(TINY, 3)
    with open_session(opened.file("mesh", name)) as session, open_session(opened.file("mesh"), device="cpu") as exact:
        found, expected = session(feeds), exact(feeds)
    gap_mm = 1000 * np.linalg.norm(found["vertices"] - expected["vertices"], axis=-1).mean()
    assert entry.error_mm is not None
    assert gap_mm < (0.1 if precision == "fp32" else 8)


def test_heat_maps_and_body_stay_in_float32(tiny_bundle: Path) -> None:
    model = for_openvino(onnx.load(tiny_bundle / "mesh.onnx"), low_precision=True)
    onnx.checker.check_model(model, full_check=True)
    (stages,) = (each.value for each in model.metadata_props if each.key == STAGES)
    assert json.loads(stages) == [[precision, list(names)] for precision, names in LOW_PRECISION]
    (maker,) = (node for node in model.graph.node if HEATMAPS in node.output)
    assert not maker.name.startswith("backbone")
    assert any(HEATMAPS in node.input and node.name.startswith("backbone") for node in model.graph.node)


def test_another_network_has_no_heat_maps(tiny_bundle: Path) -> None:
    model = onnx.load(tiny_bundle / "mesh.onnx")
    for node in model.graph.node:
        node.name = ""
    with pytest.raises(BundleError, match="no heat maps join the backbone"):
        for_openvino(model, low_precision=True)


def test_a_precision_that_it_does_not_have(bundle: Path, cli: Callable[..., Any]) -> None:
    done = cli("build-engine", bundle, "--backend", "openvino", "--precision", "fp16")
    assert done.code == 2
    assert "--backend openvino --precision fp16: its CPU does not compute in it" in done.err
    assert len(open_bundle(bundle).manifest.files) == 2


def test_openvino_that_is_not_installed(bundle: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "openvino" else find(n, *a))
    done = cli("build-engine", bundle, "--backend", "openvino", "--precision", "bf16")
    assert done.code == 2
    assert "pip install '.[cpu,openvino]' in a clone of jotr-deploy" in done.err
