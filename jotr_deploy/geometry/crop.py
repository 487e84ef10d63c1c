"""Square crops from a person's joints or box, as the published evaluation cuts them.

Boxes are x0 y0 x1 y1 in image pixels; pixel centres have integer coordinates. The network's joints live on a grid of
`crop_side / 4` cells. Every function takes leading axes: one person or many.
"""

from __future__ import annotations

import numpy as np

from jotr_deploy.support.aliases import Array

VALID_CONFIDENCE = 0.05  # a joint counts when its confidence is above, not at, this
JOINTS_MARGIN = 1.2  # from the extent of the joints to the person's box
PX_PER_CELL = 4  # crop pixels in a cell of the network's grid


def box_from_joints(joints_px: Array, valid: Array) -> Array:
    """The extent of the valid joints, widened by 1.2 about its centre.

    In float32 like the published code: OpenCV samples on a grid of 1/32 px, so last bits can show in the crop.

    Args:
        joints_px: (..., J, 2 or more) x, y in the image.
        valid: (..., J) which of them count; at least one of each person (else ValueError).

    Returns:
        (..., 4) float32.
    """
    use = np.asarray(valid, bool)
    if not use.any(-1).all():
        raise ValueError("a box needs a valid joint")
    xy = np.asarray(joints_px, np.float32)[..., :2]
    low = np.where(use[..., None], xy, np.float32(np.inf)).min(-2)
    high = np.where(use[..., None], xy, np.float32(-np.inf)).max(-2)
    return _box((low + high) / 2, (high - low) * np.float32(JOINTS_MARGIN))


def clip_box(box_px: Array, image_size_px: tuple[int, int]) -> Array:
    """Clip a box to the image (width, height) as published: one pixel less in width and height, and with a quirk.

    A left or top edge outside the image moves the box inward, it does not shrink it. A box beyond the right or bottom
    edge comes back inverted. The network was evaluated with exactly this, so it stays.

    Returns:
        (..., 4) float64, for `square_box` to round once.
    """
    low = np.maximum(box_px[..., :2], 0).astype(np.float64)
    size = np.maximum(box_px[..., 2:] - box_px[..., :2] - 1, 0)
    high = np.minimum(np.asarray(image_size_px) - 1, low + size)
    return np.concatenate([low, high], -1)


def square_box(box_px: Array, factor: float) -> Array:
    """The square about the box's centre, (..., 4) float32.

    Args:
        box_px: (..., 4).
        factor: side of the square over the longer side of the box: `ModelConfig.crop_factor` for a crop box.
    """
    box = np.asarray(box_px, np.float64)
    side = (box[..., 2:] - box[..., :2]).max(-1, keepdims=True) * factor
    return _box((box[..., :2] + box[..., 2:]) / 2, side)


def crop_from_image(box_px: Array, crop_side: int) -> Array:
    """The affine of a square crop box: `crop_px = A @ [image_px, 1]`; (..., 2, 3) float64.

    The centre of the box goes to `crop_side / 2`, its side becomes `crop_side`.
    """
    box = np.asarray(box_px, np.float64)
    scale = crop_side / (box[..., 2:] - box[..., :2]).max(-1)
    return _affine(scale, crop_side / 2 - scale[..., None] * (box[..., :2] + box[..., 2:]) / 2)


def image_from_crop(box_px: Array, crop_side: int) -> Array:
    """The inverse of `crop_from_image`: `image_px = A @ [crop_px, 1]`; (..., 2, 3) float64."""
    box = np.asarray(box_px, np.float64)
    scale = (box[..., 2:] - box[..., :2]).max(-1) / crop_side
    return _affine(scale, (box[..., :2] + box[..., 2:]) / 2 - scale[..., None] * crop_side / 2)


def transform_px(affine: Array, points_px: Array) -> Array:
    """Move (..., P, 2) points by (..., 2, 3) affines."""
    moved: Array = points_px @ np.swapaxes(affine[..., :2], -1, -2) + affine[..., None, :, 2]
    return moved


def joints_in_grid(joints_px: Array, box_px: Array, crop_side: int) -> tuple[Array, Array]:
    """The network's view of the joints.

    Args:
        joints_px: (..., 30, 3) x, y in the image, confidence.
        box_px: (..., 4) square crop boxes.
        crop_side: pixels, a multiple of 4.

    Returns:
        joints (..., 30, 2) x, y in grid cells, and the mask (..., 30): 1 where the confidence is above 0.05 and the
        joint lies in 0 <= x, y < crop_side / 4, else 0. Both float32.
    """
    crop_px = transform_px(crop_from_image(box_px, crop_side), np.asarray(joints_px[..., :2], np.float64))
    joints = (crop_px / PX_PER_CELL).astype(np.float32)
    inside = ((joints >= 0) & (joints < crop_side / PX_PER_CELL)).all(-1)
    return joints, (inside & (joints_px[..., 2] > VALID_CONFIDENCE)).astype(np.float32)


def _box(centre_px: Array, size_px: Array) -> Array:
    return np.concatenate([centre_px - size_px / 2, centre_px + size_px / 2], -1).astype(np.float32)


def _affine(scale: Array, shift: Array) -> Array:
    affine = np.zeros((*shift.shape[:-1], 2, 3))
    affine[..., 0, 0] = affine[..., 1, 1] = scale
    affine[..., 2] = shift
    return affine
