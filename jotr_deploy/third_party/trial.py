"""Detectors and pose networks tried on the picture inside this package, whose people are known, or on a user's own.

The picture is drawn: a network that was trained on photographs may find nobody there, and that alone says nothing
against it. Boxes and joints that it does find are where people are, or the network is not read as it wants to be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from jotr_deploy.geometry.boxes import iou
from jotr_deploy.geometry.crop import VALID_CONFIDENCE, box_from_joints
from jotr_deploy.profiling.timed_picture import default_scene
from jotr_deploy.runtime.finding.detection import Detector, open_detector
from jotr_deploy.runtime.finding.detection.blazepose import BlazePoseDetector
from jotr_deploy.runtime.finding.detection.implausible import odd_numbers
from jotr_deploy.runtime.finding.detection.one_stage import OneStage
from jotr_deploy.runtime.finding.people_networks import PeopleNetworks
from jotr_deploy.runtime.finding.people_source import found_by
from jotr_deploy.runtime.finding.pose import PoseNetwork, open_pose_network
from jotr_deploy.runtime.joint_files.keypoint_file import read_keypoints
from jotr_deploy.runtime.sessions import Session
from jotr_deploy.runtime.sources.images import read_image
from jotr_deploy.skeletons import SKELETONS, SMPL30, mirrored_order, to_smpl30
from jotr_deploy.support.aliases import Array
from jotr_deploy.visual.found_people import draw_found

FOUND_IOU = 0.5
"""Of a known person's box and a box that is found, for the person to count as found."""
FAR_SHARE = 0.2
"""Of the height of a person's box: joints that are off by more, in the median, are not where the person's are."""
EXCHANGED_SHARE = 0.5
"""Of the distance of the joints: if it is less with left and right exchanged, they are."""
PICTURE = "the picture inside this package"


@dataclass(frozen=True)
class Sample:
    """The picture inside this package and who is in it."""

    image_bgr: Array  # (H, W, 3) uint8
    boxes_px: Array  # (N, 4), about the joints
    joints_px: Array  # (N, 30, 3) x, y, confidence


@dataclass(frozen=True)
class Outcome:
    """What a network shows in the picture."""

    state: Literal["found", "nobody", "missed", "odd"]
    """"missed": not where the people are; "odd": numbers that the format does not have."""
    words: str
    """What it finds, beginning with a verb."""
    reason: str | None = None
    """What is wrong, of "missed" and "odd"."""


class Heard(Session):
    """A session that keeps the outputs of its last call; who opened the one below closes it."""

    def __init__(self, session: Session) -> None:
        self.path, self.inputs, self.outputs = session.path, session.inputs, session.outputs
        self.metadata, self._session = session.metadata, session
        self.heard: dict[str, Array] = {}

    def _run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        self.heard = self._session(feeds)
        return dict(self.heard)


def sample() -> Sample:
    """Read the picture and its keypoint file."""
    with default_scene() as (picture, keypoints):
        image_bgr = read_image(picture)
        joints_px = read_keypoints(keypoints).for_image(picture.name).keypoints_px
    return Sample(image_bgr, box_from_joints(joints_px, joints_px[..., 2] > VALID_CONFIDENCE), joints_px)


def try_detector(session: Session, recipe: Mapping[str, Any]) -> tuple[Detector, Outcome]:
    """The detector of a session, and what it finds of the known people.

    Raises:
        SessionError, BundleError: see `open_detector`.
    """
    heard, known = Heard(session), sample()
    detector = open_detector(heard, recipe)
    if isinstance(detector, OneStage):
        boxes_px, _, joints_px = detector.people(known.image_bgr)
    else:
        boxes_px, joints_px = detector(known.image_bgr)[0], None
    odd = odd_numbers(heard.heard) or detector.oddity(heard.heard)
    outcome = found_people(boxes_px, known.boxes_px, odd)
    if outcome.state != "found" or joints_px is None or not isinstance(detector, OneStage):
        return detector, outcome
    shared = iou(known.boxes_px, boxes_px)
    there = shared.max(1) >= FOUND_IOU
    them = Sample(known.image_bgr, known.boxes_px[there], known.joints_px[there])
    joints = found_joints(joints_px[shared[there].argmax(1)], detector.skeleton, them)
    return detector, replace(outcome, words=f"{outcome.words}; {joints.words}")


def found_people(boxes_px: Array, known_px: Array, odd: str | None = None) -> Outcome:
    """Boxes (N, 4) that a detector gives, against those (M, 4) of the people who are there.

    `odd` is what the numbers of its answer say against its format, if anything.
    """
    if odd is not None:
        return _odd(odd)
    if not len(boxes_px):
        return Outcome("nobody", f"finds nobody in {PICTURE}, which is drawn and shows {len(known_px)} people")
    best = iou(known_px, boxes_px).max(1)
    shares = " and ".join(f"{share:.2f}" for share in best)
    if best.max() < FOUND_IOU:
        reason = f"all its boxes miss the people of {PICTURE} (IoU {shares})"
        return Outcome("missed", f"finds {_boxes(len(boxes_px))}, but {reason}", reason)
    number = int((best >= FOUND_IOU).sum())
    return Outcome("found", f"finds {number} of the {len(known_px)} people in {PICTURE} (IoU {shares})")


def try_pose(session: Session, recipe: Mapping[str, Any]) -> tuple[PoseNetwork, Outcome]:
    """The pose network of a session, and how far the joints that it finds are from the known ones.

    Raises:
        SessionError, BundleError: see `open_pose_network`.
    """
    heard, known = Heard(session), sample()
    network = open_pose_network(heard, recipe)
    joints_px = network(known.image_bgr, known.boxes_px)
    odd = odd_numbers(heard.heard) or network.oddity(heard.heard)
    return network, found_joints(joints_px, network.skeleton, known) if odd is None else _odd(odd)


def found_joints(joints_px: Array, skeleton: str, known: Sample) -> Outcome:
    """Joints (N, J, 3) of the known people in the order of a skeleton, against those that are there."""
    count, number = (joints_px[..., 2] > 0).sum(1).mean(), joints_px.shape[1]
    ours = to_smpl30(joints_px, skeleton)
    both = (ours[..., 2] > 0) & (known.joints_px[..., 2] > VALID_CONFIDENCE)
    both &= np.isin(SMPL30, SKELETONS[skeleton])
    if not both.any():
        return Outcome("nobody", f"finds no joints of the people in {PICTURE}, which is drawn")
    off = _off(ours, known, both)
    words = f"finds {count:.1f} of {number} joints of a person in {PICTURE}, off by {off:.1%} of the box (median)"
    if off > FAR_SHARE:
        return Outcome("missed", f"{words}: too far; check the order of the joints and the decoding", words)
    exchanged = ours[:, mirrored_order(SMPL30)]
    both_exchanged = both & (exchanged[..., 2] > 0)
    if both_exchanged.any() and _off(exchanged, known, both_exchanged) < off * EXCHANGED_SHARE:
        return Outcome("missed", f"{words}: left and right look exchanged; check the order of the joints", words)
    return Outcome("found", words)


def _off(joints_px: Array, known: Sample, which: Array) -> float:
    """Median distance of joints (N, 30, 3) from the known ones, in heights of the person's box."""
    heights_px = known.boxes_px[:, 3] - known.boxes_px[:, 1]
    shares = np.hypot(*np.moveaxis(joints_px[..., :2] - known.joints_px[..., :2], -1, 0)) / heights_px[:, None]
    return float(np.median(shares[which]))


def _odd(reason: str) -> Outcome:
    return Outcome("odd", f"gives numbers that are not those of its format: {reason}", reason)


@dataclass(frozen=True)
class Person:
    """Somebody whom the networks find in a picture of the user's."""

    box_px: tuple[float, ...]  # x0 y0 x1 y1
    score: float
    joints: tuple[tuple[float, ...], ...] | None  # x, y, confidence; without a pose network None

    @property
    def line(self) -> str:
        """In words."""
        line = f"box {' '.join(f'{side:.0f}' for side in self.box_px)} px, score {self.score:.2f}"
        if self.joints is None:
            return line
        sure = [confidence for *_, confidence in self.joints if confidence > 0]
        mean = f", mean confidence {sum(sure) / len(sure):.2f}" if sure else ""
        return f"{line}, {len(sure)} of {len(self.joints)} joints{mean}"


@dataclass(frozen=True)
class Seen:
    """The people that a detector and a pose network find in a picture of the user's."""

    boxes_px: Array  # (N, 4)
    scores: Array  # (N,)
    joints_px: Array | None  # (N, J, 3), without a pose network None
    skeleton: str | None

    @property
    def people(self) -> tuple[Person, ...]:
        """One by one."""
        joints = [None] * len(self.boxes_px) if self.joints_px is None else self.joints_px.tolist()
        return tuple(
            Person(tuple(box), float(score), None if points is None else tuple(map(tuple, points)))
            for box, score, points in zip(self.boxes_px.tolist(), self.scores, joints, strict=True)
        )


def look(image_bgr: Array, networks: PeopleNetworks) -> Seen:
    """Who is in a picture (H, W, 3) uint8; without a detector its whole is one person.

    Raises:
        BundleError: see `found_by`.
    """
    detector, pose = networks.detector, networks.pose
    if isinstance(detector, BlazePoseDetector):
        people, boxes_px = found_by(networks, crop_factor=1.0).find(image_bgr)  # crop boxes are not looked at
        return Seen(boxes_px, people.scores, people.keypoints_px, "smpl30")
    if detector is None:
        height, width = image_bgr.shape[:2]
        boxes_px, scores = np.array([[-0.5, -0.5, width - 0.5, height - 0.5]], np.float32), np.ones(1, np.float32)
    elif pose is None and isinstance(detector, OneStage):
        return Seen(*detector.people(image_bgr), detector.skeleton)
    else:
        boxes_px, scores = detector(image_bgr)
    if pose is None:
        return Seen(boxes_px, scores, None, None)
    return Seen(boxes_px, scores, pose(image_bgr, boxes_px), pose.skeleton)


def drawn(image_bgr: Array, seen: Seen) -> Array:
    """The picture with the people that were found in it, (H, W, 3) uint8."""
    joints_px = None
    if seen.joints_px is not None and seen.skeleton is not None:
        joints_px = to_smpl30(seen.joints_px, seen.skeleton)
    return draw_found(image_bgr, seen.boxes_px, seen.scores, joints_px)


def _boxes(count: int) -> str:
    return f"{count} box{'' if count == 1 else 'es'}"
