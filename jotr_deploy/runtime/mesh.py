"""The mesh stage: crops in, `People` out."""

from __future__ import annotations

import numpy as np

from jotr_deploy.errors import BundleError
from jotr_deploy.geometry.camera import camera_from_box
from jotr_deploy.people import People
from jotr_deploy.runtime.crops import Crops
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.sessions import Session

MAX_BATCH = 16
"""Maximum number of people per call; a crowd takes several calls, so memory stays bounded."""


def require_mesh_network(session: Session) -> None:
    """Refuse a network that is not one of this project.

    Raises:
        BundleError: it does not have the inputs of a mesh network.
    """
    if not {"image", "joints", "joints_mask"} <= session.inputs.keys():
        raise BundleError(
            f"{session.path}: not a mesh network of this project (its inputs: {', '.join(session.inputs)})",
            "export it again: jotr-deploy export CHECKPOINT -o BUNDLE",
        )


class MeshNetwork:
    """A mesh file in any engine.

    Raises:
        BundleError: the file was exported without a body and makes no meshes, or is not a mesh network.
    """

    def __init__(self, session: Session) -> None:
        require_mesh_network(session)
        if "vertices" not in session.outputs:
            raise BundleError(
                f"{session.path}: exported with --no-body, it makes no meshes", "export it again without --no-body"
            )
        self.session = session
        self.crop_side = int(session.inputs["image"].shape[-1])

    def __call__(self, crops: Crops, detections: Detections) -> People:
        """Recover every person in one frame: N crops of the N detections, in one call up to `MAX_BATCH`."""
        if not len(crops):
            return People.none()
        chunks = [slice(start, start + MAX_BATCH) for start in range(0, len(crops), MAX_BATCH)]
        parts = [self.session({name: feed[chunk] for name, feed in crops.feeds.items()}) for chunk in chunks]
        out = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        focal_px, principal_px = camera_from_box(crops.boxes_px)
        return People(
            boxes_px=crops.boxes_px,
            scores=detections.scores,
            track_ids=detections.track_ids,
            keypoints_px=detections.keypoints_px,
            joints_used=crops.joints_mask.sum(1),
            joints_img=out["joints_img"],
            pose_rad=out["pose"],
            betas=out["betas"],
            cam=out["cam"],
            translation_m=out["translation"],
            focal_px=focal_px,
            principal_px=principal_px,
            joints_m=out["joints3d"],
            vertices_m=out["vertices"],
        )
