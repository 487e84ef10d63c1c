"""Joints that BlazePose's landmark network finds on drawn people: as the runtime takes them, or none."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from canned import write_blaze_detector, write_blaze_landmarks

from jotr_deploy.errors import BundleError
from jotr_deploy.runtime.finding import fetched_networks
from jotr_deploy.runtime.finding.blazepose.landmarks import BODY, POINTS, Poses
from jotr_deploy.third_party import blazepose_wheel
from jotr_deploy.training.found_joints import BlazeJoints, as_coco17, with_larger_head

BOX_PX = np.array([40.0, 20.0, 80.0, 120.0])


def poses(shift_px: float = 0.0, flag: float = 1.0) -> Poses:
    """Somebody whose joints lie on the diagonal of the box; the last of the body is unsure."""
    along = np.linspace(0, 1, BODY)[:, None]
    points = np.zeros((1, POINTS, 2))
    points[0, :BODY] = BOX_PX[:2] + (BOX_PX[2:] - BOX_PX[:2]) * along + shift_px
    points[0, BODY:] = [60, 70]
    points[0, BODY + 1, 1] -= 55
    confidence = np.ones((1, POINTS))
    confidence[0, 28] = 0.01
    return Poses(points, confidence, np.array([flag]))


def test_the_mean_of_two_passes() -> None:
    found = as_coco17(poses(), poses(4.0), BOX_PX)
    assert found.shape == (17, 3)
    hips = (
        BOX_PX[:2] + (BOX_PX[2:] - BOX_PX[:2]) * np.array([[23], [24]]) / (BODY - 1) + 2
    )  # half of the second's shift
    np.testing.assert_allclose(found[11:13, :2], hips, rtol=1e-5)
    np.testing.assert_array_equal(np.flatnonzero(found[:, 2] == 0), [16])  # the right ankle is landmark 28
    assert not found[16].any()


def test_a_head_becomes_larger_and_nothing_else_moves() -> None:
    joints = np.zeros((17, 2))
    joints[:5] = [0, 10], [3, 5], [-3, 5], [10, 0], [-10, 0]  # nose, eyes, ears
    joints[5:] = np.arange(24).reshape(12, 2)
    larger = with_larger_head(joints)
    np.testing.assert_allclose(larger[0], [0, 12])
    np.testing.assert_allclose(larger[1:3], [[3.9, 6.5], [-3.9, 6.5]])
    np.testing.assert_allclose(larger[3:5], [[12.4, -2.4], [-12.4, -2.4]])
    np.testing.assert_array_equal(larger[5:], joints[5:])


@pytest.mark.parametrize(
    ("first", "second", "box_px"),
    [
        (poses(), poses(40.0), BOX_PX),  # the passes differ
        (poses(), poses(flag=0.1), BOX_PX),  # nobody
        (poses(), poses(), BOX_PX + 60),  # somebody else
    ],
)
def test_nobody_is_found(first: Poses, second: Poses, box_px: np.ndarray) -> None:
    assert not as_coco17(first, second, box_px).any()


def test_every_process_opens_the_network_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with pytest.raises(BundleError, match="have not been fetched"):
        BlazeJoints()
    folder = fetched_networks.people_folder()
    folder.mkdir(parents=True)
    write_blaze_detector(folder / fetched_networks.DETECTOR)
    write_blaze_landmarks(folder / fetched_networks.LANDMARKS)
    blazepose_wheel._describe(folder, dict.fromkeys(blazepose_wheel.SOURCES, b""))
    finder, image = BlazeJoints(), np.zeros((128, 128, 3), np.uint8)
    found = finder(image, BOX_PX)
    assert found.shape == (17, 3)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(finder))(image, BOX_PX), found)
