"""What every detector does, whatever its format."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from jotr_deploy.runtime.formats import Format

Array = NDArray[Any]

FindsPeople = Callable[[Array], tuple[Array, Array]]
"""What is called as a `Detector` is, whether there is a network behind it or not."""


class Detector(Format):
    """Finds people in a picture; the score threshold of its recipe is applied, duplicates are gone."""

    @abstractmethod
    def __call__(self, image_bgr: Array) -> tuple[Array, Array]:
        """The people of one picture, best first.

        Args:
            image_bgr: (H, W, 3) uint8.

        Returns:
            boxes_px (N, 4) float32 x0 y0 x1 y1 within the picture, pixel centres at integer coordinates, so that
            the whole picture is -0.5 -0.5 W-0.5 H-0.5; and scores (N,) float32 in 0..1. N may be 0.
        """
