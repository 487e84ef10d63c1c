"""Files of joints that are not read: their kind, by first bytes and keys, and the file that is read instead."""

from __future__ import annotations

import re
from pathlib import Path

LAYOUTS = "give COCO or AlphaPose results, OpenPose files, or the .npz that --save-2d writes; docs/joints.md has all"
BOX_LAYOUTS = (
    "give [[x0, y0, x1, y1], ...], {image name: [[x0, y0, x1, y1], ...]}, or COCO results with bbox and image_id"
)

_FILE_OF_JOINTS = "give the file of its joints"
_NPZ = "save an .npz with 'joints', 'frame' and 'skeleton'"
_AS_COCO = "convert it to COCO results: a list of {image_id, category_id: 1, keypoints: [x, y, confidence, ...]}"

# First bytes, and more of the beginning -> what it is, what to do.
_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (rb"\s*version https://git-lfs", "is a pointer of Git LFS, not the file itself", "fetch the file: git lfs pull"),
    (rb"\s*<(!doctype html|html)", "is a web page, not the file itself", "download the file itself"),
    (rb"\s*(<\?xml[^>]*>)?\s*<annotations", "is an XML file of CVAT", "export it from CVAT as COCO Keypoints"),
    (rb"\s*(<\?xml[^>]*>)?\s*<annotation\b", "is an XML file of Pascal VOC", _AS_COCO),
    (rb"\s*<\?xml", "is XML", _AS_COCO),
    (rb"\x80[\x02-\x05]", "is a Python pickle, which could run code", _AS_COCO),
    (rb"\x93NUMPY", "is a single array (.npy), which says neither frames nor skeleton",
     _NPZ),
    (rb"\x89HDF", "is an HDF5 file, as DeepLabCut writes it", _AS_COCO),
    (rb"\x1f\x8b", "is packed with gzip", "unpack it first: gunzip"),
    (rb"7z\xbc\xaf|Rar!", "is a packed archive", "unpack it first"),
    (rb"%YAML|---\s", "is YAML", _AS_COCO),
    (rb"\xff\xd8\xff|\x89PNG", "is a picture", _FILE_OF_JOINTS),
    (rb"....ftyp|RIFF....AVI|\x1aE\xdf\xa3", "is a video", _FILE_OF_JOINTS),
)  # fmt: skip

_FOR_BOXES = {
    _AS_COCO: BOX_LAYOUTS,
    LAYOUTS: BOX_LAYOUTS,
    _FILE_OF_JOINTS: "give the file of its boxes",
    _NPZ: BOX_LAYOUTS,
    "export it from CVAT as COCO Keypoints": "export it from CVAT as COCO",
}


def remedy_for(remedy: str, boxes: bool) -> str:
    """The remedy about a file of joints, or the one about a file of `boxes` in its place."""
    return _FOR_BOXES.get(remedy, remedy) if boxes else remedy


def what_bytes_are(data: bytes) -> tuple[str, str] | None:
    """What a file is by its first bytes and what to do, for kinds that are not read; None for anything else."""
    for beginning, what, remedy in _BEGINNINGS:
        if re.match(beginning, data, re.IGNORECASE | re.DOTALL):
            return what, remedy
    lines = [line for line in data[:20_000].splitlines() if line.strip()]
    if not lines:
        return None
    if len(lines) > 1 and all(re.match(rb"\s*\{.*\}\s*$", line) for line in lines[:2]):
        return "holds one JSON object a line", "write them as one JSON list: jq -s . FILE"
    if all(re.fullmatch(rb"\s*[0-9]+(\s+[-+.eE0-9]+){4,}\s*", line) for line in lines[:3]):
        if all(re.match(rb"\s*[0-9]+(\s+(0?\.[0-9]+|[01]\.?0*)){4}(\s|$)", line) for line in lines[:3]):
            return "holds label text of YOLO, whose places are fractions of the picture", _AS_COCO
        return "is a table of numbers with spaces", _AS_COCO
    if re.match(rb"\s*[\[{]", data):
        return None
    for mark, called in ((b",", "commas (CSV)"), (b"\t", "tabs"), (b";", "semicolons")):
        if all(line.count(mark) >= 3 for line in lines[:2]):
            return f"is a table of values with {called}", _AS_COCO
    return None


# Keys that a file has, all of them -> what it is, what to do.
_KEYS: tuple[tuple[frozenset[str], str, str], ...] = tuple(
    (frozenset(keys.split()), what, remedy)
    for keys, what, remedy in (
        ("bundle people_per_frame", "is the summary of a run; it holds no joints",
         "give the NAME_2d.npz beside it, which run --save-2d writes"),
        ("source_sha256 files", "is the manifest of a bundle", LAYOUTS),
        ("shapes imageData", "is an annotation file of LabelMe", _AS_COCO),
        ("shapes imagePath", "is an annotation file of LabelMe", _AS_COCO),
        ("_via_img_metadata", "is a project of the VGG Image Annotator", "export it from there as COCO"),
        ("annolist", "is an annotation file of MPII or PoseTrack 2017", _AS_COCO),
        ("poseLandmarks", "holds landmarks of MediaPipe", _AS_COCO),
        ("pose_landmarks", "holds landmarks of MediaPipe", _AS_COCO),
        ("landmarks", "holds landmarks of a face or body, as MediaPipe writes them", _AS_COCO),
        ("images categories", "is an annotation file of COCO without 'annotations'", "give the file that has them"),
        ("info images", "is an annotation file of COCO without 'annotations'", "give the file that has them"),
        ("coco_joints", "holds joints by the numbers of 3DPW's annotations, not by pictures", _AS_COCO),
        ("body_pose betas", "holds SMPL parameters; meshes are what run makes", "give the 2-D joints of the pictures"),
        ("pose betas", "holds SMPL parameters; meshes are what run makes", "give the 2-D joints of the pictures"),
        ("bboxes labels", "holds boxes of a detector and no joints", "give it as --boxes"),
        ("bodies hands faces", "is what DWPose gives in Python, not the file that it saves", _AS_COCO),
        ("candidate subset", "is what OpenPose gives in Python, not the file that it saves", _AS_COCO),
        ("preds image_paths", "holds results of MMPose 0.x by batches",
         "give the result_keypoints.json that its evaluation writes"),
        ("pred_boxes", "holds instances of Detectron2",
         "write them with detectron2.evaluation.coco_evaluation.instances_to_coco_json"),
        ("poses scores", "is a prediction of YOLO-NAS, which names no picture", _AS_COCO),
        ("keypoints skeleton", "is a result of easy_ViTPose, whose joints are y, x, confidence", _AS_COCO),
        ("keypoints scores", "holds arrays of joints and of their scores, as rtmlib gives them", _AS_COCO),
        ("x y z", "holds landmarks of MediaPipe", _AS_COCO),
        ("x y visibility", "holds landmarks of MediaPipe", _AS_COCO),
        ("annotations data", "is an export of Label Studio in its own layout", "export it from there as COCO"),
        ("xyxy", "holds detections of supervision", _AS_COCO),
        ("boxes scores", "holds boxes of a detector, and does not say what class is person",
         "give the boxes of people as --boxes: {image name: [[x0, y0, x1, y1], ...]}"),
        ("type features", "is GeoJSON", _AS_COCO),
    )
)  # fmt: skip


def what_json_is(path: Path, data: object) -> tuple[str, str]:
    """Cause and remedy about JSON whose layout is not read: what it is where the keys tell, else its first keys."""
    if isinstance(data, str):
        return f"{path}: is JSON in a string, encoded twice", "write the value itself, not its JSON text"
    item = data[0] if isinstance(data, list) and data else data
    if isinstance(item, list) and item:
        cause = f"{path}: is an array without the names of pictures"
        return cause, "write {name of the picture: people x joints x (x, y, confidence)}"
    if isinstance(item, dict):
        first = next(iter(item.values()), None)
        for candidate in (item, first):
            if isinstance(candidate, dict):
                for keys, what, remedy in _KEYS:
                    if keys <= candidate.keys():
                        return f"{path}: {what}", remedy
        keys_text = ", ".join(f"'{key}'" for key in list(item)[:4]) + (", ..." if len(item) > 4 else "")
        if keys_text:
            return f"{path}: not a layout of keypoints that is known (it has {keys_text})", LAYOUTS
    return f"{path}: not a layout of keypoints that is known", LAYOUTS
