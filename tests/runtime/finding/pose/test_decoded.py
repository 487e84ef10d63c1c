"""RTMPose with the decoding inside: what the file says is taken back to the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from canned import Canned, always, write_always
from hypothesis import given, settings
from hypothesis import strategies as st

from jotr_deploy.errors import SessionError
from jotr_deploy.geometry.crop import transform_px
from jotr_deploy.runtime.finding.pose import open_pose_network
from jotr_deploy.runtime.finding.pose.top_down import input_from_image
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.third_party.trial import try_pose

SIZE = (96, 128)
IMAGE = np.zeros((360, 480, 3), np.uint8)
BOX = np.array([[150, 100, 210, 220.0]])


def answers(joints: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs for joints (J, 3) of the input."""
    return {"keypoints": joints[:, :2].astype(np.float32), "scores": joints[:, 2].astype(np.float32)}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([17, 18, 26]))
def test_known_joints_come_back(seed, count):
    rng = np.random.default_rng(seed)
    joints_px = rng.uniform([-50, -50, 0.4], [500, 400, 1], (count, 3))
    inside = joints_px.copy()
    inside[:, :2] = transform_px(input_from_image(BOX, SIZE)[0], joints_px[:, :2])
    (found,) = open_pose_network(always("input", SIZE, answers(inside)))(IMAGE, BOX)
    np.testing.assert_allclose(found, joints_px, atol=1e-3)


@pytest.mark.parametrize(
    ("spoiled", "expected"),
    [
        ([10, 20, 1.5], 1.0),
        ([10, 20, 0.3], 0.0),  # at the threshold, not above it
        ([10, 20, np.nan], 0.0),
        ([10, 20, np.inf], 0.0),
        ([np.nan, 20, 0.9], 0.0),
        ([10, np.inf, 0.9], 0.0),
    ],
)
def test_numbers_that_are_no_joint(spoiled, expected):
    (found,) = open_pose_network(always("input", SIZE, answers(np.array([spoiled] * 17))))(IMAGE, BOX)
    assert found[:, 2].tolist() == [expected] * 17
    assert found.any() == (expected > 0)
    assert np.isfinite(found).all()


def test_a_file_of_this_format(tmp_path: Path):
    path = write_always(tmp_path / "p.onnx", "input", SIZE, answers(np.array([[48, 64, 0.9]] * 17)))
    with open_session(path, device="cpu") as session:
        network = open_pose_network(session)
        assert (network.name, network.skeleton) == ("decoded", "coco17")
        found = network(IMAGE, np.concatenate([BOX, BOX]))
        assert network(IMAGE, BOX[:0]).shape == (0, 17, 3)
    np.testing.assert_allclose(found, np.broadcast_to([180, 160, 0.9], (2, 17, 3)), atol=1e-4)


OTHERS = {
    "joints differ": {"keypoints": (1, 17, 2), "scores": (1, 26)},
    "with confidence": {"keypoints": (1, 17, 3), "scores": (1, 17)},
    "joints unknown": {"keypoints": (1, "joints", 2), "scores": (1, "joints")},
    "flat": {"keypoints": (34,), "scores": (17,)},
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_refused(name):
    with pytest.raises(SessionError, match=r"not a pose network in a known format|cannot be used as a pose network"):
        open_pose_network(Canned({"input": (1, 3, 128, 96)}, OTHERS[name]))


def test_a_pose_network_that_answers_in_shares_of_its_input():
    shares = {"keypoints": np.full((17, 2), 0.5, np.float32), "scores": np.ones(17, np.float32)}
    session = always("input", (192, 256), shares)
    _, outcome = try_pose(session, {})
    assert (outcome.state, outcome.reason) == ("odd", "its joints are fractions of its input, not pixels")
