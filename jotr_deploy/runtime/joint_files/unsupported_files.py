"""Recognition of unsupported keypoint files by first bytes and keys, and the file to give instead."""

from __future__ import annotations

import re
from pathlib import Path

LAYOUTS = "give COCO or AlphaPose results, OpenPose files, or the .npz that --save-2d writes; see docs/joints.md"
BOX_LAYOUTS = (
    "give [[x0, y0, x1, y1], ...], {image name: [[x0, y0, x1, y1], ...]}, or COCO results with bbox and image_id"
)

_FILE_OF_JOINTS = "give the keypoint file made from it"
_NPZ = "save an .npz with 'joints', 'frame' and 'skeleton'"
_AS_COCO = "convert it to COCO results: a list of {image_id, category_id: 1, keypoints: [x, y, confidence, ...]}"

# Beginning of the file -> kind of file, remedy.
_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (rb"\s*version https://git-lfs", "is a Git LFS pointer, not the file itself", "fetch the file: git lfs pull"),
    (rb"\s*<(!doctype html|html)", "is a web page, not the file itself", "download the file itself"),
    (rb"\s*(<\?xml[^>]*>)?\s*<annotations", "is a CVAT XML file", "export it from CVAT as COCO Keypoints"),
    (rb"\s*(<\?xml[^>]*>)?\s*<annotation\b", "is a Pascal VOC XML file", _AS_COCO),
    (rb"\s*<\?xml", "is XML", _AS_COCO),
    (rb"\x80[\x02-\x05]", "is a Python pickle, which could run code", _AS_COCO),
    (rb"\x93NUMPY", "is a single array (.npy) without frames and skeleton",
     _NPZ),
    (rb"\x89HDF", "is an HDF5 file, as written by DeepLabCut", _AS_COCO),
    (rb"\x1f\x8b", "is compressed with gzip", "unpack it first: gunzip"),
    (rb"7z\xbc\xaf|Rar!", "is a compressed archive", "unpack it first"),
    (rb"%YAML|---\s", "is YAML", _AS_COCO),
    (rb"\xff\xd8\xff|\x89PNG", "is a picture", _FILE_OF_JOINTS),
    (rb"....ftyp|RIFF....AVI|\x1aE\xdf\xa3", "is a video", _FILE_OF_JOINTS),
)  # fmt: skip

_FOR_BOXES = {
    _AS_COCO: BOX_LAYOUTS,
    LAYOUTS: BOX_LAYOUTS,
    _FILE_OF_JOINTS: "give the box file made from it",
    _NPZ: BOX_LAYOUTS,
    "export it from CVAT as COCO Keypoints": "export it from CVAT as COCO",
}


def remedy_for(remedy: str, boxes: bool) -> str:
    """Remedy for a keypoint file, or its counterpart for a file of `boxes`."""
    return _FOR_BOXES.get(remedy, remedy) if boxes else remedy


def what_bytes_are(data: bytes) -> tuple[str, str] | None:
    """Kind of an unsupported file by its first bytes, and the remedy; None for anything else."""
    for beginning, what, remedy in _BEGINNINGS:
        if re.match(beginning, data, re.IGNORECASE | re.DOTALL):
            return what, remedy
    lines = [line for line in data[:20_000].splitlines() if line.strip()]
    if not lines:
        return None
    if len(lines) > 1 and all(re.match(rb"\s*\{.*\}\s*$", line) for line in lines[:2]):
        return "has one JSON object per line", "write them as one JSON list: jq -s . FILE"
    if all(re.fullmatch(rb"\s*[0-9]+(\s+[-+.eE0-9]+){4,}\s*", line) for line in lines[:3]):
        if all(re.match(rb"\s*[0-9]+(\s+(0?\.[0-9]+|[01]\.?0*)){4}(\s|$)", line) for line in lines[:3]):
            return "is a YOLO label file, whose coordinates are fractions of the picture", _AS_COCO
        return "is a table of numbers separated by spaces", _AS_COCO
    if re.match(rb"\s*[\[{]", data):
        return None
    for mark, called in ((b",", "commas (CSV)"), (b"\t", "tabs"), (b";", "semicolons")):
        if all(line.count(mark) >= 3 for line in lines[:2]):
            return f"is a table of values separated by {called}", _AS_COCO
    return None


# Keys that must all be present -> kind of file, remedy.
_KEYS: tuple[tuple[frozenset[str], str, str], ...] = tuple(
    (frozenset(keys.split()), what, remedy)
    for keys, what, remedy in (
        ("bundle people_per_frame", "is the summary of a run and contains no joints",
         "give the NAME_2d.npz beside it, written by run --save-2d"),
        ("source_sha256 files", "is the manifest of a bundle", LAYOUTS),
        ("shapes imageData", "is a LabelMe annotation file", _AS_COCO),
        ("shapes imagePath", "is a LabelMe annotation file", _AS_COCO),
        ("_via_img_metadata", "is a VGG Image Annotator project", "export it from there as COCO"),
        ("annolist", "is an MPII or PoseTrack 2017 annotation file", _AS_COCO),
        ("poseLandmarks", "contains MediaPipe landmarks", _AS_COCO),
        ("pose_landmarks", "contains MediaPipe landmarks", _AS_COCO),
        ("landmarks", "contains face or body landmarks, as written by MediaPipe", _AS_COCO),
        ("images categories", "is a COCO annotation file without 'annotations'", "give the file that has them"),
        ("info images", "is a COCO annotation file without 'annotations'", "give the file that has them"),
        ("coco_joints", "contains joints by 3DPW annotation number, not by picture", _AS_COCO),
        ("body_pose betas", "contains SMPL parameters, not 2-D joints", "give the 2-D joints of the pictures"),
        ("pose betas", "contains SMPL parameters, not 2-D joints", "give the 2-D joints of the pictures"),
        ("bboxes labels", "contains detector boxes but no joints", "give it as --boxes"),
        ("bodies hands faces", "is what DWPose returns in Python, not the file that it saves", _AS_COCO),
        ("candidate subset", "is what OpenPose returns in Python, not the file that it saves", _AS_COCO),
        ("preds image_paths", "contains MMPose 0.x results in batches",
         "give the result_keypoints.json that its evaluation writes"),
        ("pred_boxes", "contains Detectron2 instances",
         "write them with detectron2.evaluation.coco_evaluation.instances_to_coco_json"),
        ("poses scores", "is a YOLO-NAS prediction, which names no picture", _AS_COCO),
        ("keypoints skeleton", "is an easy_ViTPose result, whose joints are y, x, confidence", _AS_COCO),
        ("keypoints scores", "contains arrays of joints and scores, as returned by rtmlib", _AS_COCO),
        ("x y z", "contains MediaPipe landmarks", _AS_COCO),
        ("x y visibility", "contains MediaPipe landmarks", _AS_COCO),
        ("annotations data", "is a Label Studio export in its own layout", "export it from there as COCO"),
        ("xyxy", "contains detections of the supervision library", _AS_COCO),
        ("boxes scores", "contains detector boxes without saying which class is person",
         "give the boxes of people as --boxes: {image name: [[x0, y0, x1, y1], ...]}"),
        ("type features", "is GeoJSON", _AS_COCO),
    )
)  # fmt: skip


def what_json_is(path: Path, data: object) -> tuple[str, str]:
    """Cause and remedy for JSON in an unsupported layout: its kind if the keys identify it, else its first keys."""
    return _recognised(path, data) or (f"{path}: not a known keypoint layout{_first_keys(data)}", LAYOUTS)


def is_recognised(path: Path, data: object) -> bool:
    """True for JSON whose keys identify an unsupported layout."""
    return _recognised(path, data) is not None


def _recognised(path: Path, data: object) -> tuple[str, str] | None:
    if isinstance(data, str):
        return f"{path}: is JSON inside a JSON string, encoded twice", "write the value itself, not its JSON text"
    item = data[0] if isinstance(data, list) and data else data
    if isinstance(item, list) and item:
        cause = f"{path}: is an array without picture names"
        return cause, "write {picture name: people x joints x (x, y, confidence)}"
    if isinstance(item, dict):
        first = next(iter(item.values()), None)
        for candidate in (item, first):
            if isinstance(candidate, dict):
                for keys, what, remedy in _KEYS:
                    if keys <= candidate.keys():
                        return f"{path}: {what}", remedy
    return None


def _first_keys(data: object) -> str:
    item = data[0] if isinstance(data, list) and data else data
    if not isinstance(item, dict) or not item:
        return ""
    keys = ", ".join(f"'{key}'" for key in list(item)[:4])
    return f" (its keys are {keys}{', ...' if len(item) > 4 else ''})"
