"""OpenPose files and lookalikes: ControlNet, DWPose and ComfyUI with a canvas size, AlphaPose's `--format open`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jotr_deploy.errors import KeypointFileError
from jotr_deploy.runtime.joint_files.image_index import ImageKey
from jotr_deploy.runtime.joint_files.person_entry import Entries, PersonEntry, canvas_of
from jotr_deploy.runtime.joint_files.unsupported_files import LAYOUTS

OPENPOSE_END = "_keypoints"  # end of a file name, before .json

_BODY = ("pose_keypoints_2d", "pose_keypoints", "keypoints", "joints")  # pose_keypoints: up to OpenPose 1.1
_NUMBERS = ("frame_id", "frame_index", "frame", "image_id")
_OTHER = ("face_keypoints", "hand_left_keypoints", "hand_right_keypoints")


def openpose_picture(path: Path, data: Mapping[str, Any]) -> Entries:
    """Read the people of a file about a single picture."""
    # A file with another name belongs to the one image it is given with.
    image = path.stem[: -len(OPENPOSE_END)] if path.stem.lower().endswith(OPENPOSE_END) else None
    found = Entries(images=[image], last_pixel_is_1=isinstance(data.get("version"), (int, float)))
    add_openpose(found, path, image, data)
    return found


def openpose_frames(path: Path, frames: list[Any]) -> Entries:
    """Read a list of frames, as saved by ComfyUI: the pictures of the source in order."""
    if len(frames) == 1:
        return openpose_picture(path, frames[0])
    numbers = [next((item[key] for key in _NUMBERS if key in item), None) for item in frames]
    complete = not any(isinstance(number, int) for number in numbers)
    if complete:
        numbers = list(range(len(frames)))
    found = Entries(by_position=True, complete=complete)
    for frame, data in zip(numbers, frames, strict=True):
        if isinstance(frame, bool) or not isinstance(frame, int):
            raise KeypointFileError(f"{path}: only some of the frames have a number", "write a number for every frame")
        found.images.append(frame)
        add_openpose(found, path, frame, data, f"{path}: frame {frame}: person")
    return found


def add_openpose(
    found: Entries, path: Path, image: ImageKey, data: Mapping[str, Any], where: str | None = None
) -> None:
    """Add the people of one picture, `{people: [{pose_keypoints_2d: [...]}]}`."""
    people = data.get("people", data.get("bodies"))
    if not isinstance(people, list):
        raise KeypointFileError(f"{path}: not an OpenPose file, as it has no list of 'people'", LAYOUTS)
    for person, item in enumerate(people):
        here = f"{where or f'{path}: person'} {person}"
        if not isinstance(item, dict):
            raise KeypointFileError(f"{here}: has no 'pose_keypoints_2d'", LAYOUTS)
        key = next((key for key in _BODY if key in item), None)
        if key is None and not any(name.startswith(_OTHER) for name in item):
            raise KeypointFileError(f"{here}: has no 'pose_keypoints_2d'", LAYOUTS)
        if not (key and item[key]) and item.get("pose_keypoints_3d"):
            raise KeypointFileError(f"{here}: has only 3-D joints", "run OpenPose without --3d")
        track = item.get("person_id", item.get("track_id", item.get("idx")))
        keypoints = item[key] if key else None
        found.people.append(PersonEntry(here, image, keypoints, track=track, canvas_px=canvas_of(data)))
