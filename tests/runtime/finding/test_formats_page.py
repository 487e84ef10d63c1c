"""docs/formats.md: its tables are what the code says, and its worked example works as it stands there."""

from __future__ import annotations

import inspect
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from canned import always, mmdeploy_answers, write_always
from hypothesis import given, settings
from hypothesis import strategies as st

from jotr_deploy.errors import SessionError
from jotr_deploy.runtime.finding import detection, pose
from jotr_deploy.runtime.finding.detection import open_detector
from jotr_deploy.runtime.finding.detection.base import Detector
from jotr_deploy.runtime.finding.detection.hog import HogDetector
from jotr_deploy.runtime.finding.recognition import Recipe
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.skeletons import SKELETONS

PAGE = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()
SIZE = (96, 64)


def table(under: str) -> list[list[str]]:
    rows = PAGE.partition(f"\n## {under}\n")[2].partition("\n|")[2].split("\n\n")[0].split("\n")[2:]
    return [[cell.strip().replace("`", "") for cell in row.strip("|").split("|")] for row in rows]


@pytest.mark.parametrize(("under", "formats"), [("Detectors", detection.FORMATS), ("Pose networks", pose.FORMATS)])
def test_every_format_is_there_in_the_order_in_which_they_are_asked(under, formats):
    assert [row[0] for row in table(under)] == [each.name for each in formats]


def test_every_setting_is_there_with_its_default():
    listed = {(name, key): json.loads(default) for name, key, default, _ in table("Recipes")}
    of_the_code = {
        (each.name, key): field.default
        for each in (*detection.FORMATS, *pose.FORMATS)
        for key, field in each.recipe.model_fields.items()
        if key not in Recipe.model_fields
    }
    assert listed == of_the_code


def test_what_is_said_beside_the_tables():
    words = " ".join(PAGE.split())
    (width, height), (narrow, high) = detection.USUAL_PX, pose.USUAL_PX
    assert f"{width} x {height} for a detector, {narrow} x {high} for a pose network" in words
    hog = {name: value.default for name, value in inspect.signature(HogDetector).parameters.items()}
    assert f"HOG has threshold {hog['threshold']} and IoU {hog['iou']}" in words
    assert ", ".join(f"`{name}`" for name in SKELETONS) in words


@pytest.fixture(scope="module")
def example() -> type[Detector]:
    """The class of the worked example, from the page."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.S | re.M)
    module = ModuleType("detr")
    sys.modules["detr"] = module  # where its annotations are looked up
    exec(code, vars(module))
    yield module.Detr
    del sys.modules["detr"]


def answers(boxes_px: np.ndarray, scores: np.ndarray, size_px: tuple[int, int]) -> dict[str, np.ndarray]:
    """Outputs for people's boxes (N, 4) in a picture, and a car."""
    shares = (np.concatenate([boxes_px, [[0, 0, 9, 9.0]]]) + 0.5) / (size_px * 2)
    dets = np.hstack([(shares[:, :2] + shares[:, 2:]) / 2, shares[:, 2:] - shares[:, :2]])
    logits = np.full((len(dets), 92), -90, np.float32)
    logits[:, -1], logits[:-1, 1], logits[-1, 3] = 0, np.log(scores / (1 - scores)), 5
    return {"pred_boxes": dets.astype(np.float32), "logits": logits}


def picture(size_px: tuple[int, int]) -> np.ndarray:
    return np.zeros((size_px[1], size_px[0], 3), np.uint8)


def test_the_example_is_found_by_its_tensors_once_it_is_listed(example, tmp_path, monkeypatch):
    boxes_px, scores = np.array([[5, 6, 25, 56], [50, 6, 70, 40.0]]), np.array([0.8, 0.9])
    path = write_always(tmp_path / "d.onnx", "input", SIZE, answers(boxes_px, scores, (480, 320)))
    with open_session(path, device="cpu") as session:
        with pytest.raises(SessionError):
            open_detector(session)
        monkeypatch.setattr(detection, "FORMATS", (*detection.FORMATS, example))
        found, confidence = open_detector(session)(picture((480, 320)))
        assert len(open_detector(session, {"format": "detr", "threshold": 0.85})(picture((480, 320)))[0]) == 1
    np.testing.assert_allclose(found, boxes_px[::-1], atol=1e-3)
    np.testing.assert_allclose(confidence, scores[::-1], rtol=1e-5)
    others = [always("input", SIZE, mmdeploy_answers(boxes_px, scores)), session]
    assert [[each.name for each in detection.FORMATS if each.fits(other)] for other in others] == [
        ["mmdeploy"], ["detr"],
    ]  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([(480, 360), (96, 64), (1, 1), (20, 600), (3, 2000)]), st.integers(0, 2**31), st.integers(0, 5))
def test_known_boxes_come_back_from_the_example(example, size_px, seed, count):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 0.5, (count, 2))
    boxes_px = np.concatenate([low, rng.uniform(0.55, 1, (count, 2))], 1) * (size_px * 2) - 0.5
    scores = rng.permutation(np.linspace(0.6, 0.95, count))
    session = always("input", SIZE, answers(boxes_px, scores, size_px))
    found, confidence = example(session, example.recipe())(picture(size_px))
    order = np.argsort(-scores)
    np.testing.assert_allclose(found, boxes_px[order], atol=1e-5 * max(*size_px, 10))
    np.testing.assert_allclose(confidence, scores[order], rtol=1e-5)
    assert (found.dtype, confidence.dtype) == (np.float32, np.float32)


def test_red_is_the_first_channel_of_the_example(example):
    session = always("input", SIZE, answers(np.zeros((0, 4)), np.zeros(0), SIZE))
    example(session, example.recipe())(np.full((32, 96, 3), (0, 0, 255), np.uint8))
    (seen,) = session.seen
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]
    np.testing.assert_allclose(seen[0, :, 32, 48], expected, rtol=1e-5)
