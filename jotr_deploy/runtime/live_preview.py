"""Frames of a run for a viewer who watches while it goes on."""

from __future__ import annotations

from typing import Protocol

from jotr_deploy.people import People
from jotr_deploy.runtime.sources.frame_source import size_of
from jotr_deploy.support.aliases import Array
from jotr_deploy.visual.overlay import draw_people, scaled_down

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
    return draw_people(image_bgr, people, faces, caption=caption, scale=_scale(image_bgr))


def smaller(image_bgr: Array) -> Array:
    """A picture (H, W, 3), scaled down if it is larger than `LONGER_SIDE_PX`."""
    return scaled_down(image_bgr, _scale(image_bgr))


def _scale(image_bgr: Array) -> float:
    return min(1.0, LONGER_SIDE_PX / max(size_of(image_bgr)))
