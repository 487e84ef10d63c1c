"""3DOH50K, test part: people behind objects, indoors, with fits to several views."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jotr_deploy.datasets.published.annotation import Annotation
from jotr_deploy.datasets.published.json_entries import Entry, each_entry
from jotr_deploy.datasets.published.layouts import fit_of, picture_in
from jotr_deploy.datasets.published.pictures import SIZE_NOT_SAID
from jotr_deploy.skeletons import SKELETONS, SMPL30

FILES = ("annotations/3doh_test_annots_scale_1.json",)


def read_3doh(folder: Path, files: list[Path]) -> Iterator[Annotation]:
    """Read all people of the one file, one in a picture.

    Its boxes are x0 y0 x1 y1; the published code reads them as x, y, width, height.
    """
    for name, value in each_entry(files[0]):
        entry = Entry(f"{files[0]}: {name}", value)
        yield Annotation(
            key=name,
            image=picture_in(folder / "images", name),
            size_px=SIZE_NOT_SAID,
            box_px=entry.numbers("bbox", 4),
            joints_px=np.zeros((len(SMPL30), 3)),
            fit=fit_of(entry),
            found_px=entry.numbers("hrnet_results", len(SKELETONS["coco17"]), 3),
            found_skeleton="coco17",
        )
