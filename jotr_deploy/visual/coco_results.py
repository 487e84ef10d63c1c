"""COCO results of people: one list with an entry for each person, as evaluation and annotation tools read it.

`image_id` is the file name of a still and the number of a frame of a video; `keypoints` are the 17 joints of COCO of
the recovered body, projected, so hidden ones too, each as x, y, 1; `bbox` is x, y, width and height of the mesh in the
picture; `score` is the confidence of the detection; `track_id` is present for tracked people. Numbers are finite:
a non-finite joint is written as 0, 0, 0, and people without a finite mesh are left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jotr_deploy.geometry.camera import project_px
from jotr_deploy.people import People
from jotr_deploy.skeletons import SKELETONS, SMPL30_INDEX
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.writing import written_aside

_COCO_IN_SMPL30 = [SMPL30_INDEX[name] for name in SKELETONS["coco17"]]
_PERSON = 1
_DECIMALS = 2


@contextmanager
def coco_file(path: Path) -> Iterator[Callable[[str | int, People], None]]:
    """Writer for the people of successive pictures; the file appears, whole, if the block ends without an exception.

    Raises:
        OutputError: it cannot be written, for example on a full disk.
    """
    with written_aside(path) as aside, aside.open("w", encoding="utf-8") as file:
        between = "[\n"

        def append(image_id: str | int, people: People) -> None:
            nonlocal between
            for entry in coco_people(image_id, people):
                file.write(between + json.dumps(entry, allow_nan=False))
                between = ",\n"

        yield append
        file.write("[]\n" if between == "[\n" else "\n]\n")


def coco_people(image_id: str | int, people: People) -> list[dict[str, Any]]:
    """Entries of the people of one picture."""
    joints_px = _in_picture(people.joints_camera_m[:, _COCO_IN_SMPL30], people)
    vertices_px = _in_picture(people.vertices_camera_m, people)
    entries = []
    for person in range(len(people)):
        seen = vertices_px[person][np.isfinite(vertices_px[person]).all(1)]
        if not len(seen):
            continue
        first, last = seen.min(0), seen.max(0)
        entry: dict[str, Any] = {
            "image_id": image_id,
            "category_id": _PERSON,
            "keypoints": _numbers(_with_flags(joints_px[person])),
            "bbox": _numbers(np.concatenate([first, last - first])),
            "score": round(float(np.nan_to_num(people.scores[person])), 4),
        }
        if people.track_ids[person] >= 0:
            entry["track_id"] = int(people.track_ids[person])
        entries.append(entry)
    return entries


def _in_picture(points_m: Array, people: People) -> Array:
    return project_px(points_m.astype(np.float64), people.focal_px, people.principal_px)


def _with_flags(joints_px: Array) -> Array:
    """(J, 2) -> (J, 3) x, y, 1; all zero where a joint is not finite."""
    flagged = np.column_stack([joints_px, np.ones(len(joints_px))])
    flagged[~np.isfinite(flagged).all(1)] = 0
    return flagged


def _numbers(values: Array) -> list[float]:
    return [round(float(value), _DECIMALS) for value in values.ravel()]
