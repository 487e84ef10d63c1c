"""RTMPose: two one-dimensional distributions a joint (SimCC).

Input [B, 3, H, W] RGB, normalised by ImageNet's mean and deviation in 0..255; outputs `simcc_x` [B, K, W r] and
`simcc_y` [B, K, H r] with the split ratio r. Bin b is the input pixel coordinate b / r, pixel centres at integers:
bin 0 is the centre of the first pixel, and half a pixel is added nowhere.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from jotr_deploy.errors import BundleError
from jotr_deploy.runtime import formats
from jotr_deploy.runtime.pose.contract import PoseNetwork
from jotr_deploy.runtime.pose.top_down import cut, image_from_input, input_from_image
from jotr_deploy.runtime.sessions import Session
from jotr_deploy.skeletons import SKELETONS

Array = NDArray[Any]

MEAN_RGB = np.array([123.675, 116.28, 103.53], np.float32)
DEVIATION_RGB = np.array([58.395, 57.12, 57.375], np.float32)
WHOLE_BODY = 133  # joints of COCO-WholeBody; the first 17 are COCO's

_SKELETON_OF = {**{len(names): skeleton for skeleton, names in SKELETONS.items()}, WHOLE_BODY: "coco17"}


class Recipe(formats.Recipe):
    """See `formats.Recipe`."""

    threshold: Annotated[float, Field(ge=0, le=1)] = 0.3
    """A joint's confidence is above it; it belongs to the network, whose confidences have a scale of their own."""
    skeleton: str | None = None
    """The order of the joints; by default their number tells it."""


class SimCC(PoseNetwork):
    """See the module and `PoseNetwork`."""

    name = "simcc"
    recipe = Recipe

    def __init__(self, session: Session, recipe: Recipe) -> None:
        size_px = formats.image_size_px(session)
        if size_px is None:
            raise ValueError("the session does not fit; ask `fits` first")
        self.session, self.options, self.size_px = session, recipe, size_px
        self.skeleton = _skeleton(session, recipe.skeleton)
        self.split_ratio = float(session.outputs["simcc_x"].shape[-1]) / size_px[0]

    @staticmethod
    def fits(session: Session) -> bool:
        """One image in; `simcc_x` and `simcc_y` out, of one split ratio."""
        size_px = formats.image_size_px(session)
        if size_px is None or set(session.outputs) != {"simcc_x", "simcc_y"}:
            return False
        x, y = (session.outputs[name].shape for name in ("simcc_x", "simcc_y"))
        if len(x) != 3 or len(y) != 3 or not all(isinstance(size, int) for size in (*x[1:], *y[1:])):
            return False
        return x[1] == y[1] and int(x[2]) * size_px[1] == int(y[2]) * size_px[0] >= size_px[0] * size_px[1]

    def __call__(self, image_bgr: Array, boxes_px: Array) -> Array:
        """See `PoseNetwork`."""
        joints = len(SKELETONS[self.skeleton])
        if not len(boxes_px):
            return np.zeros((0, joints, 3), np.float32)
        affines = input_from_image(boxes_px, self.size_px)
        inputs_bgr = np.stack([cut(image_bgr, affine, self.size_px) for affine in affines])
        out = formats.in_batches(self.session, normalised(inputs_bgr))
        points, confidence = decode(out["simcc_x"][:, :joints], out["simcc_y"][:, :joints], self.split_ratio)
        found = np.concatenate([image_from_input(affines, points), confidence[..., None]], -1).astype(np.float32)
        found[~(found[..., 2] > self.options.threshold)] = 0
        return found


def normalised(inputs_bgr: Array) -> Array:
    """(N, H, W, 3) uint8 BGR -> (N, 3, H, W) float32 RGB by ImageNet's mean and deviation."""
    rgb = (inputs_bgr[..., ::-1].astype(np.float32) - MEAN_RGB) / DEVIATION_RGB
    return rgb.transpose(0, 3, 1, 2)


def decode(simcc_x: Array, simcc_y: Array, split_ratio: float) -> tuple[Array, Array]:
    """(N, J, bins) each -> points (N, J, 2) in input pixels, confidence (N, J) in 0..1.

    The place is that of the highest bin, the confidence the lower of both heights. A joint with a number that is not
    finite has no confidence.
    """
    points = np.stack([simcc_x.argmax(-1), simcc_y.argmax(-1)], -1) / split_ratio
    heights = np.stack([simcc_x.max(-1), simcc_y.max(-1)]).astype(np.float32)
    return points, np.where(np.isfinite(heights).all(0), np.clip(heights.min(0), 0, 1), 0)


def _skeleton(session: Session, named: str | None) -> str:
    joints = session.outputs["simcc_x"].shape[1]
    known = ", ".join(sorted(SKELETONS))
    skeleton = named or _SKELETON_OF.get(int(joints))
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
