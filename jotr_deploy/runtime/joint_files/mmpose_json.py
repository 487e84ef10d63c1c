"""MMPose 1.x files: `predictions/NAME.json` of its inferencer and `results_NAME.json` of its demo."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jotr_deploy.errors import KeypointFileError
from jotr_deploy.runtime.joint_files.image_index import ImageKey
from jotr_deploy.runtime.joint_files.person_entry import Entries, PersonEntry, named_order

_REMEDY = "give MMPose results for a picture or video, as its inferencer writes them with --pred-out-dir"
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
    """True for a list of instances of one picture, or of frames with instances."""
    return isinstance(items, list) and all(
        isinstance(item, dict) and ("instances" in item or ("keypoint_scores" in item and item.get("image_id") is None))
        for item in items
    )


def is_mmpose_batch(items: object) -> bool:
    """True for a list with one list of instances per picture, as the inferencer returns it in Python."""
    return isinstance(items, list) and bool(items) and all(
        isinstance(item, list) and is_mmpose(item) and not any("instances" in person for person in item)
        for item in items
    )  # fmt: skip


def mmpose_results(path: Path, data: object) -> Entries:
    """Read one picture's instances, or frames of a video: the demos count them from 1, the inferencer from 0."""
    items = data.get("instance_info") if isinstance(data, dict) else data
    order = _named(path, data.get("meta_info")) if isinstance(data, dict) else None
    if is_mmpose_batch(items) and isinstance(items, list):
        items = items[0] if len(items) == 1 else [{"instances": instances} for instances in items]
    if not is_mmpose(items) or not isinstance(items, list):
        raise KeypointFileError(f"{path}: an MMPose result without recognisable instances", _REMEDY)
    if not items or "instances" not in items[0]:
        found = Entries(images=[None])
        _add(found, f"{path}: person", None, items, order)
        return found
    found = Entries(by_position=True, complete=not any("frame_id" in item for item in items))
    first = 0 if any(item.get("frame_id") == 0 for item in items) else 1
    for at, item in enumerate(items):
        number, instances = item.get("frame_id", at + first), item.get("instances")
        if isinstance(number, bool) or not isinstance(number, int) or not isinstance(instances, list):
            raise KeypointFileError(f"{path}: entry {at} is not an MMPose frame", _REMEDY)
        found.images.append(number - first)
        _add(found, f"{path}: frame {number}: person", number - first, instances, order)
    return found


def _add(found: Entries, where: str, image: ImageKey, instances: list[Any], order: tuple[str, ...] | None) -> None:
    for person, item in enumerate(instances):
        here = f"{where} {person}"
        if not isinstance(item, dict) or "keypoints" not in item:
            raise KeypointFileError(f"{here}: has no 'keypoints'", _REMEDY)
        _check_flat(here, item)
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


def _check_flat(where: str, item: Mapping[str, Any]) -> None:
    """Refuse 3-D joints, which look like 2-D joints with separate confidences."""
    joints = item["keypoints"]
    first = joints[0] if isinstance(joints, list) and joints else None
    if isinstance(first, list) and len(first) == 3 and item.get("keypoint_scores") is not None:
        raise KeypointFileError(
            f"{where}: has 3-D joints (x, y, z)", "give the results of the 2-D network that precedes the lifting"
        )


def _named(path: Path, meta: object) -> tuple[str, ...] | None:
    """Joint order named by the file; data sets whose order is neither named nor known are refused."""
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
            f"{path}: joints of the data set '{kind}', whose joint order is not supported",
            "use an MMPose network trained on COCO, CrowdPose or Halpe",
        )
    return None
