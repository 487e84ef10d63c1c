"""CrowdPose: photos of people close to each other, joints labelled by hand, fits to them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jotr_deploy.datasets.published.annotation import Annotation, Camera, Fit
from jotr_deploy.datasets.published.json_entries import Entry, each_entry, people_of
from jotr_deploy.datasets.published.layouts import box_of, camera_of, fit_of, labelled, picture_in, size_of
from jotr_deploy.support.aliases import Array

FILES = ("annotations/crowdpose_train.json", "annotations/CrowdPose_train_SMPL_NeuralAnnot.json")
WORST_FIT = 5.0
"""`fit_err` below which a fit counts. The published code has it the wrong way round."""


def read_crowdpose(folder: Path, files: list[Path], worse_fits: bool = False) -> Iterator[Annotation]:
    """Read all people; `files` are those of `FILES`.

    Args:
        folder: of the set.
        files: as above.
        worse_fits: use the fits that do not count, as published, instead of those that do.
    """
    people, fits = files
    fit_by_person = _fits(fits, worse_fits)
    everybody = list(people_of(people, lambda image: (image.text("file_name"), size_of(image)), _person))
    swapped = _swapped([size_px for (_, size_px), _ in everybody], [joints_px for _, (_, _, joints_px) in everybody])
    for (file, size_px), (number, box_px, joints_px) in everybody:
        fit, camera = fit_by_person.get(str(number), (None, None))
        size = size_px[::-1] if swapped else size_px
        yield Annotation(
            str(number), picture_in(folder / "images", file), size, box_px, joints_px, fit=fit, camera=camera
        )


def _fits(path: Path, worse: bool) -> dict[str, tuple[Fit, Camera]]:
    found = {}
    for key, value in each_entry(path):
        entry = Entry(f"{path}: {key}", value)
        if (entry.numbers("fit_err", 1).item() < WORST_FIT) != worse:
            found[key] = (fit_of(entry.inside("smpl_param")), camera_of(entry.inside("cam_param")))
    return found


def _person(entry: Entry) -> tuple[int, Array, Array]:
    return entry.whole("id"), box_of(entry), labelled(entry, "crowdpose14")


def _swapped(sizes_px: list[tuple[int, int]], joints_px: list[Array]) -> bool:
    """True if the file swaps width and height of its pictures, so that joints are inside only when swapped back.

    The published file reportedly does. A copy may have been corrected, so the joints decide.
    """
    if not sizes_px:
        return False
    sizes, joints = np.array(sizes_px)[:, None], np.stack(joints_px)
    outside = (joints[..., :2] >= sizes).any(-1) & (joints[..., 2] > 0)
    outside_swapped = (joints[..., :2] >= sizes[..., ::-1]).any(-1) & (joints[..., 2] > 0)
    return bool(outside_swapped.sum() < outside.sum())
