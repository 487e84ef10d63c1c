"""Bodies fitted to people of data sets: their joints, and the selection of those good enough to train on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from jotr_deploy.body.joint_regression import JointsBody
from jotr_deploy.body.lbs import SkinnedBody
from jotr_deploy.body.smpl import BodyModel
from jotr_deploy.datasets.published.annotation import Annotation, Camera
from jotr_deploy.datasets.published.fits import fit_counts
from jotr_deploy.skeletons import H36M17, SMPL30
from jotr_deploy.support.aliases import Array
from jotr_deploy.training.mesh_samples import turned_root


@dataclass(frozen=True)
class FittedBody:
    """Fit in the camera's frame."""

    joints_m: Array  # (30, 3)
    joints_px: Array  # (30, 2) in the picture; zero where not seen
    pose_rad: Array  # (24, 3)
    betas: Array  # (10,)
    seen: bool  # True if there is a camera, with the body in front of it


class FittedBodies:
    """Fits to joints."""

    def __init__(self, body: BodyModel, regressor_h36m: Array | None) -> None:
        """`regressor_h36m` (17, 6890) gives the joints to compare with measured ones; without it every fit counts."""
        plain = SkinnedBody(body)
        rows = [plain.regressor_30]
        if regressor_h36m is not None:
            rows.append(torch.from_numpy(np.asarray(regressor_h36m, np.float32)))
        self._compares = regressor_h36m is not None
        self._joints = JointsBody(plain, torch.cat(rows))

    def __call__(self, person: Annotation) -> FittedBody | None:
        """Fit of a person; None if there is none, or it is too far from the measured joints."""
        fit = person.fit
        if fit is None:
            return None
        # One by one: a person's numbers must not depend on the rest of the batch.
        pose, betas = (torch.from_numpy(np.array(each, np.float32))[None] for each in (fit.pose_rad, fit.betas))
        with torch.no_grad():
            joints_m = fit.in_camera(self._joints(pose, betas)[0].double().numpy() + fit.trans_m)
        joints_m, compared_m = joints_m[: len(SMPL30)], joints_m[len(SMPL30) :]
        if self._compares and not fit_counts(person, compared_m, H36M17):
            return None
        turn = np.eye(3) if fit.camera_from_fit is None else np.asarray(fit.camera_from_fit[:, :3], np.float64)
        pose_rad = turned_root(turn, np.asarray(fit.pose_rad, np.float64))
        if person.camera is None or (joints_m[:, 2] <= 0).any():
            return FittedBody(joints_m, np.zeros((len(joints_m), 2)), pose_rad, fit.betas, False)
        return FittedBody(joints_m, projected_px(joints_m, person.camera), pose_rad, fit.betas, True)


def projected_px(joints_m: Array, camera: Camera) -> Array:
    """(J, 3) in the camera's frame, in front of it -> (J, 2) pixels of its picture."""
    pixels: Array = joints_m[:, :2] / joints_m[:, 2:] * camera.focal_px + camera.principal_px
    return pixels
