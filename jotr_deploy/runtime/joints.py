"""What every network that finds joints has to say: their order, their confidence, and which it did not find."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from jotr_deploy.errors import BundleError
from jotr_deploy.runtime.sessions import Session
from jotr_deploy.skeletons import SKELETONS

Array = NDArray[Any]

WHOLE_BODY = 133  # joints of COCO-WholeBody; the first 17 are COCO's

_SKELETON_OF = {**{len(names): skeleton for skeleton, names in SKELETONS.items()}, WHOLE_BODY: "coco17"}


def skeleton_of(session: Session, joints: int, named: str | None) -> str:
    """The key of `SKELETONS` for a network of so many joints: the one that its recipe names, else by their number.

    Of a whole body it is that of the joints that come first.

    Raises:
        BundleError: no order of so many joints is known, or the one named is unknown or has another number.
    """
    known = ", ".join(sorted(SKELETONS))
    skeleton = named or _SKELETON_OF.get(joints)
    if skeleton is None:
        raise BundleError(f"{session.path}: {joints} joints, an order of so many is not known", f"known: {known}")
    if skeleton not in SKELETONS:
        raise BundleError(f"{session.path}: recipe: unknown skeleton '{skeleton}'", f"known: {known}")
    if joints not in (len(SKELETONS[skeleton]), WHOLE_BODY if skeleton == "coco17" else None):
        raise BundleError(
            f"{session.path}: recipe: {skeleton} has {len(SKELETONS[skeleton])} joints, the file {joints}",
            "name the skeleton of the file, or none",
        )
    return skeleton


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
