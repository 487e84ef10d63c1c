"""Ground truth for the losses: a person of a data set in a varied crop."""

from __future__ import annotations

import numpy as np

from jotr_deploy.datasets.published.annotation import Annotation
from jotr_deploy.geometry.crop import transform_px
from jotr_deploy.skeletons import JOTR15_IN_SMPL30, SMPL30_INDEX
from jotr_deploy.support.aliases import Array
from jotr_deploy.training.mesh_samples import DEPTH_BOX_M
from jotr_deploy.training.published.augmented_crops import Variation, varied_joints, varied_joints_m, varied_pose
from jotr_deploy.training.published.fitted_bodies import FittedBody

LARGEST_BETA = 3.0
"""A fit with a larger shape number than this has zeros for the truth of its shape."""
_PELVIS = SMPL30_INDEX["Pelvis"]


def labels_in_crop(person: Annotation, affine: Array, variation: Variation) -> Array:
    """(30, 3) x, y in the varied crop, 1 where it is labelled."""
    places = transform_px(affine, np.asarray(person.joints_px[:, :2], np.float64))
    return varied_joints(np.concatenate([places, person.joints_px[:, 2:] > 0], 1), variation)


def measured_truth(person: Annotation, labels: Array, variation: Variation, crop_side: int) -> dict[str, Array]:
    """Labelled or measured truth of a person.

    Args:
        person: from a data set.
        labels: (30, 3), see `labels_in_crop`.
        variation: of the crop.
        crop_side: pixels.

    Returns:
        joints_img (30, 3) x y as fractions of the crop, z 0..1 of the depth box, 0 without depth; joints_known (30,)
        which are labelled and inside; joints_cam (30, 3) metres relative to the pelvis and joints_cam_known (30,);
        is_3d (), whether depths are measured. float32.
    """
    joints_m, measured = np.zeros((len(labels), 3)), np.zeros(len(labels), bool)
    img, known = np.pad(labels[:, :2] / crop_side, ((0, 0), (0, 1))), labels[:, 2] > 0
    is_3d = person.joints_m is not None and person.joints_m_known is not None and bool(person.joints_m_known[_PELVIS])
    if is_3d and person.joints_m is not None:
        measured = varied_joints(np.asarray(person.joints_m_known, bool), variation)
        joints_m = varied_joints_m(person.joints_m - person.joints_m[_PELVIS], variation) * measured[:, None]
        img, known = in_crop_volume(labels[:, :2], joints_m[:, 2], crop_side), known & measured
    return {
        "joints_img": img.astype(np.float32),
        "joints_known": (known & _inside(img)).astype(np.float32),
        "joints_cam": joints_m.astype(np.float32),
        "joints_cam_known": measured.astype(np.float32),
        "is_3d": np.asarray(is_3d, np.float32),
    }


def fit_truth(fitted: FittedBody | None, affine: Array, variation: Variation, crop_side: int) -> dict[str, Array]:
    """Truth from the fit to a person, in the varied crop; zeros without one.

    Returns:
        fit_img (15, 3) like joints_img, fit_known (15,) which are inside, pose (24, 3), betas (10,), is_fit ();
        float32.
    """
    img, known, pose, betas = np.zeros((15, 3)), np.zeros(15, bool), np.zeros((24, 3)), np.zeros(10)
    if fitted is not None:
        pose = varied_pose(fitted.pose_rad, variation)
        betas = fitted.betas * (np.abs(fitted.betas).max() <= LARGEST_BETA)
        joints_px = varied_joints(transform_px(affine, fitted.joints_px), variation)
        joints_m = varied_joints_m(fitted.joints_m - fitted.joints_m[_PELVIS], variation)
        img = in_crop_volume(joints_px, joints_m[:, 2], crop_side)[list(JOTR15_IN_SMPL30)]
        known = _inside(img) & fitted.seen
    truth = {"fit_img": img, "fit_known": known, "pose": pose, "betas": betas, "is_fit": np.asarray(fitted is not None)}
    return {name: value.astype(np.float32) for name, value in truth.items()}


def in_crop_volume(joints_px: Array, depth_m: Array, crop_side: int) -> Array:
    """(J, 2) in the crop and (J,) behind the pelvis -> (J, 3) fractions of the crop volume."""
    return np.concatenate([joints_px / crop_side, depth_m[:, None] / DEPTH_BOX_M + 0.5], 1)


def _inside(fractions: Array) -> Array:
    return np.asarray(((fractions >= 0) & (fractions < 1)).all(-1))
