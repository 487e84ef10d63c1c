"""Training samples of the feature extractor: a crop, where in it the person can be seen, and the person's body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np

from jotr_deploy.evaluation.textures import Textures, drawn_textures
from jotr_deploy.fitting.extractor import STRIDE
from jotr_deploy.geometry.camera import FOCAL_PER_SIDE
from jotr_deploy.skeletons import JOTR15_IN_SMPL30
from jotr_deploy.support.aliases import Array
from jotr_deploy.training.mesh_samples import MARGIN, Person, draw_person, mirrored, vary
from jotr_deploy.training.published.published_samples import AnnotatedSamples
from jotr_deploy.training.reuse import Reused

USES, LAG = 8, 256
"""Times that a drawn person is trained on, and the number of people in between."""
PATCH_SIDES = (0.15, 0.45)
"""Smallest and largest side of a patch, of the crop's."""
_SEEN = 128  # of 255: a cell shows the person when half of its pixel is theirs


@dataclass(frozen=True)
class DrawnFeatureSamples:
    """People of the scenes of `seed`, each varied `USES` times."""

    seed: int
    side: int  # pixels of the crop
    crop_factor: float  # see `square_box`
    patches: float  # share of samples with a patch
    _people: Reused[Person] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        draw = partial(draw_person, self.seed, side=round(self.side * MARGIN), crop_factor=self.crop_factor)
        object.__setattr__(self, "_people", Reused(draw, USES, LAG))

    def __call__(self, indices: Sequence[int]) -> dict[str, Array]:
        """These samples, see `sample`, stacked."""
        return stacked([self.sample(index) for index in indices])

    def sample(self, index: int) -> dict[str, Array]:
        """One sample.

        Returns:
            image (3, S, S) uint8 RGB; shown (S / 4, S / 4) bool, the cells that show this person; pose (24, 3), betas
            (10,); joints (30, 2), x and y as fractions of the crop, and joints_known (30,); focal () of the camera in
            sides of the crop. float32.
        """
        rng = np.random.default_rng((self.seed, index, 7))
        person, use = self._people(index)
        varied = vary(rng, mirrored(person) if use % 2 else person, self.side)
        image, shown = np.ascontiguousarray(varied.image.transpose(2, 0, 1)), varied.own >= _SEEN
        add_patch(rng, image, shown, self.patches, self.seed)
        return {
            "image": image,
            "shown": shown[::STRIDE, ::STRIDE],
            "pose": varied.pose_rad.astype(np.float32),
            "betas": varied.betas,
            "joints": (varied.joints_px / self.side).astype(np.float32),
            "joints_known": np.ones(len(varied.joints_px), np.float32),
            "focal": np.float32(varied.focal_px / self.side),
        }


@dataclass(frozen=True)
class AnnotatedFeatureSamples:
    """People of data sets with a body fitted to them; the samples of the others count for nothing."""

    samples: AnnotatedSamples
    patches: float  # share of samples with a patch

    def __call__(self, indices: Sequence[int]) -> dict[str, Array]:
        """These samples, see `DrawnFeatureSamples.sample`, stacked."""
        return stacked([self.sample(index) for index in indices])

    def sample(self, index: int) -> dict[str, Array]:
        """One sample; everything before the person is taken for the person, and the camera for that of JOTR's crops."""
        given, side = self.samples.sample(index), self.samples.crop_side
        image, shown = given["image"], np.ones((side, side), bool)
        add_patch(np.random.default_rng((self.samples.seed, index, 7)), image, shown, self.patches, self.samples.seed)
        joints, known = np.zeros((30, 2), np.float32), np.zeros(30, np.float32)
        joints[list(JOTR15_IN_SMPL30)] = given["fit_img"][:, :2]
        known[list(JOTR15_IN_SMPL30)] = given["fit_known"]
        return {
            "image": image,
            "shown": shown[::STRIDE, ::STRIDE],
            "pose": given["pose"],
            "betas": given["betas"],
            "joints": joints,
            "joints_known": known,
            "focal": np.float32(FOCAL_PER_SIDE),
        }


def stacked(samples: Sequence[dict[str, Array]]) -> dict[str, Array]:
    """Samples as one batch."""
    return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}


def add_patch(rng: np.random.Generator, image: Array, shown: Array, share: float, seed: int) -> None:
    """Paste a patch of a drawn texture over a `share` of crops, in place.

    Args:
        rng: draws whether, where and how large.
        image: (3, S, S) uint8 RGB.
        shown: (S, S) bool; false under the patch.
        share: of the crops.
        seed: of the textures.
    """
    if rng.random() >= share:
        return
    crop_side = image.shape[-1]
    textures = _textures(seed, crop_side)
    side = round(crop_side * rng.uniform(*PATCH_SIDES))
    x, y = (int(value) for value in rng.integers(0, crop_side - side + 1, 2))
    window = textures.window(rng.integers(0, 1 << 31, 2).tolist(), side)
    image[:, y : y + side, x : x + side] = np.rint(255 * textures.patch(window, side, side)).astype(np.uint8)
    shown[y : y + side, x : x + side] = False


@cache
def _textures(seed: int, side: int) -> Textures:
    return drawn_textures(seed + _APART, side)


_APART = 1 << 20  # from the seeds of an evaluation, which are small numbers
