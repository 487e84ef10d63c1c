"""The fetched networks, where they are, against joints that their own package finds in the picture inside this one.

The film is the picture moved a little from frame to frame, which is how the numbers in `package_joints.json` were made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from jotr_deploy.runtime.finding import fetched_networks
from jotr_deploy.runtime.finding.blazepose.landmarks import BODY, BlazeLandmarks
from jotr_deploy.runtime.finding.blazepose.person_detector import BlazeDetector
from jotr_deploy.runtime.finding.blazepose.source import BlazePose, BlazePosePeople
from jotr_deploy.runtime.finding.blazepose.windows import whole
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.skeletons import SKELETONS, SMPL30
from jotr_deploy.support.aliases import Array
from jotr_deploy.third_party.trial import sample

REAL = fetched_networks.people_folder()
PACKAGE = json.loads((Path(__file__).parent / "package_joints.json").read_text())
NAMES = [name for name in SMPL30 if name in SKELETONS["blazepose33"]]
IN_SMPL30 = [SMPL30.index(name) for name in NAMES]
IN_PACKAGE = [SKELETONS["blazepose33"].index(name) for name in NAMES]
MOST_PERCENT = 0.5
"""Of the side of the crop, in the median."""
SAME_CROP_PERCENT = 0.1
"""Where both look at the same crop."""

pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason="BlazePose is not fetched: jotr-deploy fetch people")


@pytest.fixture(scope="module")
def networks() -> Iterator[BlazePose]:
    with (
        open_session(REAL / "detector.onnx", device="cpu") as detector,
        open_session(REAL / "landmarks.onnx", device="cpu") as landmarks,
    ):
        yield BlazePose(BlazeDetector(detector), BlazeLandmarks(landmarks))


@pytest.fixture(scope="module")
def image() -> Array:
    return sample().image_bgr


def percent_apart(finder: BlazePosePeople, image: Array, frame: int, package: Any) -> float:
    """Median distance of the one person's joints from the package's, in % of the side of the crop."""
    people = finder(image, "scene", frame)
    assert len(people) == 1
    apart_px = people.keypoints_px[0, IN_SMPL30, :2] - np.array(package)[IN_PACKAGE]
    side_px = people.boxes_px[0, 2] - people.boxes_px[0, 0]
    return float(100 * np.median(np.linalg.norm(apart_px, axis=-1)) / side_px)


def test_one_look_at_the_whole_picture_is_the_packages(networks: BlazePose, image: Array) -> None:
    found = networks.detector(image, [whole(image.shape[1::-1])])
    poses = networks.landmarks(image, found.rois_px[:1])
    apart_px = np.linalg.norm(poses.points_px[0, :BODY] - np.array(PACKAGE["still"]), axis=-1)
    side_px = 2.5 * np.linalg.norm(found.rois_px[0, 1] - found.rois_px[0, 0])
    assert 100 * np.median(apart_px) / side_px < SAME_CROP_PERCENT


def test_a_still_has_the_packages_joints(networks: BlazePose, image: Array) -> None:
    assert percent_apart(BlazePosePeople(networks, crop_factor=1.1), image, 0, PACKAGE["still"]) < MOST_PERCENT


def test_a_film_has_the_packages_joints_in_every_frame(networks: BlazePose, image: Array) -> None:
    finder, size_px = BlazePosePeople(networks, film=True, crop_factor=1.1), image.shape[1::-1]
    for frame, package in enumerate(PACKAGE["film"]):
        moved = np.array([[1.0, 0, -8 * frame], [0, 1, 4 * frame]])
        picture = cv2.warpAffine(image, moved, size_px, borderMode=cv2.BORDER_REPLICATE)
        assert percent_apart(finder, picture, frame, package) < MOST_PERCENT


def test_people_in_one_call_are_those_one_by_one(networks: BlazePose, image: Array) -> None:
    rois = networks.detector(image, [whole(image.shape[1::-1])]).rois_px[:1]
    rois = np.concatenate([rois, rois + 30, rois - 40])
    together = networks.landmarks(image, rois)
    for one in range(len(rois)):
        alone = networks.landmarks(image, rois[one : one + 1])
        np.testing.assert_array_equal(alone.points_px[0], together.points_px[one])
        np.testing.assert_array_equal(alone.flags[0], together.flags[one])
