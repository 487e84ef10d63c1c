"""Plausibility check at the end of `export`, on the picture inside this package, whose people are known exactly.

The joints that the network finds in the picture depend on its weights alone; mesh and joints in metres depend on pose
prior, body and regressor as well. So if the joints are right but the people are wrong, one of these parts is the wrong
one.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import numpy as np

from jotr_deploy.config import ModelConfig
from jotr_deploy.datasets.synthetic.labels import Bodies, bodies
from jotr_deploy.datasets.synthetic.scene import SceneOptions, draw_scene
from jotr_deploy.geometry.similarity import aligned
from jotr_deploy.runtime.crops import make_crops
from jotr_deploy.runtime.finding.crop_boxes import with_joint_boxes
from jotr_deploy.runtime.joint_files.keypoint_file import read_keypoints
from jotr_deploy.runtime.sessions import Session
from jotr_deploy.runtime.sources.images import read_image
from jotr_deploy.skeletons import JOTR15_IN_SMPL30, SMPL30_INDEX
from jotr_deploy.support.aliases import Array

SEED, INDEX = 2000, 241
OPTIONS = SceneOptions(size_px=(960, 720), people=(2, 2))
"""Options of the scene drawn by `scripts/draw_scene.py`."""

_JOINTS_SHARE = 0.1  # of the side of the crop; trained networks were at 0.02, untrained ones beyond 0.4
_TALL_M = (1.1, 2.2)
_HEAD_M = (0.08, 0.4)  # from nose to crown
_TRUNK_RAD = np.radians(60)
_POSE_MM = {
    True: 110.0,
    False: 180.0,
}  # limits with the scene's own body and with another; the starter was at 40, wrong parts beyond 200
_CHAIN = (("L_Ankle", "L_Knee"), ("L_Knee", "L_Hip"), ("Pelvis", "Neck"), ("Neck", "Head_top"))


@dataclass(frozen=True)
class Plausibility:
    """Errors of the worse of the two people in the scene."""

    joints_share: float  # of the joints found in the picture, mean distance over the side of the crop
    mesh_m: float | None = None  # longest side of the mesh; None, as all below, without a body
    tall_m: float | None = None  # ankle to crown, along the joints
    head_m: float | None = None  # nose to crown
    trunk_rad: float | None = None  # between the trunks
    pose_mm: float | None = None  # mean distance of the joints, rigidly aligned

    def notes(self, stand_in: bool) -> list[str]:
        """Notes on everything that looks wrong; empty if nothing does.

        Args:
            stand_in: the body is that of the scene.
        """
        seen = "in the picture inside this package"
        if not self.joints_share < _JOINTS_SHARE:
            return [
                f"the network looks untrained: {seen} its joints are {self.joints_share:.0%} of the crop's side from "
                "the true ones; its poses mean nothing"
            ]
        if self.mesh_m is None or self.tall_m is None or self.head_m is None:
            return []
        found = f"the network finds the joints {seen}, but"
        if not _TALL_M[0] < self.mesh_m < _TALL_M[1] + 0.3:
            return [f"the body looks like the wrong one: {found} its people are {self.mesh_m:.2g} m tall; give --body"]
        if not _TALL_M[0] < self.tall_m < _TALL_M[1]:
            return [
                f"body or regressor looks like the wrong one: {found} from ankle to crown the joints are "
                f"{self.tall_m:.2g} m apart in a mesh of {self.mesh_m:.2g} m; give --body"
            ]
        if not _HEAD_M[0] < self.head_m < _HEAD_M[1]:
            return [
                f"the extra regressor looks like the wrong one: {found} the crown is {self.head_m:.2g} m from the nose"
                "; give --extra-regressor J_regressor_extra.npy"
            ]
        if not (self.trunk_rad or 0) < _TRUNK_RAD:
            return [
                f"body or pose prior looks like the wrong one: {found} its people do not stand; give --body, --vposer"
            ]
        if not (self.pose_mm or 0) < _POSE_MM[stand_in]:
            return [
                f"pose prior or body looks like the wrong one: {found} the joints of its people are "
                f"{self.pose_mm:.0f} mm from the true ones; give --vposer, --body"
            ]
        return []


def plausibility(session: Session, config: ModelConfig) -> Plausibility:
    """Recover the two people of the scene with an exported network and compare them with the truth."""
    folder = resources.files("jotr_deploy.visual")
    with (
        resources.as_file(folder / "scene.jpg") as picture,
        resources.as_file(folder / "scene_keypoints.json") as joints,
    ):
        image_bgr = read_image(picture)
        people = read_keypoints(joints).for_image(picture.name)
    people = with_joint_boxes(people, OPTIONS.size_px, config.crop_factor)
    results = session(make_crops(image_bgr, people, config.crop_side).feeds)
    truth = bodies(draw_scene(SEED, INDEX, OPTIONS), np.arange(len(people)))
    return compared(results, people.boxes_px, truth)


def compared(results: dict[str, Array], boxes_px: Array, truth: Bodies) -> Plausibility:
    """Errors of a network's results against the truth.

    Args:
        results: outputs by name, for all people.
        boxes_px: (N, 4) crops x0 y0 x1 y1 that they come from.
        truth: the N people in the scene.
    """
    side_px = (boxes_px[:, 2] - boxes_px[:, 0])[:, None]
    found_px = results["joints_img"][..., :2] * side_px[..., None] + boxes_px[:, None, :2]
    away_px = np.linalg.norm(found_px - truth.joints_px[:, list(JOTR15_IN_SMPL30)], axis=-1)
    share = float((away_px / side_px).mean(1).max())
    if "vertices" not in results:
        return Plausibility(share)
    joints_m = results["joints3d"].astype(np.float64)
    true_m = (truth.joints_m - truth.joints_m[:, :1]).astype(np.float64)

    def between(joints: Array, first: str, last: str) -> Array:
        return joints[:, SMPL30_INDEX[last]] - joints[:, SMPL30_INDEX[first]]

    trunk, true_trunk = between(joints_m, "Pelvis", "Neck"), between(true_m, "Pelvis", "Neck")
    cosine = (trunk * true_trunk).sum(-1) / (
        np.linalg.norm(trunk, axis=-1) * np.linalg.norm(true_trunk, axis=-1) + 1e-9
    )
    gap_m = np.linalg.norm(aligned(joints_m, true_m) - true_m, axis=-1)
    return Plausibility(
        joints_share=share,
        mesh_m=_farthest(np.ptp(results["vertices"], axis=1).max(-1)),
        tall_m=_farthest(sum(np.linalg.norm(between(joints_m, *bone), axis=-1) for bone in _CHAIN)),
        head_m=_farthest(np.linalg.norm(between(joints_m, "Nose", "Head_top"), axis=-1), 0.2),
        trunk_rad=float(np.arccos(np.clip(cosine, -1, 1)).max()),
        pose_mm=float(1000 * gap_m.mean(-1).max()),
    )


def _farthest(lengths_m: Array, usual_m: float = 1.6) -> float:
    """Length that differs most from the expected one."""
    return float(lengths_m[np.argmax(np.abs(np.log(np.maximum(lengths_m, 1e-6) / usual_m)))])
