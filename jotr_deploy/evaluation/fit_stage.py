"""The fit behind the mesh files of an evaluation: what its extractor sees, and who it changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from jotr_deploy.bundle import Bundle
from jotr_deploy.fitting.fitted_people import Fits
from jotr_deploy.fitting.fitter import cells_inside, open_fitter
from jotr_deploy.people import People
from jotr_deploy.runtime.crops import Crops, make_crops
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.choices import FitChoice

if TYPE_CHECKING:
    from jotr_deploy.fitting.bundle_fitter import BundleFitter


@dataclass(frozen=True)
class FitCrops(Crops):
    """The squares of the mesh network's crops at the resolution of the extractor."""

    inside: Array  # (N, cells, cells) bool, cells that lie in the picture


@dataclass(frozen=True)
class FitCounts:
    """Outcome of the fits of some people."""

    people: int = 0
    tried: int = 0  # the others stand behind the camera, or their crop lies outside the picture
    accepted: int = 0  # the fit lowered the energy
    mirrored: int = 0  # it did so from the start mirrored in depth

    def __add__(self, fits: Fits) -> FitCounts:
        more = (len(fits.people), *(int(each.sum()) for each in (fits.tried, fits.accepted, fits.mirrored)))
        return FitCounts(*(own + new for own, new in zip(astuple(self), more, strict=True)))


class FitStage:
    """A fit that starts from what a mesh file answers, each person before the camera of their crop."""

    def __init__(self, fitter: BundleFitter, preset: str) -> None:
        self._fitter = fitter
        self.preset = preset
        self.side: int = fitter.side

    @property
    def prior(self) -> dict[str, str] | None:
        """Name and sha256 of the pose prior."""
        return self._fitter.prior_used

    def crops(self, image_bgr: Array, people: Detections) -> FitCrops:
        """Crops of the people of one picture, as `runtime.crops.make_crops`."""
        height, width = image_bgr.shape[:2]
        inside = cells_inside(people.boxes_px, (width, height), self._fitter.cells)
        made = make_crops(image_bgr, people, self.side)
        return FitCrops(made.image, made.joints, made.joints_mask, made.boxes_px, inside)

    def __call__(self, crops: FitCrops, start: People) -> Fits:
        """Fit N people to N crops."""
        return self._fitter(crops, start, crops.inside)


@contextmanager
def open_fit(
    bundle: Bundle, chosen: FitChoice | None, device: str = "auto", threads: int | None = None
) -> Iterator[FitStage | None]:
    """The fit of a bundle; None where none is asked for. Errors as those of `fitting.fitter.open_fitter`."""
    if chosen is None:
        yield None
        return
    with open_fitter(bundle, chosen.preset, device, threads, vposer=chosen.vposer) as fitter:
        yield FitStage(fitter, chosen.preset)


def fit_protocol(fit: FitStage | None) -> str | None:
    """Description of a fit, None without one."""
    if fit is None:
        return None
    latent = f", in the latent of {fit.prior['name']} (sha256 {fit.prior['sha256']})" if fit.prior else ""
    return (
        f"preset {fit.preset}{latent}, each person from the network's own output, to the features of the same crop at "
        "the extractor's resolution; anyone not improved keeps that output"
    )


def paste(image: Array, patch: Array, box_px: Array, crop_side: int) -> None:
    """Paste a patch of the mesh network's crop into a crop of the same square at another resolution.

    A pixel is covered where its place in the mesh network's crop is: there, low edges belong to a box and high ones do
    not. The patch is sampled bilinearly, as crops are.

    Args:
        image: (3, S, S) that is changed.
        patch: (3, height, width) pixels of the box.
        box_px: (4,) x0 y0 x1 y1 on the mesh network's crop.
        crop_side: of that crop.
    """
    scale = crop_side / image.shape[-1]
    x0, y0, x1, y1 = -(-np.asarray(box_px) * image.shape[-1] // crop_side)  # rounded up
    if x1 <= x0 or y1 <= y0:
        return
    source = np.array([[scale, 0, scale * x0 - box_px[0]], [0, scale, scale * y0 - box_px[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    pixels = np.ascontiguousarray(patch.transpose(1, 2, 0))
    moved = cv2.warpAffine(pixels, source, (int(x1 - x0), int(y1 - y0)), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    image[:, y0:y1, x0:x1] = moved.transpose(2, 0, 1)
