"""Errors over the joints that are visible, pooled over people, and PCKh: the figures of 3DNBF.

A joint is visible where it lies in the crop, not under a patch, and the truth does not say that something hides it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from jotr_deploy.evaluation.error_statistics import mean, rounded
from jotr_deploy.evaluation.measured_joints import EVALUATED, EVALUATED_IN_SMPL30, EvaluatedJoints
from jotr_deploy.evaluation.measured_people import Truth
from jotr_deploy.evaluation.metrics import aligned, distances_mm
from jotr_deploy.geometry.camera import project_px
from jotr_deploy.geometry.crop import crop_from_image, transform_px
from jotr_deploy.people import People
from jotr_deploy.support.aliases import Array

PCKH_SHARE = 0.5
"""A joint is right within this share of the distance from neck to head top, in the picture."""
_NECK, _HEAD_TOP = EVALUATED.index("Neck"), EVALUATED.index("Head_top")


@dataclass(frozen=True)
class TruePlaces:
    """The 14 evaluated joints of N people as they are in the picture: parallel arrays."""

    joints_px: Array  # (N, 14, 2), NaN where one is not known
    visible: Array  # (N, 14) bool

    @classmethod
    def in_crops(cls, evaluated_px: Array | None, joints_px: Array, boxes_px: Array, truth: Truth) -> TruePlaces | None:
        """Places of joints, visible where they lie inside the crops and nothing in the picture hides them.

        Args:
            evaluated_px: (N, 14, 2); with None there are no places.
            joints_px: (N, 30, 2) of the 30-joint set, which say by name what is inside.
            boxes_px: (N, 4) square crop boxes.
            truth: of the same people.
        """
        if evaluated_px is None:
            return None
        share = transform_px(crop_from_image(boxes_px, 1), joints_px)
        visible = ((share >= 0) & (share < 1)).all(-1) & np.asarray(truth.joints_visible, bool)
        return cls(evaluated_px, visible[:, list(EVALUATED_IN_SMPL30)])


@dataclass(frozen=True)
class JointErrors:
    """Errors of the 14 evaluated joints of N people: parallel arrays; infinite where a prediction is not finite."""

    distance_mm: Array  # (N, 14)
    aligned_mm: Array  # (N, 14) after the similarity that all joints decide
    aligned_by_visible_mm: Array  # (N, 14) after the one that the visible joints decide; NaN where none is
    in_heads: Array  # (N, 14) distance in the picture over that from neck to head top; NaN where it is not known
    visible: Array  # (N, 14) bool

    @classmethod
    def of(cls, found: People, truth: Truth, places: TruePlaces, evaluated: EvaluatedJoints) -> JointErrors:
        """Compare N people with their truth, or with that of one person."""
        finite = np.asarray(np.isfinite(found.joints_m).all((1, 2)) & np.isfinite(found.vertices_m).all((1, 2)))
        joints_m, vertices_m = (np.where(finite[:, None, None], each, 0) for each in (found.joints_m, found.vertices_m))
        found_m, true_m = evaluated(joints_m, vertices_m), evaluated(truth.joints_m, truth.vertices_m)
        some = np.asarray(places.visible.any(1))
        by_visible = aligned(found_m, true_m, places.visible | ~some[:, None])
        distance_mm = distances_mm(found_m, true_m)
        aligned_mm, by_visible_mm = (distances_mm(each, true_m) for each in (aligned(found_m, true_m), by_visible))
        by_visible_mm[~some] = np.nan
        distance_mm[~finite] = aligned_mm[~finite] = by_visible_mm[~finite] = np.inf
        in_heads = _in_heads(found, evaluated.placed(joints_m, vertices_m), places)
        in_heads[~finite[:, None] & ~np.isnan(in_heads)] = np.inf
        return cls(distance_mm, aligned_mm, by_visible_mm, in_heads, places.visible)

    @classmethod
    def concatenate(cls, parts: Sequence[JointErrors]) -> JointErrors:
        """People of several parts; empty without parts."""
        nobody = [np.zeros((0, len(EVALUATED)))] * 4 + [np.zeros((0, len(EVALUATED)), bool)]
        named = zip(fields(cls), nobody, strict=True)
        return cls(*(np.concatenate([empty, *(getattr(part, f.name) for part in parts)]) for f, empty in named))

    def __len__(self) -> int:
        return len(self.visible)

    def __getitem__(self, index: Array) -> JointErrors:
        return JointErrors(*(getattr(self, f.name)[index] for f in fields(self)))

    @property
    def mpjpe_mm(self) -> Array:
        """(N,) mean over the visible joints of a person; NaN where none is."""
        some = np.asarray(self.visible.any(1))
        means = self.distance_mm.mean(1, where=self.visible | ~some[:, None])
        return np.where(some, means, np.nan)


def _in_heads(found: People, joints_m: Array, places: TruePlaces) -> Array:
    """(N, 14) as in `JointErrors`; infinite where a person is not before their camera."""
    in_camera_m = joints_m + np.asarray(found.translation_m, np.float64)[:, None]
    ahead = (in_camera_m[..., 2] > 0) & np.isfinite(in_camera_m).all(-1)
    found_px = project_px(np.where(ahead[..., None], in_camera_m, 1), found.focal_px, found.principal_px)
    heads_px = np.linalg.norm(places.joints_px[:, _NECK] - places.joints_px[:, _HEAD_TOP], axis=-1)
    heads_px = np.where(heads_px > 0, heads_px, np.nan)
    shares = np.linalg.norm(found_px - places.joints_px, axis=-1) / heads_px[:, None]
    return np.where(ahead | np.isnan(shares), shares, np.inf)


@dataclass(frozen=True)
class JointSetFigures:
    """Errors over some joints of some people; None without any, or if a number is not finite."""

    people: int  # with such a joint
    joints: int
    mpjpe_mm: float | None  # mean over the joints of everybody
    pa_mpjpe_mm: float | None
    pckh: float | None  # share of joints that are right, the mean over the 14 of their shares

    @classmethod
    def of(cls, distance_mm: Array, aligned_mm: Array, in_heads: Array, chosen: Array) -> JointSetFigures:
        """Figures from (N, 14) arrays over the `chosen` joints."""
        known = chosen & ~np.isnan(in_heads)
        right, of = (known & (in_heads <= PCKH_SHARE)).sum(0), known.sum(0)
        pckh = rounded(float((right[of > 0] / of[of > 0]).mean())) if of.any() else None
        counts = int(chosen.any(1).sum()), int(chosen.sum())
        return cls(*counts, mean(distance_mm[chosen]), mean(aligned_mm[chosen]), pckh)


@dataclass(frozen=True)
class VisibleJoints:
    """Errors over all joints, and over those that are visible, which then alone decide the alignment."""

    all: JointSetFigures
    visible: JointSetFigures

    @classmethod
    def of(cls, errors: JointErrors) -> VisibleJoints:
        """Figures over all joints and over the visible ones."""
        every = np.ones_like(errors.visible)
        return cls(
            JointSetFigures.of(errors.distance_mm, errors.aligned_mm, errors.in_heads, every),
            JointSetFigures.of(errors.distance_mm, errors.aligned_by_visible_mm, errors.in_heads, errors.visible),
        )


def visible_protocol(asked: bool) -> str | None:
    """Meaning of the figures, None where they are not asked for."""
    if not asked:
        return None
    return (
        "in the crop, not under a patch, and not hidden by the truth, where it knows; they alone decide the alignment; "
        "errors are means over the joints of everybody, not over people; PCKh: share of joints within "
        f"{PCKH_SHARE:g} of the distance from neck to head top in the picture, by the camera found, the mean over the "
        f"{len(EVALUATED)} of their shares; under attack at the place with a person's largest MPJPE over them"
    )
