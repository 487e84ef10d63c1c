"""Sources of the people in a frame: joints or boxes from a file, a detector, OpenCV's HOG, or the whole frame."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np

from jotr_deploy.errors import BundleError, KeypointFileError, MissingDependency
from jotr_deploy.geometry.crop import VALID_CONFIDENCE
from jotr_deploy.geometry.orientation import TURNED
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.finding.box_selection import distinct_poses, whole_people
from jotr_deploy.runtime.finding.crop_boxes import with_crop_boxes, with_joint_boxes, with_joints
from jotr_deploy.runtime.finding.people_networks import PeopleNetworks
from jotr_deploy.runtime.sources.frame_source import FrameSource
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.spans import NO_FRAME, Spans

if TYPE_CHECKING:  # each is imported where people are found that way, as together they take long
    from jotr_deploy.runtime.finding.blazepose.source import BlazePosePeople
    from jotr_deploy.runtime.finding.detection.base import FindsPeople
    from jotr_deploy.runtime.finding.pose import PoseNetwork
    from jotr_deploy.runtime.joint_files.box_file import BoxFile
    from jotr_deploy.runtime.joint_files.coordinates import JointsIn
    from jotr_deploy.runtime.joint_files.image_index import Belonging
    from jotr_deploy.runtime.joint_files.keypoint_file import KeypointFile
    from jotr_deploy.runtime.joint_files.usage import FileUse

PeopleBy = Literal["auto", "blazepose", "detector", "hog", "frame"]
"""Method of finding people when neither joints nor boxes are given; "auto" is the first of the others available.

"blazepose" means the fetched networks, unless the bundle has its own; see `people_networks.networks_by`."""

Lens = Callable[[Detections, tuple[int, int]], Detections]
"""Mapping of people from a file (in the original image, whose width and height are given) to the undistorted image."""

LEAST_PX = 2
"""Smallest size of a person; anything smaller covers no pixels."""

FEW_JOINTS = 5
"""Below this number of joints (of the 30-joint set) a person's mesh is inferred from the image alone."""

ONLY_BOTH = "BlazePose's detector only works together with its own landmark network"
PUT_BOTH_IN = "add both: jotr-deploy add BUNDLE --people blazepose"

_NO_BOX = f"with too few joints above confidence {VALID_CONFIDENCE:g} for a box"
_OUTSIDE = "outside the picture"
_TINY = f"smaller than {LEAST_PX} px"


class PeopleSource(Protocol):
    """Interface that finds the people in a frame, with their square crop boxes and, if known, their joints."""

    def __call__(self, image_bgr: Array, name: str, frame: int) -> Detections:
        """People in one frame.

        Args:
            image_bgr: (H, W, 3) uint8.
            name: name of the frame, see `Frame`.
            frame: 0-based position in the source.
        """
        ...


@dataclass
class KeypointPeople:
    """People whose joints come from a file.

    People with no joint in the image, with too few for a box, or smaller than two pixels are dropped and counted.
    """

    file: KeypointFile
    source: FrameSource | None
    crop_factor: float = field(kw_only=True)
    lens: Lens | None = field(default=None, init=False)
    belonging: Belonging = field(init=False)
    use: FileUse = field(init=False)

    def __post_init__(self) -> None:
        from jotr_deploy.runtime.joint_files.keypoint_file import lie_down

        self.belonging, self.use = _opened(self.file, self.source)
        turned: dict[int, float] = {}
        for frame, rows in (self.belonging.known or {}).items():
            if (orientation := _orientation(self.source, frame)) != 1:
                keypoints_px = self.file.people[rows].keypoints_px
                turned[orientation] = turned.get(orientation, 0.0) + lie_down(keypoints_px, orientation)
        self.file.coordinates.lie_down = lambda orientation: turned.get(orientation, 0.0) > 0

    @property
    def dropped(self) -> int:
        """Number of people left out so far."""
        return sum(self.use.left_out.values()) - sum(self.file.left_out.values())

    def __call__(self, image_bgr: Array, name: str, frame: int) -> Detections:
        """People of one frame, from the file."""
        height, width = image_bgr.shape[:2]
        rows = self.belonging.rows(name, frame)
        self.use.picture(rows is not None)
        people = self.file.in_picture(rows or [], (width, height), _orientation(self.source, frame), name)
        people = people if self.lens is None else self.lens(people, (width, height))
        if self.file.has_boxes:
            self.use.entries_used += len(people)
            return people
        valid: Array = people.keypoints_px[..., 2] > VALID_CONFIDENCE
        why = [
            _unusable(joints[use, :2], (width, height)) for joints, use in zip(people.keypoints_px, valid, strict=True)
        ]
        self.use.leave_out([reason for reason in why if reason], name)
        framed = with_joint_boxes(
            people[[at for at, reason in enumerate(why) if not reason]], (width, height), self.crop_factor
        )
        seen = framed.keypoints_px[..., 2] > VALID_CONFIDENCE
        far = _far_beyond(framed.keypoints_px[..., :2], (width, height)) & seen
        self.use.people_beyond += int((4 * far.sum(1) > seen.sum(1)).sum())
        lost = sum(reason is None for reason in why) - len(framed)
        self.use.leave_out([_NO_BOX] * lost, name)
        self.use.entries_used += len(framed)
        return framed


@dataclass
class BoxPeople:
    """People whose boxes come from a file; without a pose network their joints stay unknown."""

    file: BoxFile
    source: FrameSource | None
    pose: PoseNetwork | None = None
    spans: Spans | None = None  # receives the stage "pose"
    crop_factor: float = field(kw_only=True)
    lens: Lens | None = field(default=None, init=False)
    belonging: Belonging = field(init=False)
    use: FileUse = field(init=False)

    def __post_init__(self) -> None:
        self.belonging, self.use = _opened(self.file, self.source)
        boxes_px = [self.file.people[rows].boxes_px for frame, rows in (self.belonging.known or {}).items()
                    if _orientation(self.source, frame) in TURNED]  # fmt: skip
        sides = np.concatenate([np.zeros((0, 4)), *boxes_px])
        wide = (sides[:, 2] - sides[:, 0] > sides[:, 3] - sides[:, 1]).mean() > 0.5 if len(sides) else False
        self.file.coordinates.lie_down = lambda orientation: orientation in TURNED and bool(wide)

    def __call__(self, image_bgr: Array, name: str, frame: int) -> Detections:
        """People of one frame, from the file."""
        height, width = image_bgr.shape[:2]
        rows = self.belonging.rows(name, frame)
        self.use.picture(rows is not None)
        people = self.file.in_picture(rows or [], (width, height), _orientation(self.source, frame), name)
        sides = people.boxes_px[:, 2:] - people.boxes_px[:, :2]
        outside = (people.boxes_px[:, 2:] <= 0).any(1) | (people.boxes_px[:, :2] >= (width, height)).any(1)
        tiny = (sides.max(1, initial=0) < LEAST_PX) & ~outside
        self.use.leave_out([_OUTSIDE] * int(outside.sum()) + [_TINY] * int(tiny.sum()), name)
        people = people[np.flatnonzero(~(outside | tiny))]
        corners_px = people.boxes_px.reshape(-1, 2, 2)
        self.use.people_beyond += int(_far_beyond(corners_px, (width, height)).any(1).sum())
        people = people if self.lens is None else self.lens(people, (width, height))
        self.use.entries_used += len(people)
        with (self.spans or Spans())("pose", frame) if self.pose else nullcontext():
            return with_crop_boxes(image_bgr, people, self.pose, self.crop_factor)


def _orientation(source: FrameSource | None, frame: int) -> int:
    return 1 if source is None else source.orientation_of(frame)


def _opened(file: KeypointFile | BoxFile, source: FrameSource | None) -> tuple[Belonging, FileUse]:
    from jotr_deploy.runtime.joint_files.image_index import Belonging
    from jotr_deploy.runtime.joint_files.usage import FileUse

    count = len(file.people) + sum(file.left_out.values())
    use = FileUse(file.index.path, count, dict(file.left_out))
    if source is None:
        return Belonging(file.index), use
    if file.coordinates.joints_in == "unrotated" and not any(
        source.orientation_of(frame) != 1 for frame in range(1 if source.total is None else source.total)
    ):
        logging.getLogger("jotr_deploy").warning(
            "'%s': no image has an EXIF rotation, so --joints-in unrotated has no effect", source.name
        )
    return file.index.match(source), use


def _far_beyond(places_px: Array, size_px: tuple[int, int]) -> Array:
    """Mask of points (..., 2) that lie outside the image by more than a tenth of its side."""
    size = np.array(size_px)
    return np.asarray(((places_px < -0.1 * size) | (places_px > 1.1 * size)).any(-1))


def _unusable(places_px: Array, size_px: tuple[int, int]) -> str | None:
    """Reason that these joints (J, 2) do not make a person; None if they do."""
    if len(places_px) < 2:
        return _NO_BOX
    if not ((places_px >= 0) & (places_px <= np.array(size_px) - 1)).all(1).any():
        return _OUTSIDE
    return _TINY if np.ptp(places_px, axis=0).max() < LEAST_PX else None


def file_use(people_source: PeopleSource) -> FileUse | None:
    """Usage counts of a keypoint or box file; None if people are found in another way."""
    inner: object = people_source
    while inner is not None and not isinstance(inner, (KeypointPeople, BoxPeople)):
        inner = getattr(inner, "people_source", None)  # unwrap WithinRegion and MostPeople
    return None if inner is None else inner.use


@dataclass(frozen=True)
class DetectedPeople:
    """People from a detector with joints from a pose network, which also weed out duplicates and false detections.

    Without a pose network the joints come from the detector if it finds joints too, and otherwise stay unknown.
    """

    detector: FindsPeople
    pose: PoseNetwork | None = None
    spans: Spans | None = None  # receives the stages "detect" and "pose"
    crop_factor: float = field(kw_only=True)

    def __call__(self, image_bgr: Array, name: str, frame: int) -> Detections:
        """People of one frame, from the detector."""
        return self.find(image_bgr, frame)[0]

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the recorded spans, in order."""
        return ("detect",) if self.pose is None else ("detect", "pose")

    def find(self, image_bgr: Array, frame: int = NO_FRAME) -> tuple[Detections, Array]:
        """People in an image (H, W, 3) uint8, and the box (N, 4) of each as the detector returned it."""
        from jotr_deploy.runtime.finding.detection.one_stage import OneStage

        span = self.spans or Spans()
        if self.pose is None and isinstance(self.detector, OneStage):
            with span("detect", frame):
                boxes_px, scores, joints = self.detector.people(image_bgr)
            people = Detections.from_boxes(boxes_px, scores)
            size_px = (image_bgr.shape[1], image_bgr.shape[0])
            people = with_joints(people, joints, self.detector.skeleton, size_px, self.crop_factor)
        else:
            with span("detect", frame):
                boxes_px, scores = self.detector(image_bgr)
            people = Detections.from_boxes(boxes_px, scores)
            if self.pose is None:
                return with_crop_boxes(image_bgr, people, None, self.crop_factor), boxes_px
            with span("pose", frame):
                joints = self.pose(image_bgr, boxes_px)
            size_px = (image_bgr.shape[1], image_bgr.shape[0])
            people = with_joints(people, joints, self.pose.skeleton, size_px, self.crop_factor)
            kept = self._somebody(people.keypoints_px, boxes_px, scores**self.pose.score_power * joints[..., 2].mean(1))
            return people[kept], boxes_px[kept]
        kept = distinct_poses(people.keypoints_px, boxes_px)
        return people[kept], boxes_px[kept]

    def _somebody(self, keypoints_px: Array, boxes_px: Array, strength: Array) -> Array:
        """Indices of the people to keep, in order: strong enough, not a part of somebody else, and no duplicates."""
        assert self.pose is not None
        kept = np.argsort(-strength, kind="stable")
        kept = kept[strength[kept] >= self.pose.least_score]
        if self.pose.most_explained < 1:
            kept = kept[whole_people(keypoints_px[kept], boxes_px[kept], strength[kept], self.pose.most_explained)]
        return np.sort(kept[distinct_poses(keypoints_px[kept], boxes_px[kept])])


Finder: TypeAlias = "DetectedPeople | BlazePosePeople"
"""People sources that use a detector; both have `find` and `stages`."""


def found_by(
    networks: PeopleNetworks,
    film: bool = False,
    spans: Spans | None = None,
    *,
    crop_factor: float,
    block: int | None = None,
) -> Finder:
    """People source for a detector, with or without a pose network.

    Args:
        networks: the detector and, if any, the pose network.
        film: whether the images are the frames of one video, in order.
        spans: receives the stages.
        crop_factor: `ModelConfig.crop_factor` of the mesh network.
        block: of the video, see `FrameSource.block`.

    Raises:
        BundleError: BlazePose's detector without its landmark network.
    """
    from jotr_deploy.runtime.finding.blazepose.source import BlazePose, BlazePosePeople
    from jotr_deploy.runtime.finding.detection.blazepose import BlazePoseDetector
    from jotr_deploy.runtime.finding.pose.blazepose import BlazePoseLandmarks

    detector, pose = networks.detector, networks.pose
    assert detector is not None, "a detector"
    if not isinstance(detector, BlazePoseDetector):
        return DetectedPeople(detector, pose, spans, crop_factor=crop_factor)
    if not isinstance(pose, BlazePoseLandmarks):
        raise BundleError(f"{detector.session.path}: {ONLY_BOTH}", PUT_BOTH_IN)
    return BlazePosePeople(BlazePose(detector.network, pose.network), film, spans, crop_factor=crop_factor, block=block)


@dataclass(frozen=True)
class WholeFrame:
    """One person per frame, filling it; without a pose network the joints stay unknown."""

    pose: PoseNetwork | None = None
    spans: Spans | None = None  # receives the stage "pose"
    crop_factor: float = field(kw_only=True)

    def __call__(self, image_bgr: Array, name: str, frame: int) -> Detections:
        """One person filling the frame."""
        height, width = image_bgr.shape[:2]
        with (self.spans or Spans())("pose", frame) if self.pose else nullcontext():
            whole = Detections.from_boxes(np.array([[0, 0, width, height]]))
            return with_crop_boxes(image_bgr, whole, self.pose, self.crop_factor)


@dataclass
class OrWholePicture:
    """People in still images, falling back to the whole image as one person; warns the first time it does so."""

    found: PeopleSource
    whole: WholeFrame
    warned: bool = field(default=False, init=False)

    def __call__(self, image_bgr: Array, name: str, frame: int) -> Detections:
        """People of one frame; of a frame with none, the whole frame."""
        people = self.found(image_bgr, name, frame)
        if len(people):
            return people
        if not self.warned:
            logging.getLogger("jotr_deploy").warning(
                "nobody was found in '%s'; each image without a detection is treated as one person filling it", name
            )
        self.warned = True
        return self.whole(image_bgr, name, frame)


def open_people_source(
    source: FrameSource | None,
    keypoints: Path | None = None,
    boxes: Path | None = None,
    skeleton: str | None = None,
    networks: PeopleNetworks = PeopleNetworks(),  # noqa: B008
    people: PeopleBy = "auto",
    spans: Spans | None = None,
    joints_in: JointsIn = "auto",
    *,
    crop_factor: float,
) -> PeopleSource:
    """Open the people source for the user's keypoints or boxes, or else for the method in `people`.

    If `source` is None, the images are stills.

    Boxes, OpenCV's HOG and the whole frame get joints from the pose network, if there is one. "auto" uses the detector,
    or HOG with a warning if there is none; a still image in which HOG finds nobody becomes one person filling it, while
    a frame of a video or stream then has nobody. If OpenCV has no HOG, every frame is one person. `spans` receives the
    stages of detector and pose network. `joints_in` is the coordinate convention of the file, see
    `coordinates.JointsIn`. `crop_factor` is the `ModelConfig.crop_factor` of the mesh network, as for every class in
    this file.

    Raises:
        KeypointFileError: more than one method is given, a file cannot be read, or it does not match the source.
        BundleError: a detector is requested and there is none.
        MissingDependency: HOG is requested, which this OpenCV lacks.
    """
    require_one_way(people, keypoints, boxes)
    if keypoints is not None:
        from jotr_deploy.runtime.joint_files.keypoint_file import read_keypoints

        return KeypointPeople(read_keypoints(keypoints, skeleton, joints_in), source, crop_factor=crop_factor)
    if boxes is not None:
        from jotr_deploy.runtime.joint_files.box_file import read_boxes

        return BoxPeople(read_boxes(boxes, joints_in), source, networks.pose, spans, crop_factor=crop_factor)
    return _found_in(source, networks, people, spans, crop_factor)


def require_one_way(people: PeopleBy, keypoints: Path | None, boxes: Path | None) -> None:
    """Refuse more than one method of specifying the people.

    Raises:
        KeypointFileError: more than one method is given.
    """
    if keypoints is not None and boxes is not None:
        raise KeypointFileError("both keypoints and boxes are given", "give one: keypoints define their own boxes")
    given = "keypoints" if keypoints is not None else "boxes" if boxes is not None else None
    if people != "auto" and given is not None:
        raise KeypointFileError(f"people by {people!r} and {given} are given", "give one: the file lists the people")


def _found_in(
    source: FrameSource | None, networks: PeopleNetworks, people: PeopleBy, spans: Spans | None, crop_factor: float
) -> PeopleSource:
    if people == "detector" and networks.detector is None:
        raise BundleError(
            "people are to be found by a detector, but the bundle has none",
            "add one: jotr-deploy add BUNDLE --detector FILE",
        )
    if people in ("auto", "blazepose", "detector") and networks.detector is not None:
        film, block = (False, None) if source is None else (source.moving, source.block)
        return found_by(networks, film, spans, crop_factor=crop_factor, block=block)
    whole = WholeFrame(networks.pose, spans, crop_factor=crop_factor)
    if people == "frame":
        return whole
    from jotr_deploy.runtime.finding.detection.hog import HogDetector

    try:
        found = DetectedPeople(HogDetector(), networks.pose, spans, crop_factor=crop_factor)
    except MissingDependency as error:
        if people == "hog":
            raise
        _say_fallback(f"every frame is treated as one person, because {error.cause}")
        return whole
    if people == "hog":
        return found
    _say_fallback(
        "people are found by OpenCV's HOG, which is for demonstrations and only finds upright, fully visible people"
    )
    still = source is None or source.kind in ("image", "images")
    return OrWholePicture(found, whole) if still else found


def _say_fallback(what: str) -> None:
    logging.getLogger("jotr_deploy").warning(
        "no keypoints, no boxes, no detector: %s; add a detector with jotr-deploy add BUNDLE --detector FILE", what
    )
