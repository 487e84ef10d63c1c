"""Joints as a network outputs them: their order, their confidence, and the removal of joints not found."""

from __future__ import annotations

import re

import numpy as np

from jotr_deploy.errors import BundleError, SessionError
from jotr_deploy.runtime.finding.network_metadata import declared
from jotr_deploy.runtime.sessions import Session
from jotr_deploy.skeletons import SKELETONS
from jotr_deploy.support.aliases import Array

WHOLE_BODY = 133  # joints of COCO-WholeBody; the first 17 are COCO's

_SKELETON_OF = {**{len(names): skeleton for skeleton, names in SKELETONS.items()}, WHOLE_BODY: "coco17"}


KNOWN_NUMBERS = frozenset(_SKELETON_OF)
"""Joint counts with a known joint order."""
_USUALLY = {
    16: " (as in MPII)",
    21: " (as for a hand)",
    68: " (as for a face)",
    98: " (as for a face)",
    106: " (as for a face)",
}
_AMBIGUOUS = {14: "in the order of CrowdPose, AI Challenger or LSP"}
"""Joint counts shared by several joint orders, the one in `SKELETONS` first."""
_ALIASES = {"head": "head_top", "top_of_head": "head_top", "top_head": "head_top", "hip": "pelvis", "mid_hip": "pelvis"}


def skeleton_of(session: Session, joints: int, named: str | None, role: str) -> str:
    """Key of `SKELETONS` for a network with this number of joints.

    The recipe's choice comes first, then the joint names in the file's metadata, then the number of joints. For whole
    bodies it is the skeleton of the body joints, which come first. `role` is that of the file, for messages.

    Raises:
        BundleError: no joint order is known for this number, or the one named is unknown or does not match.
        SessionError: the metadata declare a different number of joints, or joints in an unknown order.
    """
    said = declared(session)
    if said.keypoints is not None and said.keypoints[0] != joints:
        raise SessionError(
            f"{session.path}: its metadata declare {said.keypoints[0]} joints (kpt_shape), its outputs have {joints}",
            "export the network again: metadata and outputs do not match",
        )
    known = ", ".join(sorted(SKELETONS))
    skeleton = named or _by_names(session, said.joint_names, role) or _SKELETON_OF.get(joints)
    if skeleton is None:
        raise BundleError(
            f"{session.path}: {joints} joints{_USUALLY.get(joints, '')}, which match no known joint order",
            f"give a network with one of these skeletons: {known}",
        )
    if joints in _AMBIGUOUS and not named and said.joint_names is None:
        raise BundleError(
            f"{session.path}: {joints} joints, {_AMBIGUOUS[joints]}: the file does not say which",
            f"if it is the first, give --set {role}.skeleton={skeleton}; the others are not supported",
        )
    if skeleton not in SKELETONS:
        raise BundleError(f"{session.path}: recipe: unknown skeleton '{skeleton}'", f"known: {known}")
    if joints not in (len(SKELETONS[skeleton]), WHOLE_BODY if skeleton == "coco17" else None):
        raise BundleError(
            f"{session.path}: recipe: {skeleton} has {len(SKELETONS[skeleton])} joints, but the file has {joints}",
            "name the skeleton of the file, or leave skeleton out",
        )
    return skeleton


def _by_names(session: Session, joint_names: tuple[str, ...] | None, role: str) -> str | None:
    if joint_names is None:
        return None
    names = joint_names[:17] if len(joint_names) == WHOLE_BODY else joint_names
    plain = [_plain(name) for name in names]
    for skeleton, own in SKELETONS.items():
        if plain == [_plain(name) for name in own]:
            return skeleton
    raise SessionError(
        f"{session.path}: its joints are {', '.join(names[:6])}, ..., an unknown joint order",
        f"if it is one of {', '.join(sorted(SKELETONS))} under other names, name it: --set {role}.skeleton=NAME",
    )


def _plain(name: str) -> str:
    """Normalised spelling: `left shoulder`, `Left-Shoulder` and `L_Shoulder` become the same."""
    words = re.split(r"[\s_-]+", name.strip().lower())
    sides = {"left": "l", "right": "r"}
    plain = "_".join(sides.get(word, word) for word in words)
    return _ALIASES.get(plain, plain)


def as_confidence(scores: Array) -> Array:
    """Raw joint scores of any range clipped to confidences in 0..1; non-finite scores become 0."""
    return np.where(np.isfinite(scores), np.clip(scores, 0, 1), 0)


def joints_above(points: Array, confidence: Array, threshold: float) -> Array:
    """Points (N, J, 2), confidence (N, J) -> (N, J, 3) float32; joints not above the threshold are all zero.

    So are joints whose position is not finite.
    """
    found = np.concatenate([points, confidence[..., None]], -1).astype(np.float32)
    found[~(np.isfinite(found).all(-1) & (found[..., 2] > threshold))] = 0
    return found
