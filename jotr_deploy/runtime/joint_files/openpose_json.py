"""OpenPose, and what writes like it: ControlNet, DWPose and ComfyUI with their canvas, AlphaPose's `--format open`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jotr_deploy.errors import KeypointFileError
from jotr_deploy.runtime.joint_files.image_index import ImageKey
from jotr_deploy.runtime.joint_files.person_entry import Entries, PersonEntry, canvas_of
from jotr_deploy.runtime.joint_files.unsupported_files import LAYOUTS

OPENPOSE_END = "_keypoints"  # of a file name, before .json

_BODY = ("pose_keypoints_2d", "pose_keypoints", "keypoints", "joints")  # the second until OpenPose 1.1
_OTHER = ("face_keypoints", "hand_left_keypoints", "hand_right_keypoints")


def openpose_picture(path: Path, data: Mapping[str, Any]) -> Entries:
    """The people of the one picture of a file."""
    # A file under another name is about the one image that it comes with.
    image = path.stem[: -len(OPENPOSE_END)] if path.stem.endswith(OPENPOSE_END) else None
    found = Entries(images=[image], last_pixel_is_1=isinstance(data.get("version"), (int, float)))
    add_openpose(found, path, image, data)
    return found


def openpose_frames(path: Path, frames: list[Any]) -> Entries:
    """A list of frames, as ComfyUI saves it: the pictures of the source in their order."""
    if len(frames) == 1:
        return openpose_picture(path, frames[0])
    found = Entries(images=list(range(len(frames))), by_position=True)
    for frame, data in enumerate(frames):
        if not isinstance(data, dict):
            raise KeypointFileError(f"{path}: frame {frame} is no object with 'people'", LAYOUTS)
        add_openpose(found, path, frame, data, f"{path}: frame {frame}: person")
    return found


def add_openpose(
    found: Entries, path: Path, image: ImageKey, data: Mapping[str, Any], where: str | None = None
) -> None:
    """Add the people of one picture, `{people: [{pose_keypoints_2d: [...]}]}`."""
    people = data.get("people", data.get("bodies"))
    if not isinstance(people, list):
        raise KeypointFileError(f"{path}: no list of 'people', so not an OpenPose file", LAYOUTS)
    for person, item in enumerate(people):
        here = f"{where or f'{path}: person'} {person}"
        if not isinstance(item, dict):
            raise KeypointFileError(f"{here}: has no 'pose_keypoints_2d'", LAYOUTS)
        key = next((key for key in _BODY if key in item), None)
        if key is None and not any(name.startswith(_OTHER) for name in item):
            raise KeypointFileError(f"{here}: has no 'pose_keypoints_2d'", LAYOUTS)
        track = item.get("person_id", item.get("track_id", item.get("idx")))
        keypoints = item[key] if key else None
        found.people.append(PersonEntry(here, image, keypoints, track=track, canvas_px=canvas_of(data)))
