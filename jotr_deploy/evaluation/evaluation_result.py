"""Results of an evaluation, as values. Lengths in millimetres."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from jotr_deploy.evaluation.error_statistics import Errors, Figures
from jotr_deploy.evaluation.fit_stage import FitCounts
from jotr_deploy.evaluation.occlusion import Occlusion
from jotr_deploy.evaluation.visible_joints import VisibleJoints


@dataclass(frozen=True)
class Protocol:
    """Meaning of the figures, in words."""

    protocol: str
    scenes: str
    people: str
    joint_set: str
    regressor: str
    alignment: str
    box: str
    joints_given: str
    confidence: str
    occlusion: str
    pixels: str | None
    fit: str | None
    visible_joints: str | None
    seed: int
    scene_count: int


@dataclass(frozen=True)
class Found:
    """Recall and precision of boxes against those of the true people."""

    wanted: int  # people at least half visible and 64 px tall
    found_of_wanted: int
    recall: float | None
    detections: int
    right: int  # detections that match anybody
    precision: float | None


@dataclass(frozen=True)
class PixelResult:
    """People found by the bundle's own detector and pose network."""

    detector: Found | None  # its boxes, before joints remove false and duplicate ones; None for BlazePose
    people: Found
    errors: Errors  # of the counted people who were found
    same_people: Figures  # the same people, with true boxes and noisy joints


@dataclass(frozen=True)
class FileDrift:
    """One mesh file against the fp32 file, person by person."""

    name: str
    precision: str
    device: str
    mean_mm: float | None  # of each person's mean distance over the 30 joints, relative to the pelvis
    p95_mm: float | None
    parts_mm: Mapping[str, float | None]
    mpjpe_change_mm: float | None
    interval_mm: tuple[float, float] | None  # 95 %, paired bootstrap over people
    not_finite: int  # people whose joints or mesh hold a NaN or an infinity


@dataclass(frozen=True)
class Drift:
    """Every mesh file of a bundle."""

    reference: str
    people: int
    files: tuple[FileDrift, ...]
    not_run: Mapping[str, str]  # file -> reason


@dataclass(frozen=True)
class BeforeFit:
    """The start of the fit: the network's own output for the same people."""

    errors: Errors
    not_finite: int
    pixels: PixelResult | None
    drift: Drift | None
    visible_joints: VisibleJoints | None


@dataclass(frozen=True)
class Evaluation:
    """Everything `eval` prints."""

    bundle: str
    file: str
    precision: str
    device: str
    labels: tuple[str, ...]
    protocol: Protocol
    errors: Errors
    not_finite: int
    pixels: PixelResult | None
    drift: Drift | None
    occlusion: Occlusion | None = None
    fit: FitCounts | None = None  # of the people of `errors`, where a fit follows the network
    before_fit: BeforeFit | None = None
    visible_joints: VisibleJoints | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain
