"""RTMPose exported with decoding included: `keypoints` [B, K, 2] in input pixels and `scores` [B, K].

Input as in `TopDown`; pixel centres are at integers, as in `simcc`.
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
    """RTMPose with decoding included."""

    name = "decoded"

    @staticmethod
    def fits(session: Session) -> bool:
        """Accept one image as input, and outputs `keypoints` and `scores` for the same number of joints."""
        if recognition.image_size_px(session) is None or set(session.outputs) != {"keypoints", "scores"}:
            return False
        keypoints, scores = (session.outputs[name].shape[1:] for name in ("keypoints", "scores"))
        return len(keypoints) == 2 and isinstance(keypoints[0], int) and keypoints == (*scores, 2)

    def oddity(self, outputs: Mapping[str, Array]) -> str | None:
        """Reason that the joints are not in pixels, if they are not."""
        if np.abs(outputs["keypoints"]).max(initial=0) <= _LARGEST_SHARE and (outputs["scores"] > 0).any():
            return "its joints are fractions of its input, not pixels"
        return None

    def points(self, outputs: Mapping[str, Array]) -> tuple[Array, Array]:
        """The keypoints and their scores, as they are."""
        return outputs["keypoints"], as_confidence(outputs["scores"])
