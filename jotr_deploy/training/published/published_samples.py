"""Training samples from data sets: a person cropped as published, with perturbed 2-D joints and the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jotr_deploy.datasets.joint_errors import COCO17_IN_SMPL30, disturb_joints
from jotr_deploy.datasets.published.pictures import read_picture
from jotr_deploy.geometry.crop import PX_PER_CELL
from jotr_deploy.skeletons import SMPL30_INDEX
from jotr_deploy.support.aliases import Array
from jotr_deploy.training.published.augmented_crops import crop_from_picture, cut, draw_variation
from jotr_deploy.training.published.fitted_bodies import FittedBodies
from jotr_deploy.training.published.sample_order import AnnotatedPeople
from jotr_deploy.training.published.truth import fit_truth, labels_in_crop, measured_truth

_MIDPOINTS = [
    [SMPL30_INDEX[name] for name in names]
    for names in (("Pelvis", "L_Hip", "R_Hip"), ("Neck", "L_Shoulder", "R_Shoulder"))
]


@dataclass(frozen=True)
class AnnotatedSamples:
    """Samples of some people by number, with new variations each time."""

    people: AnnotatedPeople
    bodies: FittedBodies
    seed: int
    crop_side: int  # pixels
    crop_factor: float  # see `square_box`
    drop_joints: float  # probability that a joint which is given is withheld

    def __call__(self, indices: Sequence[int]) -> dict[str, Array]:
        """Samples of these numbers, see `sample`, stacked."""
        samples = [self.sample(index) for index in indices]
        return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}

    def sample(self, index: int) -> dict[str, Array]:
        """One sample.

        Returns:
            image (3, S, S) uint8 RGB, joints (30, 2) and joints_mask (30,) as the network takes them, and the truth of
            `measured_truth` and `fit_truth`. float32.

        Raises:
            DatasetError: the picture cannot be read, or its size differs from that in its data set.
        """
        rng = np.random.default_rng((self.seed, index, 5))
        person, others = self.people(index)
        variation = draw_variation(rng, self.crop_factor)
        affine = crop_from_picture(person.box_px, person.size_px, variation, self.crop_side)
        labels, *other_labels = (labels_in_crop(each, affine, variation) for each in (person, *others))
        area_px2 = float((person.box_px[2:] - person.box_px[:2]).prod() * abs(np.linalg.det(affine[:, :2])))
        given_px = disturbed(rng, labels, area_px2, other_labels, midpoints=not person.is_3d)
        kept = rng.random(len(given_px)) >= self.drop_joints
        measured = measured_truth(person, labels, variation, self.crop_side)
        return {
            "image": cut(read_picture(person), affine, variation, self.crop_side),
            "joints": (given_px / PX_PER_CELL).astype(np.float32),
            "joints_mask": measured["joints_known"] * kept.astype(np.float32),
            **measured,
            **fit_truth(self.bodies(person), affine, variation, self.crop_side),
        }


def disturbed(
    rng: np.random.Generator, labels: Array, area_px2: float, other_labels: Sequence[Array], midpoints: bool
) -> Array:
    """Joints of a person with the published errors: labelled ones of COCO-17 are perturbed, the others stay.

    Args:
        rng: draws the errors.
        labels: (30, 3) x, y, 1 where it is labelled.
        area_px2: of the person's tight box, in the same frame.
        other_labels: (30, 3) each, those of the people who overlap.
        midpoints: a pelvis or neck that lies between the labels of both hips or shoulders does so afterwards too.

    Returns:
        (30, 2).
    """
    coco, others = labels[COCO17_IN_SMPL30], np.array(other_labels).reshape(-1, len(labels), 3)[:, COCO17_IN_SMPL30]
    labelled = coco[:, 2] > 0
    found_px = disturb_joints(rng, coco[:, :2], labelled, area_px2, others[..., :2], others[..., 2] > 0)
    joints_px = labels[:, :2]
    out = joints_px.copy()
    out[np.array(COCO17_IN_SMPL30)[labelled]] = found_px[labelled]
    for middle, left, right in _MIDPOINTS if midpoints else ():
        if np.allclose(joints_px[middle], (joints_px[left] + joints_px[right]) / 2, atol=0.01):
            out[middle] = (out[left] + out[right]) / 2
    return out
