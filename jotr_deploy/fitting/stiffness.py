"""Scales of the variables of a fit: how far each is usually off in what JOTR gives."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from jotr_deploy.fitting.options import Stiffness

JOINTS = 19
"""Joints of the body that a fit moves: SMPL's 1 to 19."""
ROOT_RAD = 0.25
DEPTH = 0.1
"""Share of the depth."""
_RAD = {
    (1, 2): (0.4, 0.15, 0.1),  # hips
    (3, 6, 9): (0.08, 0.06, 0.04),  # spine
    (4, 5): (0.4, 0.03, 0.03),  # knees, about x
    (7, 8): (0.25, 0.03, 0.06),  # ankles
    (10, 11): (0.05, 0.02, 0.02),  # feet
    (12, 15): (0.1, 0.2, 0.06),  # neck and head
    (13, 14): (0.04, 0.1, 0.1),  # collars
    (16, 17): (0.8, 0.6, 0.4),  # shoulders
    (18, 19): (0.2, 0.6, 0.1),  # elbows, about y
}


def scales(stiffness: Stiffness) -> Tensor:
    """(20, 3) of root and body, radians; ones where all joints are equal."""
    values = np.ones((1 + JOINTS, 3))
    if stiffness == "by_joint":
        values[0] = ROOT_RAD
        for joints, turn in _RAD.items():
            values[list(joints)] = turn
    return torch.from_numpy(values)
