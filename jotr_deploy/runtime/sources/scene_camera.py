"""The camera of a picture: given by the user, read from the picture's EXIF data, or guessed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from jotr_deploy.errors import SourceError
from jotr_deploy.geometry.scene_frame import image_centre_px
from jotr_deploy.runtime.sources.camera_files import CameraFile, read_camera
from jotr_deploy.runtime.sources.exif import FocalLength, focal_length
from jotr_deploy.runtime.sources.frame_source import Frame, size_of
from jotr_deploy.support.aliases import Array

PUBLISHED = "published"
"""Value of `--camera` that gives each person a camera of their own, as in the network's training."""
GUESSED_FOV_DEG = 60.0
"""Assumed field of view across the longer side: between a phone's main camera and a typical lens."""
SAME_ASPECT = 0.01


@dataclass(frozen=True)
class Camera:
    """A pinhole camera shared by all people in a picture."""

    focal_px: float
    principal_px: tuple[float, float]
    source: str  # its origin, in words


@dataclass(frozen=True)
class CameraChoice:
    """The way a picture's camera is determined; at most one field is set.

    By default it is read from a still picture's EXIF data, or guessed if they do not contain it.
    """

    fov_deg: float | None = None  # across the longer side of the picture
    focal_px: float | None = None
    file: CameraFile | None = None
    published: bool = False
    _maps: dict[tuple[int, int], tuple[Array, Array]] = field(default_factory=dict, compare=False, repr=False)

    def __call__(self, frame: Frame) -> Camera | None:
        """The camera of a frame, whose image is `undistorted`; None if each person has their own.

        Raises:
            SourceError: the camera file is for pictures of another aspect ratio.
        """
        if self.published:
            return None
        size_px = size_of(frame.image_bgr)
        centre = image_centre_px(size_px)
        middle_px = float(centre[0]), float(centre[1])
        if self.file is not None:
            (across_px, down_px), principal_px = _at_size(self.file, size_px)
            return Camera(math.sqrt(across_px * down_px), principal_px, self.file.path.name)
        if self.focal_px is not None:
            return Camera(self.focal_px, middle_px, f"--focal {self.focal_px:g}")
        if self.fov_deg is not None:
            return Camera(_focal_px(self.fov_deg, size_px), middle_px, f"--fov {self.fov_deg:g}")
        known = None if frame.path is None else _by_exif(frame.path, size_px)
        if known is not None:
            return Camera(known.px, middle_px, known.text)
        guess = f"guessed: {GUESSED_FOV_DEG:g} degrees across the longer side"
        return Camera(_focal_px(GUESSED_FOV_DEG, size_px), middle_px, guess)

    @property
    def bends(self) -> bool:
        """True if pictures must be `undistorted` before people are detected."""
        return self.file is not None and bool(self.file.distortion or self.file.focal_px[0] != self.file.focal_px[1])

    def undistorted(self, image_bgr: Array) -> Array:
        """The picture (H, W, 3) as seen by a pinhole camera with square pixels, in the same size; black outside."""
        if not self.bends:
            return image_bgr
        import cv2

        size_px = size_of(image_bgr)
        if size_px not in self._maps:
            lens, pinhole, distortion = self._matrices(size_px)
            maps = cv2.initUndistortRectifyMap(lens, distortion, np.eye(3), pinhole, size_px, cv2.CV_32FC1)
            self._maps[size_px] = maps[0], maps[1]
        return np.asarray(cv2.remap(image_bgr, *self._maps[size_px], cv2.INTER_LINEAR))

    def undistorted_px(self, points_px: Array, size_px: tuple[int, int]) -> Array:
        """(..., 2) pixels of the original picture, mapped to those of `undistorted`."""
        if not self.bends or not np.size(points_px):
            return points_px
        import cv2

        lens, pinhole, distortion = self._matrices(size_px)
        flat = np.asarray(points_px, np.float64).reshape(-1, 1, 2)
        accurate = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-6)
        moved = cv2.undistortPointsIter(flat, lens, distortion, np.eye(3), pinhole, accurate)
        return np.asarray(moved).reshape(np.shape(points_px))

    def _matrices(self, size_px: tuple[int, int]) -> tuple[Array, Array, Array]:
        """Camera matrix of the lens, that of the pinhole camera replacing it, and the distortion."""
        assert self.file is not None
        (across_px, down_px), (x_px, y_px) = _at_size(self.file, size_px)
        focal_px = math.sqrt(across_px * down_px)
        lens = np.array([[across_px, 0, x_px], [0, down_px, y_px], [0, 0, 1]])
        pinhole = np.array([[focal_px, 0, x_px], [0, focal_px, y_px], [0, 0, 1]])
        return lens, pinhole, np.array(self.file.distortion or [0.0] * 4)


def choose_camera(
    camera: str | Path | None = None, fov_deg: float | None = None, focal_px: float | None = None
) -> CameraChoice:
    """The camera choice from the user's options.

    Args:
        camera: file of intrinsics (`read_camera`), or the word "published" for a camera per person.
        fov_deg: field of view across the longer side of the picture.
        focal_px: focal length.

    Raises:
        SourceError: more than one is given, or an invalid one.
    """
    given = {"--camera": camera, "--fov": fov_deg, "--focal": focal_px}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise SourceError(f"{' and '.join(named)} are given", "give one: each determines the camera of the picture")
    if fov_deg is not None and not 1 <= fov_deg <= 170:
        raise SourceError(f"--fov {fov_deg:g}: not a field of view", "give degrees across the longer side, such as 60")
    if focal_px is not None and not 1 <= focal_px < 1e7:
        raise SourceError(f"--focal {focal_px:g}: not a focal length", "give pixels, such as 1500")
    if camera is None:
        return CameraChoice(fov_deg, focal_px)
    return CameraChoice(published=True) if str(camera) == PUBLISHED else CameraChoice(file=read_camera(Path(camera)))


def _focal_px(fov_deg: float, size_px: tuple[int, int]) -> float:
    return max(size_px) / 2 / math.tan(math.radians(fov_deg) / 2)


def _by_exif(file: Path | bytes, size_px: tuple[int, int]) -> FocalLength | None:
    return focal_length(file, size_px) if isinstance(file, bytes) else _by_exif_of(file, size_px)


_by_exif_of = lru_cache(maxsize=64)(focal_length)


def _at_size(file: CameraFile, size_px: tuple[int, int]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Focal lengths and principal point of a calibrated camera for pictures of this width and height."""
    (across_px, down_px), (x_px, y_px) = file.focal_px, file.principal_px
    width, height = size_px
    if file.size_px is not None:
        scales = width / file.size_px[0], height / file.size_px[1]
        if abs(scales[0] / scales[1] - 1) > SAME_ASPECT:
            raise SourceError(
                f"{file.path}: is for {file.size_px[0]} x {file.size_px[1]} px, the picture has {width} x {height}",
                "give the camera of these pictures, as they are: not turned, not cropped",
            )
        across_px, down_px = across_px * scales[0], down_px * scales[1]
        x_px, y_px = (x_px + 0.5) * scales[0] - 0.5, (y_px + 0.5) * scales[1] - 0.5
    if not (0 <= x_px < width and 0 <= y_px < height):
        raise SourceError(
            f"{file.path}: its principal point ({x_px:g}, {y_px:g}) lies outside the picture of {width} x {height} px",
            "give the camera of these pictures, as they are: not turned, not resized, not cropped",
        )
    return (across_px, down_px), (x_px, y_px)
