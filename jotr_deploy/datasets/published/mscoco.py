"""MSCOCO: photos of everyday life, joints labelled by hand, fits to them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jotr_deploy.datasets.published.annotation import Annotation, Camera, Fit
from jotr_deploy.datasets.published.json_entries import Entry, each_entry, people_of
from jotr_deploy.datasets.published.layouts import box_of, camera_of, fit_of, labelled, picture_in, size_of
from jotr_deploy.support.aliases import Array

FILES = ("annotations/person_keypoints_train2017.json", "annotations/MSCOCO_train_SMPL_NeuralAnnot.json")


def read_mscoco(folder: Path, files: list[Path]) -> Iterator[Annotation]:
    """Read people who are not a crowd and have a labelled joint; `files` are those of `FILES`. Every fit is used."""
    people, fits = files
    fit_by_person = fits_of(fits)
    for (file, size_px), (number, box_px, joints_px) in people_of(people, picture_of, _person):
        fit, camera = fit_by_person.get(str(number), (None, None))
        image = picture_in(folder / "images/train2017", file)
        yield Annotation(str(number), image, size_px, box_px, joints_px, fit=fit, camera=camera)


def picture_of(image: Entry) -> tuple[str, tuple[int, int]]:
    """File name and size of a picture."""
    return image.text("file_name"), size_of(image)


def fits_of(path: Path) -> dict[str, tuple[Fit, Camera]]:
    """Fits of a file by the number of the person, each with its camera."""
    entries = ((key, Entry(f"{path}: {key}", value)) for key, value in each_entry(path))
    return {key: (fit_of(entry.inside("smpl_param")), camera_of(entry.inside("cam_param"))) for key, entry in entries}


def _person(entry: Entry) -> tuple[int, Array, Array] | None:
    if entry.whole("iscrowd") or not entry.whole("num_keypoints"):
        return None
    return entry.whole("id"), box_of(entry), labelled(entry, "coco17")
