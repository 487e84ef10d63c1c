"""People supplied by the caller: from an earlier result, or as arrays of boxes or joints."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from jotr_deploy.errors import KeypointFileError, SourceError
from jotr_deploy.geometry.crop import square_box
from jotr_deploy.people import People
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.finding.crop_boxes import with_crop_boxes, with_joint_boxes
from jotr_deploy.skeletons import SKELETONS, to_smpl30
from jotr_deploy.support.aliases import Array

if TYPE_CHECKING:
    from jotr_deploy.runtime.finding.pose import PoseNetwork


def given_people(
    image_bgr: Array,
    boxes_px: Any = None,
    keypoints_px: Any = None,
    skeleton: str | None = None,
    pose: PoseNetwork | None = None,
    *,
    crop_factor: float,
) -> Detections:
    """People given by boxes, joints or both, with square crop boxes, in the order given.

    Joints alone define the boxes, and people with too few joints for a box are dropped. Boxes alone get joints from
    the pose network, if there is one.

    Args:
        image_bgr: (H, W, 3) uint8.
        boxes_px: (N, 4) x0 y0 x1 y1.
        keypoints_px: (N, J, 3) x, y and confidence; joints that are not finite count as absent.
        skeleton: order of the joints, a key of `SKELETONS`; inferred from their number if not given.
        pose: network that finds joints inside boxes.
        crop_factor: `ModelConfig.crop_factor` of the mesh network.

    Raises:
        KeypointFileError: an array of the wrong shape, a box without area, or an unknown skeleton.
    """
    boxes = None if boxes_px is None else _checked_boxes(boxes_px)
    if keypoints_px is None:
        assert boxes is not None, "boxes or keypoints"
        return with_crop_boxes(image_bgr, Detections.from_boxes(boxes), pose, crop_factor)
    joints = to_smpl30(*_checked_joints(keypoints_px, skeleton))
    if boxes is None:
        people = Detections.from_boxes(np.zeros((len(joints), 4)))
        size_px = (image_bgr.shape[1], image_bgr.shape[0])
        return with_joint_boxes(replace(people, keypoints_px=joints), size_px, crop_factor)
    if len(boxes) != len(joints):
        raise KeypointFileError(f"{len(boxes)} boxes but joints of {len(joints)} people", "give equally many")
    return replace(Detections.from_boxes(square_box(boxes, crop_factor)), keypoints_px=joints)


def known_people(people: Any, boxes: Any = None, keypoints: Any = None) -> Detections:
    """People of an earlier result, with its crops and joints; `boxes` and `keypoints` must not be given as well.

    Raises:
        KeypointFileError: not people, or boxes or keypoints given too.
    """
    if not isinstance(people, (People, Detections)):
        raise KeypointFileError(
            f"people are given as {type(people).__name__}",
            "give what a model returned; arrays are boxes=(N, 4) or keypoints=(N, J, 3)",
        )
    if boxes is not None or keypoints is not None:
        raise KeypointFileError("both people and boxes or keypoints are given", "give one: people have both")
    return Detections(people.boxes_px, people.keypoints_px, people.scores, people.track_ids)


def checked_image(image: Any) -> Array:
    """Check an image and return it as the pipeline expects it.

    Raises:
        SourceError: not (H, W, 3) uint8.
    """
    if image is None:
        raise SourceError("the image is None", "cv2.imread returns None for a file it cannot read: check the path")
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise SourceError(
            f"the image is {array.dtype} of shape {array.shape}",
            "give a path, or (H, W, 3) uint8 in BGR order, as cv2.imread returns it",
        )
    return array


def _checked_boxes(boxes_px: Any) -> Array:
    boxes = _numbers("boxes", boxes_px)
    boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise KeypointFileError(f"boxes are of shape {boxes.shape}", "give (N, 4): x0 y0 x1 y1 in pixels")
    if not (np.isfinite(boxes).all() and (boxes[:, 2:] > boxes[:, :2]).all()):
        raise KeypointFileError("a box has no area, or is not finite", "give x0 y0 x1 y1 with x0 < x1 and y0 < y1")
    _warn_of_crops(boxes)
    return boxes


def _warn_of_crops(boxes: Array) -> None:
    """Warn if boxes look like the crops in `People`: a person's tight box is hardly ever square."""
    sides = boxes[:, 2:] - boxes[:, :2]
    if len(boxes) and np.allclose(sides[:, 0], sides[:, 1], rtol=1e-5, atol=1e-3) and (boxes % 1).any():
        logging.getLogger("jotr_deploy").warning(
            "every box is square, like the crops in People.boxes_px, which are too large to serve as boxes; to repeat "
            "a result give people=, otherwise give boxes that fit people tightly"
        )


def _checked_joints(keypoints_px: Any, skeleton: str | None) -> tuple[Array, str]:
    joints = _numbers("keypoints", keypoints_px)
    if joints.size == 0:
        return np.zeros((0, len(SKELETONS[skeleton or "smpl30"]), 3)), skeleton or "smpl30"
    if joints.ndim != 3 or joints.shape[2] != 3:
        raise KeypointFileError(
            f"keypoints are of shape {joints.shape}", "give (N, J, 3): x, y in pixels and confidence in 0..1"
        )
    sizes = {name: len(names) for name, names in SKELETONS.items()}
    if skeleton is not None and skeleton not in sizes:
        raise KeypointFileError(f"skeleton {skeleton!r} is not known", f"give one of {', '.join(sizes)}")
    fitting = [name for name, size in sizes.items() if size == joints.shape[1] and skeleton in (None, name)]
    if len(fitting) != 1:
        known = ", ".join(f"{name} ({size})" for name, size in sizes.items())
        wanted = "name the skeleton" if skeleton is None else f"{skeleton} has {sizes[skeleton]}"
        raise KeypointFileError(f"keypoints have {joints.shape[1]} joints per person", f"{wanted}: {known}")
    return np.where(np.isfinite(joints).all(-1, keepdims=True), joints, 0.0), fitting[0]


def _numbers(what: str, values: Any) -> Array:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise KeypointFileError(
            f"{what} are not an array of numbers", "give one row per person, all of the same length"
        ) from None
