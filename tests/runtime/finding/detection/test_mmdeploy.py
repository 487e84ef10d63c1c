"""mmdeploy's detectors: known boxes come back; pixels of both families; padding, other classes, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from canned import Canned, always, mmdeploy_answers, on_canvas, write_always
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from jotr_deploy.errors import BundleError, SessionError
from jotr_deploy.runtime.finding.detection import open_detector
from jotr_deploy.runtime.sessions import TensorSpec, open_session

SIZE = (96, 64)
SHAPES = [(480, 360), (360, 480), (96, 64), (97, 63), (640, 640), (1, 1), (20, 600), (600, 20), (3, 2000)]
ONE = np.array([[10, 10, 30, 50.0]])


def picture(size_px: tuple[int, int] = SIZE) -> np.ndarray:
    return np.zeros((size_px[1], size_px[0], 3), np.uint8)


def find(boxes, scores, recipe=None, labels=None, size_px=SIZE):
    answers = mmdeploy_answers(on_canvas(boxes, size_px, SIZE), np.asarray(scores, np.float32), labels)
    return open_detector(always("input", SIZE, answers), recipe)(picture(size_px))


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(SHAPES), st.integers(0, 2**31), st.integers(0, 5), st.sampled_from(["yolox", "rtmdet"]))
def test_known_boxes_come_back(size_px, seed, count, family):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 0.5, (count, 2))
    boxes_px = np.concatenate([low, rng.uniform(0.55, 1, (count, 2))], 1) * (size_px * 2) - 0.5
    scores = rng.permutation(np.linspace(0.4, 1, count))
    found, confidence = find(boxes_px, scores, {"family": family}, size_px=size_px)
    order = np.argsort(-scores)
    np.testing.assert_allclose(found, boxes_px[order], atol=1e-5 * max(size_px))
    np.testing.assert_allclose(confidence, scores[order], rtol=1e-6)
    assert (found.dtype, confidence.dtype) == (np.float32, np.float32)
    assert found.shape == (count, 4)


@pytest.mark.parametrize(
    ("family", "red", "grey"),
    [
        ("yolox", [0, 0, 255], [114] * 3),
        # (value - mean) / deviation of blue, green, red
        ("rtmdet", [-1.80444, -2.03571, 2.24891], [0.18248, -0.03992, -0.16568]),
    ],
)
def test_red_is_the_last_channel_and_the_padding_has_the_same_pixels(family, red, grey):
    session = always("input", SIZE, mmdeploy_answers(np.zeros((0, 4)), np.zeros(0)))
    open_detector(session, {"family": family})(np.full((32, 96, 3), (0, 0, 255), np.uint8))
    (seen,) = session.seen
    assert (seen.dtype, seen.shape) == (np.float32, (1, 3, 64, 96))
    for part, expected in ((seen[0, :, :32], red), (seen[0, :, 32:], grey)):
        np.testing.assert_allclose(part, np.broadcast_to(np.reshape(expected, (3, 1, 1)), part.shape), atol=1e-4)


@pytest.mark.parametrize(
    ("scores", "labels", "found"),
    [
        ([], None, []),
        ([0.2, 0.1], None, []),
        ([0.9, 0.8, 0.7], [2, 0, 0], [0.8, 0.7]),  # a car
        ([0.9, 0.8], [-1, 0], [0.8]),
        ([0.5, 0.9], None, [0.9, 0.5]),
        ([5.0, np.nan], None, [1.0]),  # no probabilities
    ],
)
def test_who_is_a_person(scores, labels, found):
    boxes, confidence = find(np.repeat(ONE, len(scores), 0), scores, labels=labels)  # of one place: no second choice
    np.testing.assert_allclose(confidence, found)
    assert (boxes.shape, boxes.dtype, confidence.dtype) == ((len(found), 4), np.float32, np.float32)


@pytest.mark.parametrize(("threshold", "found"), [(0.5, 1), (0.49, 2), (0.0, 2), (0.75, 0), (1.0, 0)])
def test_a_score_is_above_the_threshold_and_padding_never(threshold, found):
    assert len(find(np.repeat(ONE, 2, 0), [0.5, 0.75], {"threshold": threshold})[1]) == found


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", range(4))
def test_a_box_without_a_place_is_nobody(column, wrong):
    boxes = np.repeat(ONE, 2, 0)
    boxes[0, column] = wrong
    found, confidence = find(boxes, [0.9, 0.8])
    np.testing.assert_allclose(found, ONE, atol=1e-4)
    np.testing.assert_allclose(confidence, [0.8])


def test_boxes_end_with_the_picture():
    boxes = np.array([[10, 10, 30, 40.0], [10, 40, 30, 60]])  # the picture ends in row 32 of the canvas
    session = always("input", SIZE, mmdeploy_answers(boxes, np.array([0.9, 0.8])))
    found, _ = open_detector(session)(picture((96, 32)))
    np.testing.assert_allclose(found, [[9.5, 9.5, 29.5, 31.5]], atol=1e-4)


@pytest.mark.parametrize("batch", ["batch", 1, 4])
def test_the_batch_is_that_of_the_file(batch):
    session = always("input", SIZE, mmdeploy_answers(on_canvas(ONE, SIZE, SIZE), np.ones(1)), batch)
    np.testing.assert_allclose(open_detector(session)(picture())[0], ONE, atol=1e-4)
    assert len(session.seen[0]) == (1 if batch == "batch" else batch)


@pytest.mark.parametrize("batch", ["batch", 1, 3])
def test_a_file_of_this_format(tmp_path: Path, batch):
    boxes_px = np.array([[5, 6, 25, 56], [50, 6, 70, 40.0]])
    answers = mmdeploy_answers(on_canvas(boxes_px, (480, 320), SIZE), np.array([0.8, 0.9]))
    with open_session(write_always(tmp_path / "d.onnx", "input", SIZE, answers, batch), device="cpu") as session:
        detector = open_detector(session, {"format": "mmdeploy", "threshold": 0.5, "family": "rtmdet"})
        found, confidence = detector(picture((480, 320)))
    np.testing.assert_allclose(found, boxes_px[::-1], atol=1e-3)
    np.testing.assert_allclose(confidence, [0.9, 0.8])


def with_columns(boxes: np.ndarray, columns: int | str) -> Canned:
    """As the exporter often leaves it: neither the number of rows nor that of columns is known."""
    dets = np.zeros((3, 5 if isinstance(columns, str) else columns), np.float32)
    dets[:1, :4], dets[0, 4] = boxes, 0.9
    session = always("input", SIZE, {"dets": dets, "labels": np.zeros(3, np.int64)})
    session.outputs["dets"] = TensorSpec(np.dtype(np.float32), ("batch", "num_dets", "Unsqueezedets_dim_2"))
    session.outputs["labels"] = TensorSpec(np.dtype(np.int64), ("batch", "num_dets"))
    return session


def test_the_number_of_columns_may_be_open():
    found, _ = open_detector(with_columns(on_canvas(ONE, SIZE, SIZE), "open"))(picture())
    np.testing.assert_allclose(found, ONE, atol=1e-4)
    with pytest.raises(SessionError) as refusal:
        open_detector(with_columns(ONE, 6))(picture())
    assert refusal.value.cause == "canned.onnx: dets have 6 columns instead of 5"
    assert refusal.value.remedy == "give a detector of upright boxes, exactly as its exporter writes it"


def spec(shape, dtype=np.float32):
    return TensorSpec(np.dtype(dtype), shape)


OTHERS = {
    "labels are logits": {"dets": spec((1, 300, 4)), "labels": spec((1, 300, 91))},
    "labels are logits, sizes open": {"dets": spec(("b", "n", "c")), "labels": spec(("b", "n", "k"))},
    "labels are fractions": {"dets": spec((1, 100, 5)), "labels": spec((1, 100))},
    "turned boxes": {"dets": spec((1, 100, 6)), "labels": spec((1, 100), np.int64)},
    "masks": {"dets": spec((1, 9, 5)), "labels": spec((1, 9), np.int64), "masks": spec((1, 9, 28, 28))},
    "joints": {"dets": spec((1, 9, 5)), "keypoints": spec((1, 9, 17, 3))},
    "no labels": {"dets": spec((1, 100, 5))},
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_refused(name):
    session = Canned({"input": (1, 3, 64, 96)}, {})
    session.outputs = OTHERS[name]
    with pytest.raises(SessionError, match=r"not a detector in a known format|cannot be used as a detector"):
        open_detector(session, {"format": "mmdeploy"})


KNOWN = "mmdeploy accepts format, size_px, person, threshold, family"


@pytest.mark.parametrize(
    ("recipe", "cause"),
    [
        ({"iou": 0.5}, "recipe: iou: Extra inputs are not permitted"),
        ({"threshold": -1}, "recipe: threshold: Input should be greater than or equal to 0"),
        ({"family": "ssd"}, "recipe: family: Input should be 'yolox' or 'rtmdet'"),
    ],
)
def test_recipes_that_are_refused(recipe, cause):
    with pytest.raises(BundleError) as refusal:
        find(ONE, [1.0], recipe)
    assert (refusal.value.cause, refusal.value.remedy) == (f"canned.onnx: {cause}", KNOWN)


def with_first_layer(path: Path, *weights: int) -> Path:
    """A file of this format whose first convolution has weights of this shape."""
    write_always(path, "input", SIZE, mmdeploy_answers(on_canvas(ONE, SIZE, SIZE), np.array([0.9])))
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(weights, np.float32), "stored"))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, weights[1], 64, 96), np.float32), "picture"))
    model.graph.node.append(helper.make_node("Identity", ["stored"], ["weights"]))
    model.graph.node.append(helper.make_node("Conv", ["picture", "weights"], ["features"]))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("weights", "said", "family"),
    [
        ((8, 12, 3, 3), {}, "yolox"),
        ((8, 12, 3, 3), {"family": "yolox"}, "yolox"),
        ((8, 3, 3, 3), {"family": "rtmdet"}, "rtmdet"),
        ((8, 12, 3, 3), {"family": "rtmdet"}, "its first layer is that of YOLOX, not of RTMDet"),
        ((8, 3, 3, 3), {}, "its first layer is not that of YOLOX"),
        ((8, 3, 3, 3), {"family": "yolox"}, "its first layer is not that of YOLOX"),
        ((8, 3, 7, 7), {}, "its first layer of 7 x 7 pixels is neither YOLOX's nor RTMDet's"),
        ((8, 3, 7, 7), {"family": "rtmdet"}, "it may be Faster R-CNN or RetinaNet"),
    ],
)
def test_the_first_layer_tells_whose_pixels_they_are(tmp_path: Path, weights, said, family):
    with open_session(with_first_layer(tmp_path / "d.onnx", *weights), "onnxruntime", "cpu") as session:
        if family in ("yolox", "rtmdet"):
            assert open_detector(session, said).family == family
        else:
            with pytest.raises(SessionError, match=family):
                open_detector(session, said)
