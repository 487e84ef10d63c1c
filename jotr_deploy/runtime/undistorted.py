"""Frames without the distortion of the lens, and joints and boxes of files moved along.

Files of joints and boxes speak of the pictures as they were taken; from here on everything is in undistorted pixels.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from jotr_deploy.geometry.crop import VALID_CONFIDENCE, square_box
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.finding.people_source import BoxPeople, KeypointPeople, PeopleSource
from jotr_deploy.runtime.finding.region import MostPeople, WithinRegion
from jotr_deploy.runtime.sources.frame_source import Frame, FrameSource
from jotr_deploy.runtime.sources.scene_camera import CameraChoice
from jotr_deploy.support.aliases import Array


class Undistorted(FrameSource):
    """The frames of another source, as a pinhole would have seen them. Closing it closes the other."""

    def __init__(self, source: FrameSource, camera: CameraChoice) -> None:
        self.kind, self.name, self.fps, self.total = source.kind, source.name, source.fps, source.total
        self.count, self.every, self.size_px = source.count, source.every, source.size_px
        self._source, self._camera = source, camera

    def frame_names(self) -> Iterator[str]:
        """See `FrameSource`."""
        return self._source.frame_names()

    def orientation_of(self, frame: int) -> int:
        """See `FrameSource`."""
        return self._source.orientation_of(frame)

    def _frames(self) -> Generator[Frame, None, None]:
        for frame in self._source:
            yield replace(frame, image_bgr=self._camera.undistorted(frame.image_bgr))
            self.dropped = self._source.dropped
        self.dropped, self.fault = self._source.dropped, self._source.fault

    def close(self) -> None:
        """See `FrameSource`."""
        super().close()
        self._source.close()


def follow_lens(finder: PeopleSource, camera: CameraChoice) -> None:
    """Make a people source one for undistorted frames: what it reads from a file is moved to where it is there."""
    while isinstance(finder, (WithinRegion, MostPeople)):
        finder = finder.people_source
    if isinstance(finder, KeypointPeople):
        finder.lens = partial(undistorted_joints, camera)
    elif isinstance(finder, BoxPeople):
        finder.lens = partial(undistorted_boxes, camera)


def undistorted_boxes(camera: CameraChoice, people: Detections, size_px: tuple[int, int]) -> Detections:
    """People of whom boxes are known, of a picture of this width and height."""
    return replace(people, boxes_px=_boxes(people.boxes_px, camera, size_px))


def undistorted_joints(camera: CameraChoice, people: Detections, size_px: tuple[int, int]) -> Detections:
    """People of whom joints are known, and square crop boxes or none, of a picture of this width and height."""
    keypoints_px = people.keypoints_px.copy()
    there = keypoints_px[..., 2] > VALID_CONFIDENCE
    keypoints_px[there, :2] = camera.undistorted_px(keypoints_px[there, :2], size_px)
    boxes_px, some = people.boxes_px.copy(), (people.boxes_px[:, 2:] > people.boxes_px[:, :2]).all(1)
    # Crop boxes already: made square again, not larger.
    boxes_px[some] = square_box(_boxes(boxes_px[some], camera, size_px), 1.0)
    return replace(people, keypoints_px=keypoints_px, boxes_px=boxes_px)


def undistorted_arrays(
    camera: CameraChoice, boxes_px: Any, keypoints_px: Any, size_px: tuple[int, int]
) -> tuple[Any, Any]:
    """Boxes (N, 4) and joints (N, J, 3) of a caller, either None, in undistorted pixels; what else they are stays."""
    boxes, joints = np.asarray(boxes_px), np.asarray(keypoints_px)
    if boxes.ndim == 2 and boxes.shape[1] == 4 and boxes.dtype.kind in "fiu":
        boxes_px = _boxes(boxes.astype(np.float64), camera, size_px)
    if joints.ndim == 3 and joints.shape[2] == 3 and joints.dtype.kind in "fiu":
        keypoints_px = joints.astype(np.float64)
        there = np.isfinite(keypoints_px).all(-1)
        keypoints_px[there, :2] = camera.undistorted_px(keypoints_px[there, :2], size_px)
    return boxes_px, keypoints_px


def _boxes(boxes_px: Array, camera: CameraChoice, size_px: tuple[int, int]) -> Array:
    """(N, 4) boxes around where corners, middles of the sides and the middle of boxes come to lie.

    What is outside the picture was seen by nobody, and is taken to the edge for it.
    """
    along = np.array([0.0, 0.5, 1.0])
    shares = np.stack(np.meshgrid(along, along), -1).reshape(-1, 2)
    low, size = boxes_px[:, None, :2], (boxes_px[:, 2:] - boxes_px[:, :2])[:, None]
    points_px = low + shares * size
    inside_px = np.clip(points_px, 0, np.asarray(size_px) - 1.0)
    moved_px = points_px + camera.undistorted_px(inside_px, size_px) - inside_px
    moved: Array = np.concatenate([moved_px.min(1), moved_px.max(1)], 1) if len(boxes_px) else boxes_px
    return moved
