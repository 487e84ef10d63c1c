"""Made poses, and networks that see made people: those of a frame, each a circle, and no pixels."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from jotr_deploy.runtime.finding.blazepose.landmarks import BODY, POINTS, Poses
from jotr_deploy.runtime.finding.blazepose.person_detector import Found
from jotr_deploy.runtime.finding.blazepose.rotated_crops import radii_px
from jotr_deploy.runtime.finding.blazepose.windows import Window
from jotr_deploy.support.aliases import Array

Circle = tuple[float, float, float]
"""x, y and radius of somebody."""


def poses(*places: Circle, flag: float = 1.0) -> Poses:
    """Somebody at each circle: joints on an ellipse, half as wide as tall."""
    angle = np.linspace(0, 2 * np.pi, BODY, endpoint=False)
    points = np.zeros((len(places), POINTS, 2))
    for one, (x, y, radius) in zip(points, places, strict=True):
        one[:BODY] = np.stack([x + radius / 2 * np.sin(angle), y - radius * np.cos(angle)], -1)
        one[BODY:] = [x, y]
        one[BODY + 1, 1] -= radius
    return Poses(points, np.ones((len(places), POINTS)), np.full(len(places), flag))


@dataclass
class World:
    """Both networks of `BlazePose`: they see whoever is `there`, and keep what they were asked."""

    there: list[Circle] = field(default_factory=list)
    flag: float = 1.0  # of everybody who is there
    score: float = 0.9
    ghosts: list[Circle] = field(default_factory=list)  # found by the detector, and nobody at a closer look
    windows: list[Window] = field(default_factory=list)  # of the last frame
    looks: list[Array] = field(default_factory=list)  # ROIs (N, 2, 2) of every call of the landmark network

    def detector(self, image_bgr: Array, windows: list[Window]) -> Found:
        """Everybody whose whole circle is in a window and at least an eighth of it."""
        self.windows = windows
        scored = [(0.95, each) for each in self.ghosts] + [(self.score, each) for each in self.there]
        found = [
            Found(np.array([score]), poses(each).rois_px)
            for window in windows
            for score, each in scored
            if _within(each, window)
        ]
        return Found.joined(*found)

    def landmarks(self, image_bgr: Array, rois_px: Array) -> Poses:
        """The nearest person whose middle is within half a radius of each ROI's; who looks elsewhere sees nobody."""
        self.looks.append(rois_px)
        seen = [Poses.joined()]
        for (middle, _), radius in zip(rois_px, radii_px(rois_px), strict=True):
            near = [each for each in self.there if np.hypot(*(middle - each[:2])) < radius / 2]
            near = [each for each in near if tuple(middle) not in [ghost[:2] for ghost in self.ghosts]]
            near.sort(key=lambda each, middle=middle: float(np.hypot(*(middle - each[:2]))))
            seen.append(poses(near[0], flag=self.flag) if near else poses((*middle, radius), flag=0.0))
        return Poses.joined(*seen)


def _within(circle: Circle, window: Window) -> bool:
    x, y, radius = circle
    inside = window.x_px <= x - radius and x + radius <= window.x_px + window.width_px
    inside &= window.y_px <= y - radius and y + radius <= window.y_px + window.height_px
    return inside and 2 * radius >= max(window.width_px, window.height_px) / 8
