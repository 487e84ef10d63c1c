"""People by BlazePose: found in windows of the picture."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jotr_deploy.runtime.blazepose import selection
from jotr_deploy.runtime.blazepose.crops import radii_px
from jotr_deploy.runtime.blazepose.detector import BlazeDetector
from jotr_deploy.runtime.blazepose.landmarks import BlazeLandmarks, Poses
from jotr_deploy.runtime.blazepose.windows import Window, windows
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.people_source import with_joints
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.spans import Spans

Array = NDArray[Any]

SKELETON = "blazepose33"


@dataclass(frozen=True)
class BlazePose:
    """Both networks, opened; any number of people sources share them."""

    detector: BlazeDetector
    landmarks: BlazeLandmarks


@contextmanager
def open_blazepose(
    detector: Path, landmarks: Path, device: str = "auto", threads: int | None = None
) -> Iterator[BlazePose]:
    """Both networks from their files; the sessions end with the block.

    Raises:
        SessionError: a file that no engine on this machine opens.
    """
    with ExitStack() as stack:
        found, joints = (
            stack.enter_context(open_session(path, device=device, threads=threads)) for path in (detector, landmarks)
        )
        yield BlazePose(BlazeDetector(found), BlazeLandmarks(joints))


@dataclass
class BlazePosePeople:
    """Finds the people of a picture."""

    networks: BlazePose
    spans: Spans | None = None  # told of the stages "detect" and "pose"

    def __call__(self, image_bgr: Array, name: str, frame: int) -> Detections:
        """See `PeopleSource`."""
        size_px = (image_bgr.shape[1], image_bgr.shape[0])
        return as_detections(*self._look(image_bgr, frame, windows(size_px)), size_px)

    def _look(self, image_bgr: Array, frame: int, where: list[Window]) -> tuple[Poses, Array]:
        """The people found in some windows, and the score of each."""
        span = self.spans or Spans()
        with span("detect", frame):
            found = self.networks.detector(image_bgr, where)
        with span("pose", frame):
            found = found[radii_px(found.rois_px) > 1]
            found = found[selection.distinct_rois(found.rois_px)]
            first = self.networks.landmarks(image_bgr, found.rois_px)
            again = np.flatnonzero(first.flags >= selection.LEAST_FLAG)
            poses = self.networks.landmarks(image_bgr, first.rois_px[again])
            scores = found.scores[again] * poses.flags
            kept = selection.people(poses, scores)
        return poses[kept], scores[kept]


def as_detections(poses: Poses, scores: Array, size_px: tuple[int, int]) -> Detections:
    """People in an image of (width, height) with their crop boxes and their joints in the 30-joint set."""
    people = Detections.from_boxes(selection.boxes_px(poses), scores)
    return with_joints(people, poses.joints, SKELETON, size_px)
