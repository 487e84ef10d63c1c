"""MMPose 1.x: `predictions/NAME.json` of its inferencer and `results_NAME.json` of its demo."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jotr_deploy.errors import KeypointFileError
from jotr_deploy.runtime.joint_files.image_index import ImageKey
from jotr_deploy.runtime.joint_files.person_entry import Entries, PersonEntry, named_order

_REMEDY = "give results of MMPose for a picture or a video, as its inferencer writes them with --pred-out-dir"
_NO_BODIES_OF_OURS = (
    "aic",
    "posetrack18",
    "jhmdb",
    "h36m",
    "lsp",
    "mpii",
    "ap10k",
    "animalpose",
    "interhand2d",
    "300w",
)


def is_mmpose(items: object) -> bool:
    """Whether a list holds instances of one picture, or frames with instances."""
    return isinstance(items, list) and all(
        isinstance(item, dict) and ("instances" in item or ("keypoint_scores" in item and item.get("image_id") is None))
        for item in items
    )


def mmpose_results(path: Path, data: object) -> Entries:
    """One picture's instances, or frames of a video, which MMPose counts from 1."""
    items = data.get("instance_info") if isinstance(data, dict) else data
    order = _named(path, data.get("meta_info")) if isinstance(data, dict) else None
    if not is_mmpose(items) or not isinstance(items, list):
        raise KeypointFileError(f"{path}: a result of MMPose whose instances are not known", _REMEDY)
    if not items or "instances" not in items[0]:
        found = Entries(images=[None])
        _add(found, f"{path}: person", None, items, order)
        return found
    found = Entries(by_position=True)
    for at, item in enumerate(items):
        number, instances = item.get("frame_id", at + 1), item.get("instances")
        if isinstance(number, bool) or not isinstance(number, int) or not isinstance(instances, list):
            raise KeypointFileError(f"{path}: entry {at} is no frame of MMPose", _REMEDY)
        found.images.append(number - 1)
        _add(found, f"{path}: frame {number}: person", number - 1, instances, order)
    return found


def _add(found: Entries, where: str, image: ImageKey, instances: list[Any], order: tuple[str, ...] | None) -> None:
    for person, item in enumerate(instances):
        here = f"{where} {person}"
        if not isinstance(item, dict) or "keypoints" not in item:
            raise KeypointFileError(f"{here}: has no 'keypoints'", _REMEDY)
        found.people.append(
            PersonEntry(
                here,
                image,
                item["keypoints"],
                item.get("keypoint_scores"),
                item.get("bbox_score", 1.0),
                item.get("track_id"),
                order=order,
            )
        )


def _named(path: Path, meta: object) -> tuple[str, ...] | None:
    """The order of joints that the file names; sets whose order is neither named nor known are refused."""
    if not isinstance(meta, Mapping):
        return None
    names = meta.get("keypoint_id2name")
    if isinstance(names, Mapping):
        numbered = sorted((int(key), name) for key, name in names.items() if str(key).isdecimal())
        if (order := named_order([name for _, name in numbered])) is not None:
            return order
    kind = str(meta.get("dataset_name", "")).lower()
    if kind in _NO_BODIES_OF_OURS:
        raise KeypointFileError(
            f"{path}: joints of the data set '{kind}', whose order is not known here",
            "take a network of MMPose that was trained on COCO, CrowdPose or Halpe",
        )
    return None
