"""What every network that finds joints has to say: their order, their confidence, and which it did not find."""

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
"""Numbers of joints of which an order is known."""
_USUALLY = {
    16: " (as of MPII)",
    21: " (as of a hand)",
    68: " (as of a face)",
    98: " (as of a face)",
    106: " (as of a face)",
}
_AMBIGUOUS = {14: "in the order of CrowdPose, of AI Challenger or of LSP"}
"""Numbers of joints that several orders have, the one of `SKELETONS` first."""
_ALIASES = {"head": "head_top", "top_of_head": "head_top", "top_head": "head_top", "hip": "pelvis", "mid_hip": "pelvis"}


def skeleton_of(session: Session, joints: int, named: str | None, role: str) -> str:
    """The key of `SKELETONS` for a network of so many joints.

    It is the one that the recipe names, else the one with the names in the file's metadata, else the one of so many
    joints. Of a whole body it is that of the joints that come first. `role` is that of the file, for messages.

    Raises:
        BundleError: no order of so many joints is known, or the one named is unknown or has another number.
        SessionError: the metadata tell of another number of joints, or of joints in an order that is not known.
    """
    said = declared(session)
    if said.keypoints is not None and said.keypoints[0] != joints:
        raise SessionError(
            f"{session.path}: its metadata say {said.keypoints[0]} joints (kpt_shape), its outputs have {joints}",
            "export the network again: metadata and outputs do not belong together",
        )
    known = ", ".join(sorted(SKELETONS))
    skeleton = named or _by_names(session, said.joint_names, role) or _SKELETON_OF.get(joints)
    if skeleton is None:
        raise BundleError(
            f"{session.path}: {joints} joints{_USUALLY.get(joints, '')}, an order of so many is not known",
            f"give a network with the joints of one of {known}",
        )
    if joints in _AMBIGUOUS and not named and said.joint_names is None:
        raise BundleError(
            f"{session.path}: {joints} joints, {_AMBIGUOUS[joints]}: the file does not say which",
            f"if it is the first, say so: --set {role}.skeleton={skeleton}; the others are not read",
        )
    if skeleton not in SKELETONS:
        raise BundleError(f"{session.path}: recipe: unknown skeleton '{skeleton}'", f"known: {known}")
    if joints not in (len(SKELETONS[skeleton]), WHOLE_BODY if skeleton == "coco17" else None):
        raise BundleError(
            f"{session.path}: recipe: {skeleton} has {len(SKELETONS[skeleton])} joints, the file {joints}",
            "name the skeleton of the file, or none",
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
        f"{session.path}: its joints are {', '.join(names[:6])}, ..., an order that is not known",
        f"if it is one of {', '.join(sorted(SKELETONS))} under other names, say so: --set {role}.skeleton=NAME",
    )


def _plain(name: str) -> str:
    """One spelling: `left shoulder`, `Left-Shoulder` and `L_Shoulder` are the same."""
    words = re.split(r"[\s_-]+", name.strip().lower())
    sides = {"left": "l", "right": "r"}
    plain = "_".join(sides.get(word, word) for word in words)
    return _ALIASES.get(plain, plain)


def as_confidence(heights: Array) -> Array:
    """Whatever numbers a network is sure with -> 0..1; what is not finite has no confidence."""
    return np.where(np.isfinite(heights), np.clip(heights, 0, 1), 0)


def joints_above(points: Array, confidence: Array, threshold: float) -> Array:
    """Points (N, J, 2), confidence (N, J) -> (N, J, 3) float32, all zero where it is not above the threshold.

    So are joints at places that are no numbers.
    """
    found = np.concatenate([points, confidence[..., None]], -1).astype(np.float32)
    found[~(np.isfinite(found).all(-1) & (found[..., 2] > threshold))] = 0
    return found
