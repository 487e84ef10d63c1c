"""BlazePose's two networks as formats: which files they are, alone and as a pair."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest
from canned import RADIUS_SHARE, Canned, blaze_joints, write_always, write_blaze_detector, write_blaze_landmarks

from jotr_deploy.errors import BundleError, SessionError
from jotr_deploy.runtime.finding import detection, pose
from jotr_deploy.runtime.finding.blazepose.source import BlazePosePeople
from jotr_deploy.runtime.finding.detection import open_detector
from jotr_deploy.runtime.finding.people_networks import PeopleNetworks
from jotr_deploy.runtime.finding.people_source import ONLY_BOTH, DetectedPeople, found_by
from jotr_deploy.runtime.finding.pose import open_pose_network
from jotr_deploy.runtime.finding.recognition import InBatches
from jotr_deploy.runtime.sessions import TensorSpec, open_session

IMAGE = np.zeros((120, 200, 3), np.uint8)


@pytest.mark.parametrize(
    ("write", "formats"), [(write_blaze_detector, detection.FORMATS), (write_blaze_landmarks, pose.FORMATS)]
)
@pytest.mark.parametrize("batch", ["batch", 1])
def test_a_file_is_of_this_format_and_no_other(tmp_path, write, formats, batch):
    with open_session(write(tmp_path / "n.onnx", batch), device="cpu") as session:
        assert [each.name for each in formats if each.fits(session)] == ["blazepose"]


def test_a_detector_finds_the_square_about_a_circle_in_every_window(tmp_path):
    with open_session(write_blaze_detector(tmp_path / "d.onnx"), device="cpu") as session:
        detector = open_detector(session)
        assert detector.about == "blazepose, 224 x 224 px, searches in windows"
        boxes_px, scores = detector(IMAGE)
    whole = [100 - 200 * RADIUS_SHARE - 0.5, -0.5, 100 + 200 * RADIUS_SHARE - 0.5, 119.5]
    assert np.abs(boxes_px - whole).max(1).min() <= 0.51  # whether counted from a pixel's centre or edge
    assert len(boxes_px) > 1  # the same answer in every window
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-3)), rtol=1e-5)
    assert boxes_px.dtype == scores.dtype == np.float32


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (500, 3)])
def test_nobody_and_tiny_pictures_are_arrays_of_their_rank(tmp_path, shape):
    with ExitStack() as stack:
        nobody, somebody = (
            open_detector(stack.enter_context(open_session(write_blaze_detector(path, people=n), device="cpu")))
            for n, path in enumerate((tmp_path / "no.onnx", tmp_path / "d.onnx"))
        )
        network = open_pose_network(stack.enter_context(open_session(write_blaze_landmarks(tmp_path / "p.onnx"))))
        image = np.zeros((*shape, 3), np.uint8)
        boxes_px, scores = nobody(image)
        assert (boxes_px.shape, scores.shape) == ((0, 4), (0,))
        assert network(image, boxes_px).shape == (0, 33, 3)
        boxes_px, _ = somebody(image)
        assert (boxes_px >= -0.5).all()
        assert (boxes_px[:, 2:] <= np.array(shape[::-1]) - 0.5).all()


def test_landmarks_are_found_in_boxes_that_are_given(tmp_path):
    boxes_px = np.array([[10, 20, 50, 100], [60, 30, 160, 70.0]])
    with open_session(write_blaze_landmarks(tmp_path / "p.onnx"), device="cpu") as session:
        network = open_pose_network(session)
        assert network.about == "blazepose, 256 x 256 px, joints of blazepose33"
        joints = network(IMAGE, boxes_px)
    expected = [blaze_joints((30, 60), 40), blaze_joints((110, 50), 50)]
    np.testing.assert_allclose(joints[..., :2], expected, atol=0.01)
    np.testing.assert_allclose(joints[..., 2], 1 / (1 + np.exp(-5)) ** 2, rtol=1e-5)


def test_who_is_no_person_has_no_joints(tmp_path):
    with open_session(write_blaze_landmarks(tmp_path / "p.onnx", flag=0.4), device="cpu") as session:
        assert not open_pose_network(session)(IMAGE, np.array([[10, 20, 50, 100.0]])).any()


@pytest.mark.parametrize("batch", [1, 4])
def test_a_file_of_a_fixed_batch_finds_the_same(tmp_path, batch):
    def found(batch: int | str) -> tuple[np.ndarray, np.ndarray]:
        with ExitStack() as stack:
            files = write_blaze_detector(tmp_path / "d.onnx", batch), write_blaze_landmarks(tmp_path / "p.onnx", batch)
            detector, network = (stack.enter_context(open_session(file, device="cpu")) for file in files)
            networks = PeopleNetworks(open_detector(detector), open_pose_network(network))
            people, boxes_px = found_by(networks, crop_factor=1.1).find(IMAGE)
            return people.keypoints_px, boxes_px

    for whole, parts in zip(found("batch"), found(batch), strict=True):
        assert len(whole)
        np.testing.assert_array_equal(whole, parts)


@pytest.mark.parametrize(("batch", "calls"), [("batch", 1), (1, 3), (2, 2), (4, 1)])
def test_any_number_of_images_goes_through_a_file_of_any_batch_in_order(batch, calls):
    session = Canned({"image": (batch, 2, 2, 3)}, {"sum": (batch, 1)})
    session.inputs = {"image": TensorSpec(np.dtype(np.float16), (batch, 2, 2, 3))}
    session.answer = lambda images: {"sum": images.sum((1, 2, 3))[:, None]}
    images = np.arange(3, dtype=np.float32)[:, None, None, None] * np.ones((1, 2, 2, 3), np.float32)
    assert InBatches(session)({"image": images})["sum"].tolist() == [[0], [12], [24]]
    assert len(session.seen) == calls
    assert session.seen[0].dtype == np.float16


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("blazepose", "blazepose", BlazePosePeople),
        ("other", "blazepose", DetectedPeople),
        ("other", "other", DetectedPeople),
        ("other", None, DetectedPeople),
        ("blazepose", "other", None),
        ("blazepose", None, None),
    ],
)
def test_the_pair_finds_people_as_blazepose_does_and_half_of_it_is_refused(tmp_path, first, second, expected):
    with ExitStack() as stack:
        sessions = [stack.enter_context(open_session(write(tmp_path / f"{write.__name__}.onnx"), device="cpu"))
                    for write in (write_blaze_detector, write_blaze_landmarks)]  # fmt: skip
        detector = open_detector(sessions[0]) if first == "blazepose" else lambda image_bgr: None
        network = open_pose_network(sessions[1]) if second == "blazepose" else (lambda *_: None) if second else None
        networks = PeopleNetworks(detector, network)  # type: ignore[arg-type]
        if expected is not None:
            assert type(found_by(networks, crop_factor=1.1)) is expected
            return
        with pytest.raises(BundleError) as refusal:
            found_by(networks, crop_factor=1.1)
        assert refusal.value.cause == f"{detector.session.path}: {ONLY_BOTH}"
        assert refusal.value.remedy == "add both: jotr-deploy add BUNDLE --people blazepose"


@pytest.mark.parametrize(
    "change",
    [{"boxes": np.zeros((2254, 11), np.float32)}, {"more": np.zeros(3, np.float32)}],
)
def test_what_only_looks_like_it_is_refused(tmp_path, change):
    answers = {"boxes": np.zeros((2254, 12), np.float32), "logits": np.zeros((2254, 1), np.float32), **change}
    path = write_always(tmp_path / "d.onnx", "image", (224, 224), answers, colours_last=True)
    with open_session(path, device="cpu") as session, pytest.raises(SessionError, match="cannot be used as a detector"):
        open_detector(session)


def test_boxes_that_are_no_pixels_are_odd(tmp_path):
    with open_session(write_blaze_detector(tmp_path / "d.onnx"), device="cpu") as session:
        detector = open_detector(session)
        outputs = session({"image": np.zeros((1, 224, 224, 3), np.float32)})
    assert detector.oddity(outputs) is None
    assert detector.oddity({**outputs, "boxes": outputs["boxes"] / 224}) == (
        "its boxes are fractions of the picture, not pixels"
    )


@pytest.mark.parametrize(
    ("write", "opened_as", "what", "remedy"),
    [
        (write_blaze_detector, open_pose_network, "a detector (blazepose)", "give it with --detector"),
        (write_blaze_landmarks, open_detector, "BlazePose's landmark network", "give it with --pose"),
    ],
)
def test_one_given_in_the_place_of_the_other_is_told(tmp_path, write, opened_as, what, remedy):
    with open_session(write(tmp_path / "n.onnx"), device="cpu") as session, pytest.raises(SessionError) as refusal:
        opened_as(session)
    assert f"this is {what}, which cannot be used" in refusal.value.cause
    assert refusal.value.remedy == remedy
