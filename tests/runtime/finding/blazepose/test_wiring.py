"""Which networks find the people of `load` and `run`: those that are fetched, or the bundle's own with a hint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from outcome import Outcome
from pictures import noise, picture

import jotr_deploy as jd
from jotr_deploy.bundle import sha256_of, starter_path
from jotr_deploy.errors import BundleError
from jotr_deploy.runtime.finding.blazepose.landmarks import BODY, POINTS
from jotr_deploy.runtime.finding.blazepose.person_detector import SIDE, anchors

Cli = Callable[..., Outcome]
HINT = "These networks were trained on synthetic people; for real ones: jotr-deploy fetch people"


def write_network(path: Path, side: int, answers: dict[str, np.ndarray]) -> None:
    """A network that answers the same for every picture of a batch."""
    nodes, weights = [helper.make_node("Shape", ["image"], ["rows"], start=0, end=1)], []
    for name, answer in answers.items():
        shape = numpy_helper.from_array(np.array(answer.shape), f"{name}_rest")
        weights += [numpy_helper.from_array(answer, f"{name}_one"), shape]
        nodes.append(helper.make_node("Concat", ["rows", f"{name}_rest"], [f"{name}_shape"], axis=0))
        nodes.append(helper.make_node("Expand", [f"{name}_one", f"{name}_shape"], [name]))
    described = {name: ["batch", *answer.shape] for name, answer in answers.items()}
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in described.items()]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", side, side, 3])
    graph = helper.make_graph(nodes, "always", [image], tensors, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Networks as `fetch people` leaves them, which see somebody in the middle of whatever they look at."""
    folder = tmp_path / "data" / "jotr-deploy" / "blazepose"
    folder.mkdir(parents=True)
    boxes, logits = np.zeros((len(anchors()), 12), np.float32), np.full((len(anchors()), 1), -9, np.float32)
    boxes[-24 * 6 - 6, :8], logits[-24 * 6 - 6] = [0, -20, 20, 20, 0, 0, 0, -0.3 * SIDE], 3
    write_network(folder / "detector.onnx", 224, {"boxes": boxes, "logits": logits})
    points = np.full((POINTS, 5), 5, np.float32)
    points[:BODY, 0], points[:BODY, 1] = np.linspace(90, 166, BODY), 128 + 80 * np.cos(np.arange(BODY))
    points[BODY:, :2] = 128
    points[BODY + 1, 1] = 128 - 256 / 2.5
    heatmaps = np.full((64, 64, POINTS), -9, np.float32)
    answers = {"landmarks": points.reshape(-1), "flag": np.float32([0.9]), "heatmaps": heatmaps}
    write_network(folder / "landmarks.onnx", 256, answers)
    hashes = {name: sha256_of(folder / name) for name in ("detector.onnx", "landmarks.onnx")}
    (folder / "source.json").write_text(json.dumps({"package": "p", "version": "1", "licence": "L", "sha256": hashes}))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return folder


def test_any_bundle_finds_people_by_them_where_they_are_asked_for(tiny_bundle: Path, fetched: Path) -> None:
    with jd.load(tiny_bundle, people="blazepose", device="cpu") as model:
        people = model(noise())
        assert len(people) >= 1
        assert people.scores.max() == pytest.approx(0.9 / (1 + np.exp(-3)), rel=1e-4)
        assert model.skeleton == "blazepose33"
        assert {used["role"] for used in model.files_used} == {"mesh", "detector", "pose"}


def test_auto_takes_them_with_the_starter_alone(tiny_bundle: Path, fetched: Path) -> None:
    names = {}
    for bundle in (starter_path(), tiny_bundle):
        with jd.load(bundle, device="cpu") as model:
            model(noise())
            names[bundle] = {used["name"] for used in model.files_used}
    assert {"blazepose/detector.onnx", "blazepose/landmarks.onnx"} <= names[starter_path()]
    assert not any("blazepose" in name for name in names[tiny_bundle])


def test_asked_for_and_never_fetched_says_how_to_get_them(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError) as caught, jd.load(tiny_bundle, people="blazepose", device="cpu") as model:
        model(noise())
    assert caught.value.remedy == "get them with: jotr-deploy fetch people"


def test_run_of_the_starter_says_by_which_people_are_found_and_how_to_get_better_ones(
    cli: Cli, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    photo = picture(tmp_path / "photo.png")
    said = cli("run", "starter", photo, "-o", tmp_path / "own").out
    assert HINT in said
    assert "blazepose/" not in said
    request.getfixturevalue("fetched")
    said = cli("run", "starter", photo, "-o", tmp_path / "fetched").out
    assert HINT not in said
    assert "people found by blazepose/detector.onnx" in said
