"""Trial runs of detectors and pose networks on the picture inside this package, with known people, or on a user's.

The picture is a drawing: a network trained on photographs may find nobody there, which does not count against it. But
any boxes and joints that it does find must be on the people, or else its outputs are being misinterpreted.
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
"""Smallest IoU of a detected box with a known person's box for the person to count as found."""
FAR_SHARE = 0.2
"""Largest median joint error, as a fraction of the box height, for joints to count as the person's."""
EXCHANGED_SHARE = 0.5
"""Factor by which swapping left and right must reduce the joint error to conclude that they are swapped."""
PICTURE = "the picture inside this package"


@dataclass(frozen=True)
class Sample:
    """Picture inside this package, and the people in it."""

    image_bgr: Array  # (H, W, 3) uint8
    boxes_px: Array  # (N, 4), around the joints
    joints_px: Array  # (N, 30, 3) x, y, confidence


@dataclass(frozen=True)
class Outcome:
    """Result of running a network on the picture."""

    state: Literal["found", "nobody", "missed", "odd"]
    """"missed": not where the people are; "odd": values that the format cannot produce."""
    words: str
    """Readable result, beginning with a verb."""
    reason: str | None = None
    """Reason for "missed" and "odd"."""


class Heard(Session):
    """Session that keeps the outputs of its last call; the wrapped session is closed by its opener."""

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
    """Open the detector of a session, and check whether it finds the known people.

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
    """Compare a detector's boxes (N, 4) with those (M, 4) of the known people.

    `odd` is the reason that its outputs do not fit its format, if any.
    """
    if odd is not None:
        return _odd(odd)
    if not len(boxes_px):
        return Outcome("nobody", f"finds nobody in {PICTURE}, which is a drawing of {len(known_px)} people")
    best = iou(known_px, boxes_px).max(1)
    shares = " and ".join(f"{share:.2f}" for share in best)
    if best.max() < FOUND_IOU:
        reason = f"all its boxes miss the people of {PICTURE} (IoU {shares})"
        return Outcome("missed", f"finds {_boxes(len(boxes_px))}, but {reason}", reason)
    number = int((best >= FOUND_IOU).sum())
    return Outcome("found", f"finds {number} of the {len(known_px)} people in {PICTURE} (IoU {shares})")


def try_pose(session: Session, recipe: Mapping[str, Any]) -> tuple[PoseNetwork, Outcome]:
    """Open the pose network of a session, and compare its joints with the known ones.

    Raises:
        SessionError, BundleError: see `open_pose_network`.
    """
    heard, known = Heard(session), sample()
    network = open_pose_network(heard, recipe)
    joints_px = network(known.image_bgr, known.boxes_px)
    odd = odd_numbers(heard.heard) or network.oddity(heard.heard)
    return network, found_joints(joints_px, network.skeleton, known) if odd is None else _odd(odd)


def found_joints(joints_px: Array, skeleton: str, known: Sample) -> Outcome:
    """Compare joints (N, J, 3) found for the known people, in the order of a skeleton, with the true ones."""
    count, number = (joints_px[..., 2] > 0).sum(1).mean(), joints_px.shape[1]
    ours = to_smpl30(joints_px, skeleton)
    both = (ours[..., 2] > 0) & (known.joints_px[..., 2] > VALID_CONFIDENCE)
    both &= np.isin(SMPL30, SKELETONS[skeleton])
    if not both.any():
        return Outcome("nobody", f"finds no joints of the people in {PICTURE}, which is a drawing")
    off = _off(ours, known, both)
    words = f"finds {count:.1f} of {number} joints per person in {PICTURE}, off by {off:.1%} of the box height (median)"
    if off > FAR_SHARE:
        return Outcome("missed", f"{words}: too far; check the order of the joints and the decoding", words)
    exchanged = ours[:, mirrored_order(SMPL30)]
    both_exchanged = both & (exchanged[..., 2] > 0)
    if both_exchanged.any() and _off(exchanged, known, both_exchanged) < off * EXCHANGED_SHARE:
        return Outcome("missed", f"{words}: left and right appear to be swapped; check the order of the joints", words)
    return Outcome("found", words)


def _off(joints_px: Array, known: Sample, which: Array) -> float:
    """Median distance of joints (N, 30, 3) from the known ones, as a fraction of the box height."""
    heights_px = known.boxes_px[:, 3] - known.boxes_px[:, 1]
    shares = np.hypot(*np.moveaxis(joints_px[..., :2] - known.joints_px[..., :2], -1, 0)) / heights_px[:, None]
    return float(np.median(shares[which]))


def _odd(reason: str) -> Outcome:
    return Outcome("odd", f"gives values that do not fit its format: {reason}", reason)


@dataclass(frozen=True)
class Person:
    """Person found by the networks in a user's picture."""

    box_px: tuple[float, ...]  # x0 y0 x1 y1
    score: float
    joints: tuple[tuple[float, ...], ...] | None  # x, y, confidence; None without a pose network

    @property
    def line(self) -> str:
        """One-line readable description."""
        line = f"box {' '.join(f'{side:.0f}' for side in self.box_px)} px, score {self.score:.2f}"
        if self.joints is None:
            return line
        sure = [confidence for *_, confidence in self.joints if confidence > 0]
        mean = f", mean confidence {sum(sure) / len(sure):.2f}" if sure else ""
        return f"{line}, {len(sure)} of {len(self.joints)} joints{mean}"


@dataclass(frozen=True)
class Seen:
    """People found by a detector and a pose network in a user's picture."""

    boxes_px: Array  # (N, 4)
    scores: Array  # (N,)
    joints_px: Array | None  # (N, J, 3); None without a pose network
    skeleton: str | None

    @property
    def people(self) -> tuple[Person, ...]:
        """The people as separate objects."""
        joints = [None] * len(self.boxes_px) if self.joints_px is None else self.joints_px.tolist()
        return tuple(
            Person(tuple(box), float(score), None if points is None else tuple(map(tuple, points)))
            for box, score, points in zip(self.boxes_px.tolist(), self.scores, joints, strict=True)
        )


def look(image_bgr: Array, networks: PeopleNetworks) -> Seen:
    """Find the people in a picture (H, W, 3) uint8; without a detector the whole picture is one person.

    Raises:
        BundleError: see `found_by`.
    """
    detector, pose = networks.detector, networks.pose
    if isinstance(detector, BlazePoseDetector):
        people, boxes_px = found_by(networks, crop_factor=1.0).find(image_bgr)  # crop boxes are not used
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
    """Picture with the found people drawn into it, (H, W, 3) uint8."""
    joints_px = None
    if seen.joints_px is not None and seen.skeleton is not None:
        joints_px = to_smpl30(seen.joints_px, seen.skeleton)
    return draw_found(image_bgr, seen.boxes_px, seen.scores, joints_px)


def _boxes(count: int) -> str:
    return f"{count} box{'' if count == 1 else 'es'}"
