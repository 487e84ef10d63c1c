"""Verification of a derived network against its reference, output by output, in physical units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jotr_deploy.bundle import Error
from jotr_deploy.config import ModelConfig
from jotr_deploy.errors import VerificationError
from jotr_deploy.geometry.rotations import angle_between
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.precisions import Precision

Network = Callable[[Mapping[str, Array]], Mapping[str, Array]]

BATCHES = (1, 3, 8)

UNITS = {
    "joints_img": "crop",
    "pose": "rad",
    "betas": "",
    "cam": "",
    "translation": "mm",
    "joints3d": "mm",
    "joints_proj": "cells",
    "vertices": "mm",
    "boxes": "of the box",
    "scores": "",
    "joints": "of the box",
    "features": "1 - cosine",
    "fit": "mm",
    "fit, rounding": "mm",
}

INT8_CROPS = 24
"""Crops of every batch size on which forms of int8 are compared: on three of noise, luck decided whether one was more
than twice as far from fp32 as the other."""
# Factor by which another form of int8 may be further from fp32 than the calibrated file, plus the tolerance of float16.
INT8_SLACK = 2.0


@dataclass(frozen=True)
class Difference:
    """One output of one batch size against the reference."""

    output: str
    batch: int
    max: float
    mean: float
    finite: bool


def random_crops(config: ModelConfig, batch: int, seed: int = 0) -> dict[str, Array]:
    """Feeds of the network: noise over random colours, random joints, one in five absent."""
    rng = np.random.default_rng([seed, batch])
    side, cells = config.crop_side, config.heatmap_side
    colour = rng.uniform(0, 1, (batch, 3, 1, 1))
    image = np.clip(colour + rng.normal(0, 0.2, (batch, 3, side, side)), 0, 1)
    return {
        "image": image.astype(np.float32),
        "joints": rng.uniform(0, cells, (batch, 30, 2)).astype(np.float32),
        "joints_mask": (rng.random((batch, 30)) < 0.8).astype(np.float32),
    }


def difference(output: str, reference: Array, candidate: Array) -> Array:
    """Elementwise distance in the unit of `UNITS`: rotations as angles, points as Euclidean distances."""
    if output == "pose":
        return angle_between(reference, candidate)
    gap = np.asarray(candidate, np.float64) - reference
    if output in ("translation", "joints3d", "vertices"):
        return np.linalg.norm(gap, axis=-1) * 1000
    return np.abs(gap)


def measure(
    reference: Network, candidate: Network, config: ModelConfig, batches: Sequence[int] = BATCHES, crops: int = 1
) -> list[Difference]:
    """Differences of two networks on the same random crops, at least `crops` for every batch size, by output."""
    rows = []
    for batch in batches:
        gaps: dict[str, list[Array]] = {}
        for seed in range(-(-crops // batch)):
            feeds = random_crops(config, batch, seed)
            expected, found = reference(feeds), candidate(feeds)
            for output, value in expected.items():
                gap = difference(output, value, found[output])
                gaps.setdefault(output, []).append(gap if np.isfinite(found[output]).all() else np.full(1, np.inf))
        for output, values in gaps.items():
            gap = np.concatenate([each.ravel() for each in values])
            rows.append(Difference(output, batch, float(gap.max()), float(gap.mean()), bool(np.isfinite(gap).all())))
    return rows


def require(rows: Sequence[Difference], precision: Precision, what: str) -> None:
    """Refuse a network that is further from its reference than its precision allows.

    Raises:
        VerificationError: naming the output, the batch, the difference and the limit.
    """
    limits = precision.limits
    assert limits is not None, precision  # eight bits: `require_as_good`
    for row in rows:
        _require_finite(row, what)
        kind, limit = limits[row.output]
        value = row.max if kind == "max" else row.mean
        if not value <= limit:
            unit = UNITS[row.output]
            raise VerificationError(
                f"{what}: {row.output} differs from its reference by {value:.3g} {unit} at batch {row.batch}, "
                f"limit {limit:g} {unit} ({kind})",
                "nothing was kept; report this with the versions of `doctor`",
            )


def require_as_good(rows: Sequence[Difference], calibrated: Sequence[Difference], what: str) -> None:
    """Refuse an int8 network that is clearly further from fp32 than the calibrated one, row by row.

    Both were measured against fp32 on the same random crops, on which int8 has no limit of its own: the ranges are
    calibrated on pictures.

    Raises:
        VerificationError: naming the output, the batch and both differences.
    """
    rounding = Precision.FP16.limits or {}
    for row, own in zip(rows, calibrated, strict=True):
        _require_finite(row, what)
        if not row.mean <= INT8_SLACK * own.mean + rounding[row.output][1]:
            unit = UNITS[row.output]
            raise VerificationError(
                f"{what}: {row.output} differs from fp32 by {row.mean:.3g} {unit} at batch {row.batch}, "
                f"the calibrated file by {own.mean:.3g} {unit} (mean)",
                "nothing was kept; report this with the versions of `doctor`",
            )


def _require_finite(row: Difference, what: str) -> None:
    if not row.finite:
        raise VerificationError(
            f"{what}: output {row.output} is not finite at batch {row.batch}",
            "if the training diverged, give an earlier snapshot; else report this with the versions of `doctor`",
        )


def vertices_error(rows: Sequence[Difference]) -> Error | None:
    """Errors for the manifest: mean and largest distance of the vertices, fitted ones for an extractor, two digits."""
    vertices = [row for row in rows if row.output in ("vertices", "fit")]
    if not vertices:
        return None
    mean = sum(row.mean for row in vertices) / len(vertices)
    return Error(mean=float(f"{mean:.2g}"), max=float(f"{max(row.max for row in vertices):.2g}"))
