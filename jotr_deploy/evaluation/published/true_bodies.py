"""True meshes of people, from SMPL of their gender."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from jotr_deploy.body.numpy_skinning import PosedBody
from jotr_deploy.body.smpl import load_body, official_file
from jotr_deploy.datasets.published.annotation import Annotation
from jotr_deploy.evaluation.measured_people import Truth
from jotr_deploy.support.aliases import Array


class TrueBodies:
    """Bodies for the ground truth of a set. All joints come from the neutral body's regressor.

    Args:
        folder: contains SMPL's files under their official names.
        genders: of the people; the neutral body is read in any case.

    Raises:
        BodyFileError: a file is missing or cannot be read.
    """

    def __init__(self, folder: Path, genders: Iterable[str]) -> None:
        wanted = sorted({"neutral", *genders})
        self._bodies = {gender: PosedBody(load_body(official_file(folder, gender))) for gender in wanted}
        neutral = self._bodies["neutral"].body
        self.stand_in = neutral.stand_in
        self._regressor_30 = neutral.regressor_30().astype(np.float64)

    def truth(self, people: Sequence[Annotation]) -> Truth:
        """N people, each with a fit, in the camera's frame relative to the pelvis of the 30-joint set.

        Their visibility is not known.
        """
        vertices_m = np.stack([np.zeros((6890, 3)), *map(self._vertices_m, people)])[1:]
        joints_m = self._regressor_30 @ vertices_m
        pelvis_m = joints_m[:, :1]
        count = len(people)
        return Truth(joints_m - pelvis_m, vertices_m - pelvis_m, np.ones((count, 30), bool), np.ones(count))

    def joints_px(self, people: Sequence[Annotation], rows: Array | None = None) -> Array:
        """(N, J, 2) joints in the picture of N people with a fit and a camera, hidden or not; NaN behind the camera.

        `rows` (J, 6890) regress them from a mesh; by default those of the 30-joint set.
        """
        rows = self._regressor_30 if rows is None else rows
        out = np.full((len(people), len(rows), 2), np.nan)
        for own_px, person in zip(out, people, strict=True):
            camera = person.camera
            assert camera is not None, person.key
            joints_m = rows @ self._vertices_m(person)
            ahead = joints_m[:, 2] > 0
            own_px[ahead] = joints_m[ahead, :2] / joints_m[ahead, 2:] * camera.focal_px + camera.principal_px
        return out

    def _vertices_m(self, person: Annotation) -> Array:
        fit = person.fit
        assert fit is not None, person.key
        (vertices_m,) = self._bodies[fit.gender](fit.pose_rad[None], fit.betas[None])
        return fit.in_camera(vertices_m.astype(np.float64) + fit.trans_m)
