"""Prediction of each person's next ROI in a video, from the last joints, smoothed as in the original.

A One-Euro filter (Casiez, Roussel and Vogel 2012) smooths each coordinate of an ROI. Without it the crop jitters with
the joints, and the joints with the crop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from jotr_deploy.runtime.finding.blazepose.rotated_crops import radii_px
from jotr_deploy.support.aliases import Array

STEP_S = 1 / 30
"""Time step between frames; the original's Python package assumes it whatever the video's frame rate."""
LEAST_HZ, HZ_PER_SPEED, SPEED_HZ = 0.01, 10.0, 1.0
"""Cut-off at rest; its growth with speed, in person diameters per second; cut-off of the speed itself."""


@dataclass(frozen=True)
class Steady:
    """Filters of N people, as parallel arrays; N may be 0."""

    rois_px: Array  # (N, 2, 2) smoothed
    raw_px: Array  # (N, 2, 2) as last measured
    speed: Array  # (N, 2, 2) smoothed, in diameters a second

    def __len__(self) -> int:
        return len(self.rois_px)

    def __getitem__(self, chosen: Array) -> Steady:
        return Steady(self.rois_px[chosen], self.raw_px[chosen], self.speed[chosen])

    @classmethod
    def start(cls, rois_px: Array) -> Steady:
        """Filters of people seen for the first time, at ROIs (N, 2, 2)."""
        return cls(rois_px, rois_px, np.zeros_like(rois_px))

    @classmethod
    def joined(cls, *parts: Steady) -> Steady:
        """Concatenation of several."""
        arrays = ([getattr(part, name) for part in parts] for name in ("rois_px", "raw_px", "speed"))
        return cls(*map(np.concatenate, arrays))

    def next(self, rois_px: Array) -> Steady:
        """Filters one frame later, given the measured ROIs (N, 2, 2)."""
        diameters = np.maximum(2 * radii_px(rois_px), 1e-6)[:, None, None]
        measured = (rois_px - self.raw_px) / diameters / STEP_S
        speed = self.speed + _share(SPEED_HZ) * (measured - self.speed)
        smooth = self.rois_px + _share(LEAST_HZ + HZ_PER_SPEED * np.abs(speed)) * (rois_px - self.rois_px)
        return Steady(smooth, rois_px, speed)


def _share(cutoff_hz: Any) -> Any:
    """Weight of the new value in a low-pass filter of one step."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff_hz * STEP_S))
