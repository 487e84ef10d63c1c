"""What an evaluation found, as values. Lengths in millimetres, rounded so that the last bits of a run do not print."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jotr_deploy.evaluation.joints import EVALUATED
from jotr_deploy.evaluation.samples import Samples

if TYPE_CHECKING:
    from jotr_deploy.evaluation.occlusion import Occlusion

Array = NDArray[Any]

HARDLY_OCCLUDED = 0.9
"""From this visible fraction of the silhouette on a person counts as hardly occluded."""


@dataclass(frozen=True)
class Protocol:
    """What the figures mean, in plain words."""

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
    seed: int
    scene_count: int


@dataclass(frozen=True)
class Figures:
    """Of some people; None where there is nobody, or where a network's numbers are not finite."""

    people: int
    mpjpe_mm: float | None
    pa_mpjpe_mm: float | None
    pve_mm: float | None

    @classmethod
    def of(cls, samples: Samples) -> Figures:
        """Each person's mean, then the mean over people."""
        errors = (samples.joints_mm.mean(1), samples.aligned_mm.mean(1), samples.vertices_mm)
        return cls(len(samples), *(mean(error) for error in errors))


@dataclass(frozen=True)
class JointFigures:
    """Of one joint, or of all: over people who show it, and over people of whom it is hidden."""

    visible: int
    visible_mpjpe_mm: float | None
    visible_pa_mpjpe_mm: float | None
    hidden: int
    hidden_mpjpe_mm: float | None
    hidden_pa_mpjpe_mm: float | None

    @classmethod
    def of(cls, joints_mm: Array, aligned_mm: Array, visible: Array) -> JointFigures:
        """Parallel arrays of any shape; `aligned_mm` is of the alignment of whole people."""
        parts: list[Any] = []
        for chosen in (visible, ~visible):
            parts += [int(chosen.sum()), mean(joints_mm[chosen]), mean(aligned_mm[chosen])]
        return cls(*parts)


@dataclass(frozen=True)
class Errors:
    """Of one network on one set of people."""

    people: Mapping[str, Figures]
    joints: Mapping[str, JointFigures]

    @classmethod
    def of(cls, samples: Samples) -> Errors:
        """All that is said of a set of people."""
        free = samples.visible_fraction >= HARDLY_OCCLUDED
        people = {"all": samples, "hardly occluded": samples[free], "occluded": samples[~free]}
        joints = {"all": JointFigures.of(samples.joints_mm, samples.aligned_mm, samples.visible)}
        for place, name in enumerate(EVALUATED):
            one = (array[:, place] for array in (samples.joints_mm, samples.aligned_mm, samples.visible))
            joints[name] = JointFigures.of(*one)
        return cls({name: Figures.of(chosen) for name, chosen in people.items()}, joints)


@dataclass(frozen=True)
class PixelResult:
    """People found by the bundle's own detector and pose network."""

    wanted: int  # people at least half visible and 64 px tall
    found_of_wanted: int
    recall: float | None
    detections: int
    right: int  # detections that are anybody
    precision: float | None
    errors: Errors  # of the counted people who were found
    same_people: Figures  # the same, by true boxes and noisy joints


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

    def as_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain


def mean(values: Array) -> float | None:
    """None of nothing, and of what is not finite."""
    return rounded(float(np.mean(values, dtype=np.float64))) if np.size(values) else None


def rounded(value: float) -> float | None:
    """To a thousandth; None for what is not finite."""
    return round(value, 3) + 0.0 if np.isfinite(value) else None
