"""Pictures of a set, read on demand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from jotr_deploy.datasets.published.annotation import Annotation
from jotr_deploy.errors import DatasetError
from jotr_deploy.support.aliases import Array

SIZE_NOT_SAID = (0, 0)
"""Marker for a size that the set does not give; it is then read from the picture."""


def read_picture(person: Annotation) -> Array:
    """Read the picture of a person: (H, W, 3) uint8 BGR, EXIF rotation ignored.

    Raises:
        DatasetError: no such file, not an image, or of another size than in the set.
    """
    image = _read(person.image)
    size_px = (image.shape[1], image.shape[0])
    if size_px != person.size_px:
        raise DatasetError(
            f"{person.image}: {size_px[0]} x {size_px[1]} px, the annotations are for {person.size_px[0]} x "
            f"{person.size_px[1]} px",
            "take the pictures as the set has them, not scaled",
        )
    return image


def size_of_picture(path: Path) -> tuple[int, int]:
    """Width and height of a picture.

    Raises:
        DatasetError: see `read_picture`.
    """
    height, width = _read(path).shape[:2]
    return width, height


def _read(path: Path) -> Array:
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DatasetError(
            f"{path}: cannot be read ({error.strerror})", "put the pictures of the set where docs/datasets.md says"
        ) from error
    try:
        as_stored = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        image: Array | None = cv2.imdecode(data, as_stored) if data.size else None
    except cv2.error:  # a header that declares too many pixels
        image = None
    if image is None:
        raise DatasetError(f"{path}: no image that can be decoded", "get the picture again")
    return image
