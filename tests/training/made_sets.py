"""What the task `jotr` needs, without anybody's data: sets in miniature, the stand-in body in an SMPL file, a prior.

`posed` are people whose labels are the joints of their own fits, in pictures of noise.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from made_scenes import STILL, prior_file
from miniature import write_miniature

from jotr_deploy.body.joint_regression import JointsBody
from jotr_deploy.body.lbs import SkinnedBody
from jotr_deploy.body.smpl import PARENTS, BodyModel, stand_in
from jotr_deploy.datasets.published.annotation import Annotation, Camera, Fit
from jotr_deploy.skeletons import H36M17, SMPL30_INDEX
from jotr_deploy.training.published.augmented_crops import Variation
from jotr_deploy.training.tasks.jotr_task import JotrTask, Options, make

PLAIN = Variation(1.0, 1.0, 0.0, False, np.ones(3))
SIZE_PX = (160, 120)
CAMERA = Camera((150.0, 160.0), (70.0, 50.0))
SETS = ("h36m", "muco", "mscoco", "crowdpose")


@cache
def body() -> BodyModel:
    return stand_in()


@cache
def joints_body() -> JointsBody:
    return JointsBody(SkinnedBody(body()))


def joints_of(pose_rad: Any, betas: Any) -> Any:
    """(30, 3) metres in the body's own frame."""
    with torch.no_grad():
        pose, shape = (torch.from_numpy(np.asarray(each, np.float32))[None] for each in (pose_rad, betas))
        return joints_body()(pose, shape)[0].double().numpy()


def regressor_h36m() -> Any:
    """(17, 6890) the joints of Human3.6M where the 30-joint set has them."""
    return body().regressor_30()[[SMPL30_INDEX[name] for name in H36M17]]


def posed(number: int, image: Path = Path("none.png"), is_3d: bool = True, **more: Any) -> Annotation:
    """Somebody three metres away whose labels are the joints of a fit in a frame of its own."""
    rng = np.random.default_rng(number)
    pose_rad = np.concatenate([rng.normal(0, 1, (1, 3)), rng.normal(0, 0.2, (23, 3))])
    betas = rng.normal(0, 0.5, 10)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    trans_m = rng.normal(0, 1, 3)
    in_fit_m = joints_of(pose_rad, betas) + trans_m
    shift_m = np.array([0.1, 0.2, 3.0]) - turn @ in_fit_m[0]
    joints_m = in_fit_m @ turn.T + shift_m
    joints_px = joints_m[:, :2] / joints_m[:, 2:] * CAMERA.focal_px + CAMERA.principal_px
    fit = Fit(pose_rad, betas, trans_m, camera_from_fit=np.concatenate([turn, shift_m[:, None]], 1))
    values: dict[str, Any] = {
        "key": str(number), "image": image, "size_px": SIZE_PX, "fit": fit, "camera": CAMERA,
        "box_px": np.concatenate([joints_px.min(0), joints_px.max(0)]),
        "joints_px": np.concatenate([joints_px, np.ones((30, 1))], 1),
        "joints_m": joints_m if is_3d else None, "joints_m_known": np.ones(30, bool) if is_3d else None,
    }  # fmt: skip
    return Annotation(**{**values, **more})


def noise_picture(path: Path, seed: int = 0) -> Path:
    """A picture of `SIZE_PX`."""
    noise = np.random.default_rng(seed).integers(0, 255, (SIZE_PX[1], SIZE_PX[0], 3), np.uint8)
    cv2.imwrite(str(path), noise)
    return path


def as_written(folder: Path, sets: tuple[str, ...] = SETS) -> dict[str, Any]:
    """The options of the task for what `write` has put there."""
    return {
        "root": folder, "sets": sets, "smpl": folder, "prior": folder / "prior.pt",
        "h36m_regressor": folder / "h36m.npy", "model": STILL,
    }  # fmt: skip


def write(folder: Path, sets: tuple[str, ...] = SETS) -> dict[str, Any]:
    """Everything that the task reads; its options."""
    for name in sets:
        write_miniature(name, folder)
    plain = body()
    np.savez(
        folder / "SMPL_NEUTRAL.npz", v_template=plain.v_template, shapedirs=plain.shapedirs, weights=plain.weights,
        posedirs=np.zeros((6890, 3, 207), np.float32), J_regressor=plain.J_regressor, f=plain.faces,
        kintree_table=np.array([[2**32 - 1, *PARENTS[1:]], range(24)], np.uint32),
    )  # fmt: skip
    np.save(folder / "h36m.npy", regressor_h36m())
    prior_file(folder)
    return as_written(folder, sets)


def jotr_task(options: dict[str, Any], seed: int = 3, **more: Any) -> JotrTask:
    """The task on what was written."""
    return make(Options(**{**options, **more}), seed)
