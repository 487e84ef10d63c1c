"""Frames of a run for a viewer who watches while it goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np

from jotr_deploy.people import People
from jotr_deploy.runtime.sources.frame_source import size_of
from jotr_deploy.support.aliases import Array
from jotr_deploy.visual.overlay import draw_people

LONGER_SIDE_PX = 960
"""Longer side of the pictures shown; a larger one takes longer to draw than its people take to recover."""


class Watcher(Protocol):
    """A viewer that is shown pictures while a run goes on."""

    @property
    def watched(self) -> bool:
        """True if a picture would be seen; otherwise none is drawn."""
        ...

    def show(self, picture_bgr: Array) -> None:
        """Show the next picture (H, W, 3) uint8."""
        ...


def small_overlay(image_bgr: Array, people: People, faces: Array, caption: str | None) -> Array:
    """People drawn over a picture (H, W, 3) as by `draw_people`, scaled to at most `LONGER_SIDE_PX`."""
    small_bgr = smaller(image_bgr)
    share = np.divide(size_of(small_bgr), size_of(image_bgr))
    principal_px = (people.principal_px + 0.5) * share - 0.5  # pixel centres have integer coordinates
    seen = replace(people, focal_px=people.focal_px * np.sqrt(share.prod()), principal_px=principal_px)
    return draw_people(np.asarray(small_bgr, np.uint8), seen, faces, caption=caption)


def smaller(image_bgr: Array) -> Array:
    """A picture (H, W, 3), scaled down if it is larger than `LONGER_SIDE_PX`."""
    import cv2

    share = min(1.0, LONGER_SIDE_PX / max(size_of(image_bgr)))
    if share == 1:
        return image_bgr
    width, height = (max(1, round(side * share)) for side in size_of(image_bgr))
    return np.asarray(cv2.resize(image_bgr, (width, height), interpolation=cv2.INTER_AREA))
