"""Frames without lens distortion; joints and boxes from files are moved accordingly.

Files of joints and boxes refer to the pictures as captured; from here on everything is in undistorted pixels.
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
    """The frames of another source as a pinhole camera would have seen them. Closing it closes the other source."""

    def __init__(self, source: FrameSource, camera: CameraChoice) -> None:
        self.kind, self.name, self.fps, self.total = source.kind, source.name, source.fps, source.total
        self.count, self.every, self.size_px = source.count, source.every, source.size_px
        self.block, self._source, self._camera = source.block, source, camera

    def frame_names(self) -> Iterator[str]:
        """Names of the frames, unchanged."""
        return self._source.frame_names()

    def orientation_of(self, frame: int) -> int:
        """EXIF orientation of a frame, unchanged."""
        return self._source.orientation_of(frame)

    def _frames(self) -> Generator[Frame, None, None]:
        for frame in self._source:
            yield replace(frame, image_bgr=self._camera.undistorted(frame.image_bgr))
            self.dropped = self._source.dropped
        self.dropped, self.fault = self._source.dropped, self._source.fault

    def close(self) -> None:
        """Close the other source."""
        super().close()
        self._source.close()


def follow_lens(finder: PeopleSource, camera: CameraChoice) -> None:
    """Adapt a people source to undistorted frames: positions it reads from a file are undistorted as well."""
    while isinstance(finder, (WithinRegion, MostPeople)):
        finder = finder.people_source
    if isinstance(finder, KeypointPeople):
        finder.lens = partial(undistorted_joints, camera)
    elif isinstance(finder, BoxPeople):
        finder.lens = partial(undistorted_boxes, camera)


def undistorted_boxes(camera: CameraChoice, people: Detections, size_px: tuple[int, int]) -> Detections:
    """Undistort people known by their boxes, in a picture of this width and height."""
    return replace(people, boxes_px=_boxes(people.boxes_px, camera, size_px))


def undistorted_joints(camera: CameraChoice, people: Detections, size_px: tuple[int, int]) -> Detections:
    """Undistort people known by their joints, with square crop boxes or none, in a picture of this width and height."""
    keypoints_px = people.keypoints_px.copy()
    there = keypoints_px[..., 2] > VALID_CONFIDENCE
    keypoints_px[there, :2] = camera.undistorted_px(keypoints_px[there, :2], size_px)
    boxes_px, some = people.boxes_px.copy(), (people.boxes_px[:, 2:] > people.boxes_px[:, :2]).all(1)
    # They are crop boxes already: made square again, without enlarging.
    boxes_px[some] = square_box(_boxes(boxes_px[some], camera, size_px), 1.0)
    return replace(people, keypoints_px=keypoints_px, boxes_px=boxes_px)


def undistorted_arrays(
    camera: CameraChoice, boxes_px: Any, keypoints_px: Any, size_px: tuple[int, int]
) -> tuple[Any, Any]:
    """Undistort a caller's boxes (N, 4) and joints (N, J, 3), either of which may be None; other values are kept."""
    boxes, joints = np.asarray(boxes_px), np.asarray(keypoints_px)
    if boxes.ndim == 2 and boxes.shape[1] == 4 and boxes.dtype.kind in "fiu":
        boxes_px = _boxes(boxes.astype(np.float64), camera, size_px)
    if joints.ndim == 3 and joints.shape[2] == 3 and joints.dtype.kind in "fiu":
        keypoints_px = joints.astype(np.float64)
        there = np.isfinite(keypoints_px).all(-1)
        keypoints_px[there, :2] = camera.undistorted_px(keypoints_px[there, :2], size_px)
    return boxes_px, keypoints_px


def _boxes(boxes_px: Array, camera: CameraChoice, size_px: tuple[int, int]) -> Array:
    """(N, 4) boxes around the undistorted corners, edge midpoints and centres of boxes.

    Points outside the picture cannot have been observed, and are moved to its edge first.
    """
    along = np.array([0.0, 0.5, 1.0])
    shares = np.stack(np.meshgrid(along, along), -1).reshape(-1, 2)
    low, size = boxes_px[:, None, :2], (boxes_px[:, 2:] - boxes_px[:, :2])[:, None]
    points_px = low + shares * size
    inside_px = np.clip(points_px, 0, np.asarray(size_px) - 1.0)
    moved_px = points_px + camera.undistorted_px(inside_px, size_px) - inside_px
    moved: Array = np.concatenate([moved_px.min(1), moved_px.max(1)], 1) if len(boxes_px) else boxes_px
    return moved
