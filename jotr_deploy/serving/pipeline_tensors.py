"""The whole pipeline as a model with tensors: its inputs and outputs, in our server and in Triton."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jotr_deploy.errors import SourceError
from jotr_deploy.people import LAYOUT, People
from jotr_deploy.runtime.finding.given_people import checked_image
from jotr_deploy.serving.inference_protocol import BYTES, datatype_of
from jotr_deploy.serving.refusals import Refused
from jotr_deploy.support.aliases import Array

PEOPLE = "people"
VERSION = "1"
INPUTS: list[dict[str, Any]] = [
    {"name": "image", "datatype": BYTES, "shape": [1]},
    {"name": "image_bgr", "datatype": "UINT8", "shape": [-1, -1, 3]},
    {"name": "boxes", "datatype": "FP32", "shape": [-1, 4]},
]
"""One of the first two, the file of a picture or its pixels, and the boxes of its people if they are known."""
OUTPUTS: list[dict[str, Any]] = [
    *({"name": name, "datatype": datatype_of(np.dtype(dtype)), "shape": [-1, *shape]}
      for name, (shape, dtype) in LAYOUT.items()),
    {"name": "faces", "datatype": "INT32", "shape": [-1, 3]},
]  # fmt: skip
"""The fields of `People`, N rows each, and the triangles of the meshes."""


@dataclass(frozen=True)
class PipelineInputs:
    """Checked inputs of the pipeline."""

    image_bgr: Array  # (H, W, 3) uint8
    data: bytes | None  # file of the picture, if that was given
    boxes_px: Array | None  # (N, 4)


def read_inputs(
    given: Mapping[str, Array], decoded: Callable[[bytes], Array], max_pixels: int, max_people: int
) -> PipelineInputs:
    """Check the tensors of a client.

    Args:
        given: by name; object arrays hold `bytes`.
        decoded: makes a picture of the content of its file.
        max_pixels: limit for pixels.
        max_people: limit for boxes.

    Raises:
        Refused: with status 400, or 413 for too many pixels.
        Exception: what `decoded` raises.
    """
    if given.keys() - {each["name"] for each in INPUTS} or ("image" in given) == ("image_bgr" in given):
        raise Refused(
            400,
            f"the inputs are {', '.join(sorted(map(repr, given)))[:200]}",
            "give one of image (BYTES [1]) and image_bgr (UINT8 [H,W,3]), and boxes (FP32 [N,4]) if they are known",
        )
    boxes_px = given.get("boxes")
    if boxes_px is not None and (boxes_px.dtype.kind != "f" or boxes_px.ndim != 2 or len(boxes_px) > max_people):
        cause = f"boxes are {boxes_px.dtype} {list(boxes_px.shape)}"
        raise Refused(400, cause, f"give FP32 [N,4], N up to {max_people}")
    if "image_bgr" in given:
        return PipelineInputs(_pixels(given["image_bgr"], max_pixels), None, boxes_px)
    data = _file_of(given["image"])
    return PipelineInputs(decoded(data), data, boxes_px)


def outputs(people: People, faces: Array) -> dict[str, Array]:
    """The outputs by name."""
    return {**{name: getattr(people, name) for name in LAYOUT}, "faces": faces}


def _pixels(image_bgr: Array, max_pixels: int) -> Array:
    try:
        image_bgr = checked_image(image_bgr)
    except SourceError as error:
        raise Refused(400, error.cause, "give image_bgr as UINT8 [H,W,3] in BGR order") from None
    if image_bgr.shape[0] * image_bgr.shape[1] > max_pixels:
        raise Refused(413, "the picture has too many pixels", "make it smaller")
    return image_bgr


def _file_of(image: Array) -> bytes:
    if image.dtype != object or image.shape not in ((1,), (1, 1)):
        raise Refused(400, f"image is {list(image.shape)}", "give the file of one picture: BYTES [1], as binary data")
    return bytes(image.reshape(-1)[0])
