"""Files that take pictures of any size: the recipe's size, or the usual one; then as files of that size."""

from __future__ import annotations

import numpy as np
import pytest
from canned import (
    write_heatmaps_of_any_size,
    write_of_one_hidden_size,
    write_yolox,
    write_yolox_of_any_size,
    yolox_rows,
)

from jotr_deploy.errors import BundleError, SessionError
from jotr_deploy.runtime.finding.detection import open_detector
from jotr_deploy.runtime.finding.pose import open_pose_network
from jotr_deploy.runtime.finding.variable_input_size import of_one_size
from jotr_deploy.runtime.sessions import open_session


@pytest.mark.parametrize("batch", ["batch", 1])
@pytest.mark.parametrize(
    ("recipe", "size_px"), [({}, (640, 640)), ({"size_px": [96, 64]}, (96, 64)), ({"size_px": [64, 256]}, (64, 256))]
)
def test_a_detector_of_any_size(tmp_path, recipe, size_px, batch):
    image = np.zeros((size_px[1], size_px[0], 3), np.uint8)
    image[32:64, 32:64] = 255  # one cell of the coarsest level, and what it has of the others
    with open_session(write_yolox_of_any_size(tmp_path / "d.onnx", batch), device="cpu") as session:
        detector = open_detector(session, {"threshold": 0.9, **recipe})
        boxes_px, scores = detector(image)
    assert (detector.name, detector.size_px) == ("yolox", size_px)
    assert detector.about == f"yolox, {size_px[0]} x {size_px[1]} px, classes: 1"
    assert len(boxes_px) == 1 + 4 + 16
    np.testing.assert_allclose(scores, 1, atol=1e-5)
    largest = (boxes_px[:, 2] - boxes_px[:, 0]).argmax()
    np.testing.assert_allclose(boxes_px[largest], [31.5, 31.5, 63.5, 63.5], atol=1e-3)


@pytest.mark.parametrize(("recipe", "size_px"), [({}, (192, 256)), ({"size_px": [96, 128]}, (96, 128))])
def test_a_pose_network_of_any_size(tmp_path, recipe, size_px):
    image = np.zeros((360, 480, 3), np.uint8)
    image[150:156, 170:176] = 255
    with open_session(write_heatmaps_of_any_size(tmp_path / "p.onnx"), device="cpu") as session:
        network = open_pose_network(session, recipe)
        (joints,) = network(image, np.array([[150, 100, 210, 220.0]]))
    assert (network.size_px, network.skeleton) == (size_px, "coco17")
    assert network.about == f"heatmaps, {size_px[0]} x {size_px[1]} px, joints of coco17, peaks by quarter"
    np.testing.assert_allclose(joints[:, :2], [[172.5, 152.5]] * 17, atol=4 * 150 / size_px[1])


def test_a_session_of_one_size_is_left_as_it_is(tmp_path):
    rows = yolox_rows(np.zeros((0, 4)), np.zeros(0), (96, 64))
    with open_session(write_yolox(tmp_path / "d.onnx", rows, (96, 64)), device="cpu") as session:
        assert of_one_size(session, None, (640, 640)) is session
        assert open_detector(session, {"size_px": [96, 64]}).size_px == (96, 64)
        with pytest.raises(BundleError) as refusal:
            open_detector(session, {"size_px": [96, 96]})
    cause = f"{tmp_path / 'd.onnx'}: recipe: size_px: the file takes 96 x 64 px"
    assert (refusal.value.cause, refusal.value.remedy) == (cause, "leave size_px out")


def test_a_size_that_the_network_does_not_take(tmp_path):
    path = write_of_one_hidden_size(tmp_path / "d.onnx", (96, 64))
    with open_session(path, device="cpu") as session:
        with pytest.raises(SessionError) as refusal:
            open_detector(session)
        assert open_detector(session, {"size_px": [96, 64]}).about == "ultralytics, 96 x 64 px, classes: 1"
    assert refusal.value.cause.startswith(f"{path}: does not run on images of 640 x 640 px (")
    assert refusal.value.remedy == 'give a size that it accepts in its recipe: "size_px": [WIDTH, HEIGHT]'


@pytest.mark.parametrize(
    ("size_px", "cause"),
    [
        ([100, 64], "size_px.0: Input should be a multiple of 32"),
        ([96, 0], "size_px.1: Input should be greater than 0"),
        ([640], "size_px.1: Field required"),
        (640, "size_px: Input should be a valid tuple"),
    ],
)
def test_recipes_that_are_refused(tmp_path, size_px, cause):
    path = write_yolox_of_any_size(tmp_path / "d.onnx")
    with open_session(path, device="cpu") as session, pytest.raises(BundleError) as refusal:
        open_detector(session, {"size_px": size_px})
    assert refusal.value.cause == f"{path}: recipe: {cause}"
    assert refusal.value.remedy == "any format accepts format, size_px"
