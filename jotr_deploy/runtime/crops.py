"""Crops and joints in the form that the mesh network takes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from jotr_deploy.errors import KeypointFileError
from jotr_deploy.geometry.crop import crop_from_image, joints_in_grid
from jotr_deploy.runtime.detections import Detections, box_text
from jotr_deploy.runtime.sessions.device_array import DeviceArray
from jotr_deploy.support.aliases import Array

# OpenCV warps with 16-bit source positions; larger regions are subsampled first.
_MAX_SPAN_PX = 30000


@dataclass(frozen=True)
class Crops:
    """The people of one image, ready for the network. The first three fields are its inputs, by name."""

    image: Array | DeviceArray  # (N, 3, S, S) float32, RGB in 0..1, in memory the network reads from
    joints: Array  # (N, 30, 2) float32, x, y in grid cells (crop pixels / 4)
    joints_mask: Array  # (N, 30) float32, 1 = use this joint
    boxes_px: Array  # (N, 4) float32, square crop boxes in the image

    def __len__(self) -> int:
        return len(self.boxes_px)

    @property
    def feeds(self) -> dict[str, Any]:
        """The network's inputs by name."""
        return {"image": self.image, "joints": self.joints, "joints_mask": self.joints_mask}


Cropper = Callable[[Array, Detections, int], Crops]
"""`make_crops`, or a function with the same signature: an image, its people, the side of the crops in pixels."""


def make_crops(image_bgr: Array, people: Detections, crop_side: int) -> Crops:
    """Cut every person out of an image.

    Args:
        image_bgr: (H, W, 3) uint8.
        people: N people with square crop boxes, anywhere inside or outside the image.
        crop_side: side S of the crops in pixels, a multiple of 4.

    Raises:
        KeypointFileError: a box without area, or with a value that is not finite.
    """
    require_croppable(image_bgr, people.boxes_px)
    images = np.zeros((len(people), 3, crop_side, crop_side), np.float32)
    for out, box in zip(images, people.boxes_px, strict=True):
        _fill_crop(out, image_bgr, box)
    joints, mask = joints_in_grid(people.keypoints_px, people.boxes_px, crop_side)
    return Crops(images, joints, mask, people.boxes_px)


def require_croppable(image_bgr: Array, boxes_px: Array) -> None:
    """Refuse everything that `make_crops` refuses.

    Raises:
        KeypointFileError: a box without area, or with a value that is not finite.
    """
    if image_bgr.dtype != np.uint8 or image_bgr.ndim != 3 or image_bgr.shape[2] != 3:
        raise ValueError(f"image is {image_bgr.dtype} {image_bgr.shape}, expected uint8 (H, W, 3)")
    for person, box in enumerate(boxes_px):
        width, height = box[2:] - box[:2]
        if not (np.isfinite(box).all() and width > 0 and height > 0):
            raise KeypointFileError(
                f"person {person}: crop box {box_text(box)} has no area",
                "correct this person's box, or remove the person",
            )
        if abs(width - height) > 0.01 * max(width, height):
            raise ValueError(f"person {person}: crop box {box_text(box)} is not square")


@dataclass(frozen=True)
class Region:
    """The pixels of an image that a crop is made of: a window, or every `step`-th pixel of one if the box is vast."""

    x_px: range
    y_px: range
    crop_from_region: Array  # (2, 3) float64


def covered_region(box_px: Array, image_size_px: tuple[int, int], crop_side: int) -> Region | None:
    """The part of an image of (width, height) that a square box covers, with a small margin; None if there is none."""
    first = np.maximum(np.floor(box_px[:2].astype(np.float64)) - 2, 0)
    last = np.minimum(np.ceil(box_px[2:].astype(np.float64)) + 3, image_size_px)
    if (first >= last).any():
        return None
    (x0, y0), (x1, y1) = first.astype(int), last.astype(int)
    step = int(np.ceil((box_px[2:] - box_px[:2]).max() / _MAX_SPAN_PX))
    crop_from_region = crop_from_image(box_px, crop_side)
    crop_from_region[:, 2] += crop_from_region[:, :2] @ first
    crop_from_region[:, :2] *= step
    return Region(range(x0, x1, step), range(y0, y1, step), crop_from_region)


def _fill_crop(out: Array, image_bgr: Array, box_px: Array) -> None:
    """Warp one box into `out` (3, S, S), which is zero: bilinear, black outside the image."""
    crop_side = out.shape[-1]
    region = covered_region(box_px, (image_bgr.shape[1], image_bgr.shape[0]), crop_side)
    if region is None:
        return
    x_px, y_px = region.x_px, region.y_px
    # Only the part covered is converted to float: exact rounding needs a float source, but a whole photo would be slow.
    source = image_bgr[y_px.start : y_px.stop : y_px.step, x_px.start : x_px.stop : x_px.step]
    source = _as_float(source)
    crop_bgr = cv2.warpAffine(source, region.crop_from_region, (crop_side, crop_side), flags=cv2.INTER_LINEAR)
    np.divide(crop_bgr[..., ::-1].transpose(2, 0, 1), 255, out=out)


def _as_float(pixels: Array) -> Array:
    """Pixels as float32, valid until the next call in this thread: new memory each time costs ten times as much."""
    if pixels.size > _KEPT_VALUES:
        return pixels.astype(np.float32)
    if not hasattr(_scratch, "values"):
        _scratch.values = np.empty(_KEPT_VALUES, np.float32)
    values: Array = _scratch.values[: pixels.size].reshape(pixels.shape)
    values[:] = pixels
    return values


_KEPT_VALUES = 3 << 21  # 25 MB: people of 1400 px; only the pages in use take memory
_scratch = threading.local()
