"""Held-out people of drawn scenes, given to the mesh network as `eval` gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jotr_deploy.evaluation.held_out_scenes import held_out
from jotr_deploy.evaluation.measured_joints import EVALUATED_IN_SMPL30
from jotr_deploy.evaluation.metrics import mpjpe_mm, pa_mpjpe_mm
from jotr_deploy.runtime.crops import make_crops
from jotr_deploy.support.aliases import Array
from jotr_deploy.training.held_out import Figure

JOINTS: Mapping[str, Figure] = {"mpjpe_mm": Figure("MPJPE", "mm"), "pa_mpjpe_mm": Figure("PA-MPJPE", "mm")}
"""Figures of `joint_errors`."""
EVALUATED = list(EVALUATED_IN_SMPL30)
"""The evaluated joints in the 30-joint set."""


@dataclass(frozen=True)
class HeldOutPeople:
    """People who count in the scenes of `seed`: true boxes, noisy joints, and their evaluated joints."""

    seed: int
    crop_side: int  # pixels
    crop_factor: float  # see `square_box`

    def __call__(self, indices: Sequence[int]) -> dict[str, Array]:
        """People of these scenes, none perhaps.

        Returns:
            image (N, 3, S, S) RGB 0..1, joints (N, 30, 2) and joints_mask (N, 30) as the network takes them; true_m
            (N, 14, 3) metres relative to the pelvis. float32.
        """
        parts = [self._people(index) for index in indices]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _people(self, index: int) -> dict[str, Array]:
        scene = held_out(self.seed, index, self.crop_factor)
        crops = make_crops(scene.image_bgr, scene.given[scene.counted], self.crop_side)
        true_m = scene.truth.joints_m[scene.counted][:, EVALUATED]
        return {**crops.feeds, "true_m": true_m.astype(np.float32)}


def joint_errors(rows: Mapping[str, Array], found: str = "found_m", true: str = "true_m") -> dict[str, float]:
    """Mean MPJPE and PA-MPJPE of people by (N, 14, 3) joints found and true, metres relative to the pelvis."""
    measures: Mapping[str, Callable[[Array, Array], Array]] = {"mpjpe_mm": mpjpe_mm, "pa_mpjpe_mm": pa_mpjpe_mm}
    return {name: float(measure(rows[found], rows[true]).mean()) for name, measure in measures.items()}
