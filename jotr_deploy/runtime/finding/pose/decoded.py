"""RTMPose exported with the decoding inside: `keypoints` [B, K, 2] in input pixels and `scores` [B, K].

Input as `TopDown` has it; pixel centres are at integers, as in `simcc`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jotr_deploy.runtime.finding import recognition
from jotr_deploy.runtime.finding.joint_outputs import as_confidence
from jotr_deploy.runtime.finding.pose.top_down_network import TopDown
from jotr_deploy.runtime.sessions import Session
from jotr_deploy.support.aliases import Array

_LARGEST_SHARE = 2.0  # joints may lie beyond the input


class Decoded(TopDown):
    """See the module and `PoseNetwork`."""

    name = "decoded"

    @staticmethod
    def fits(session: Session) -> bool:
        """One image in; `keypoints` and `scores` out, of one number of joints."""
        if recognition.image_size_px(session) is None or set(session.outputs) != {"keypoints", "scores"}:
            return False
        keypoints, scores = (session.outputs[name].shape[1:] for name in ("keypoints", "scores"))
        return len(keypoints) == 2 and isinstance(keypoints[0], int) and keypoints == (*scores, 2)

    def oddity(self, outputs: Mapping[str, Array]) -> str | None:
        """See `Format`."""
        if np.abs(outputs["keypoints"]).max(initial=0) <= _LARGEST_SHARE and (outputs["scores"] > 0).any():
            return "its joints are shares of its input, not pixels"
        return None

    def points(self, outputs: Mapping[str, Array]) -> tuple[Array, Array]:
        """See `TopDown`."""
        return outputs["keypoints"], as_confidence(outputs["scores"])
