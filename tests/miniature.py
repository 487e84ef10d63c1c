"""Every annotated set in miniature, in the layouts of its files: a stick figure of round numbers, two to seven people.

Everybody faces the camera upright, three metres away if nothing else is said, so that a millimetre is 0.05 pixels and a
joint lies 0.05 px/mm * STICK_MM from the pelvis. Pictures have 120 x 100 px. `KNOWN` says who is to be read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from jotr_deploy.datasets.published import human36m, three_dpw
from jotr_deploy.skeletons import H36M17, SKELETONS

WIDTH, HEIGHT = SIZE_PX = (120, 100)
FOCAL, CENTRE = (150, 150), (60, 50)
PX_PER_MM = 0.05  # 3 m away


def _both(name: str, x: int, y: int, z: int = 0) -> dict[str, tuple[int, int, int]]:
    return {f"L_{name}": (x, y, z), f"R_{name}": (-x, y, z)}


# From the pelvis: x right in the picture, so to the person's left; y down, z away from the camera.
STICK_MM: dict[str, tuple[int, int, int]] = {
    **{"Pelvis": (0, 0, 0), "Torso": (0, -200, 0), "Spine": (0, -300, 0), "Thorax": (0, -450, 0)},
    **{"Neck": (0, -500, 0), "Head": (0, -600, 0), "Head_top": (0, -700, 0), "Nose": (0, -600, -100)},
    **_both("Hip", 100, 0), **_both("Knee", 100, 400), **_both("Ankle", 100, 800), **_both("Toe", 100, 850, -100),
    **_both("Shoulder", 200, -500), **_both("Elbow", 200, -250), **_both("Wrist", 200, 0), **_both("Hand", 200, 50),
    **_both("Eye", 50, -620, -80), **_both("Ear", 80, -620),
}  # fmt: skip


@dataclass(frozen=True)
class Known:
    """Somebody who is to be read."""

    key: str
    image: str  # under the root
    pelvis_px: tuple[float, float]
    fit: int | None  # the number that `pose_rad`, `betas` and `trans_m` take
    sequence: str = ""
    frame: int = 0
    gender: str = "neutral"


def pose_rad(number: int) -> Any:
    """(24, 3): upright before a camera whose y points down, and the left elbow bent."""
    out = np.zeros((24, 3))
    out[0, 0], out[18, 1] = np.pi, -0.1 * number
    return out


def betas(number: int) -> Any:
    """(10,)."""
    return np.array([0.1 * number, *[0.0] * 9])


def trans_m(number: int) -> Any:
    """(3,)."""
    return np.array([0.1 * number, 0.2, 3.0])


def _h36m(key: str, image: str, x: float, fit: int | None, subject: int, camera: int, frame: int) -> Known:
    sequence = f"subject {subject} action 2 subaction 1 camera {camera}"
    return Known(key, f"Human36M/images/{image}", (x, 50), fit, sequence, frame)


def _3dpw(number: int, sequence: str, frame: int, x: float, gender: str = "male") -> Known:
    image = f"3DPW/imageFiles/{sequence}/image_{frame:05d}.jpg"
    return Known(str(number), image, (x, 50), number, sequence, frame, gender)


_WALK, _HUG, _PACK, _BAR = "downtown_walking_00", "courtyard_hug_00", "courtyard_backpack_00", "downtown_bar_00"
_CROWD = (
    *(_3dpw(11, _HUG, 3, 50), _3dpw(12, _HUG, 3, 70, "female"), _3dpw(13, _HUG, 4, 51)),
    *(_3dpw(14, _HUG, 4, 71, "female"), _3dpw(15, "courtyard_dancing_00", 7, 60)),
)

# Who is to be read, by set and split, in the order of the files.
KNOWN: dict[tuple[str, str], tuple[Known, ...]] = {
    ("h36m", "train"): (
        _h36m("1/1", "s_01/0001.jpg", 60, 1, 1, 1, 0),
        _h36m("1/2", "s_01/0002.jpg", 60, 1, 1, 2, 0),
        _h36m("1/3", "s_01/0003.jpg", 75, None, 1, 1, 5),
        _h36m("5/1", "s_05/0001.jpg", 60, 2, 5, 1, 10),
    ),
    ("mscoco", "train"): (
        Known("1", "MSCOCO/images/train2017/000000000001.jpg", (60, 50), 1),
        Known("2", "MSCOCO/images/train2017/000000000002.jpg", (30, 50), None),
    ),
    ("muco", "train"): (
        Known("2", "MuCo/images/augmented_set/1/1.jpg", (75, 50), 2),
        Known("4", "MuCo/images/unaugmented_set/1/2.jpg", (60, 50), None),
    ),
    ("crowdpose", "train"): (
        Known("1", "CrowdPose/images/100.jpg", (30, 50), 1),
        Known("2", "CrowdPose/images/100.jpg", (95, 50), None),
        Known("3", "CrowdPose/images/101.jpg", (60, 50), None),
        Known("4", "CrowdPose/images/101.jpg", (70, 50), 4),
    ),
    ("3dpw", "test"): (
        *(_3dpw(1, _WALK, 12, 40), _3dpw(2, _WALK, 12, 80, "female"), _3dpw(3, _WALK, 13, 42)),
        *(_3dpw(4, _WALK, 13, 79, "female"), _3dpw(5, _WALK, 14, 46), _3dpw(6, _WALK, 14, 78, "female")),
        _3dpw(7, "outdoors_fencing_01", 1, 60),
    ),
    ("3dpw", "validation"): (*_CROWD, _3dpw(16, "office_phoneCall_00", 1, 60, "female")),
    ("3dpw-oc", "test"): (_3dpw(21, _PACK, 1, 55), _3dpw(22, _PACK, 2, 56)),
    ("3dpw-pc", "test"): (_3dpw(31, _BAR, 5, 50), _3dpw(32, _BAR, 5, 65, "female")),
    ("3dpw-crowd", "validation"): _CROWD,
    ("3dpw-occ-3dnbf", "all"): tuple(
        replace(_3dpw(number, f"{sequence}_{number % 3:02d}", 30 * number, 60), key=f"{split}/{number}")
        for split, numbers in (("train", range(8)), ("validation", range(8, 12)), ("test", range(12, 17)))
        for number, sequence in enumerate(three_dpw.OCC_SEQUENCES)
        if number in numbers
    ),
    ("3doh", "test"): (
        Known("testImages/1_color.jpg", "3DOH/images/testImages/1_color.jpg", (60, 50), 1),
        Known("testImages/2_color.jpg", "3DOH/images/testImages/2_color.jpg", (40, 50), 2),
    ),
}
FALLS_BACK = "14"  # of 3DPW-Crowd: not in the file of HigherHRNet
NAMES = tuple(dict.fromkeys(name for name, _ in KNOWN))


def write_miniature(name: str, root: Path) -> None:
    """Write a set under a root, pictures included; those of other sets stay."""
    _WRITERS[name](root)
    for (of, _), people in KNOWN.items():
        for person in people if of == name else ():
            _picture(root / person.image)


def stick_px(names: tuple[str, ...], pelvis_px: tuple[float, float]) -> list[list[float]]:
    """x, y of these joints, all in the plane of the pelvis three metres away."""
    x, y = pelvis_px
    return [[x + PX_PER_MM * STICK_MM[joint][0], y + PX_PER_MM * STICK_MM[joint][1]] for joint in names]


def box_xywh(pelvis_px: tuple[float, float]) -> list[float]:
    """The box of everybody: 10 px to each side of the pelvis, 35 up and 43 down."""
    return [pelvis_px[0] - 10, pelvis_px[1] - 35, 20, 78]


def smpl_param(number: int) -> dict[str, Any]:
    """A fit as most files have it."""
    return {
        "pose": pose_rad(number).ravel().tolist(),
        "shape": betas(number).tolist(),
        "trans": trans_m(number).tolist(),
    }


# ── the files of each set ────────────────────────────────────────────────────────────────────────────────────────


def _write_h36m(root: Path) -> None:
    from_behind = {"R": [[-1, 0, 0], [0, 0, -1], [0, -1, 0]], "t": [0, 1000, 3000], "f": FOCAL, "c": CENTRE}
    cameras = {"1": {**from_behind, "R": [[1, 0, 0], [0, 0, -1], [0, 1, 0]]}, "2": from_behind}
    standing, aside, near = _world_mm(0), _world_mm(300), _world_mm(50)
    frames = {1: {"0": standing, "5": aside, "7": near}, 5: {"10": standing}}
    fits: dict[int, Any] = {1: {"0": smpl_param(1), "7": smpl_param(9)}, 5: {"10": smpl_param(2)}}
    views = {1: ((1, 0, 1), (2, 0, 2), (3, 5, 1), (4, 7, 1)), 5: ((1, 10, 1),)}
    for subject in human36m.SUBJECTS:
        images = [
            _image(number, f"s_{subject:02d}/{number:04d}.jpg", subject=subject, action_idx=2, subaction_idx=1,
                   frame_idx=frame, cam_idx=camera)
            for number, frame, camera in views.get(subject, ())
        ]  # fmt: skip
        people = [_of(number, number, (60, 50)) for number, _, _ in views.get(subject, ())]
        parts = (
            {"images": images, "annotations": people}, cameras,
            {"2": {"1": frames[subject]}} if subject in frames else {},
            {"2": {"1": fits[subject]}} if subject in fits else {},
        )  # fmt: skip
        for part, content in zip(human36m.PARTS, parts, strict=True):
            _json(root, f"Human36M/annotations/Human36M_subject{subject}_{part}.json", content)


def _world_mm(x: float) -> list[list[float]]:
    """(17, 3) of the figure with its pelvis at x, 0, 1000; the studio's z points up."""
    return [[x + STICK_MM[joint][0], STICK_MM[joint][2], 1000 - STICK_MM[joint][1]] for joint in H36M17]


def _write_mscoco(root: Path) -> None:
    def person(number: int, image: int, x: float, unlabelled: tuple[str, ...] = (), **more: int) -> dict[str, Any]:
        names = SKELETONS["coco17"]
        points = stick_px(names, (x, 50))
        keypoints = [[*xy, 0 if name in unlabelled else 2] for name, xy in zip(names, points, strict=True)]
        flat = [number for point in keypoints for number in point]
        counts = {"iscrowd": 0, "num_keypoints": 17 - len(unlabelled)}
        return {**_of(number, image, (x, 50)), "keypoints": flat, "segmentation": [[1, 2, 3, 4]], **counts, **more}

    people = [
        person(1, 1, 60), person(2, 2, 30, ("R_Hip", "L_Ear")), person(3, 2, 90, iscrowd=1),
        person(4, 2, 90, SKELETONS["coco17"]),
    ]  # fmt: skip
    images = [_image(number, f"{number:012d}.jpg") for number in (1, 2)]
    fits = {number: {"smpl_param": smpl_param(fit), "cam_param": _CAMERA} for number, fit in (("1", 1), ("3", 3))}
    content = {"info": {"year": 2017}, "licenses": [], "images": images, "annotations": people}
    _json(root, "MSCOCO/annotations/person_keypoints_train2017.json", content)
    _json(root, "MSCOCO/annotations/MSCOCO_train_SMPL_NeuralAnnot.json", fits)


_MUCO21 = (
    *("Head_top", "Thorax", "R_Shoulder", "R_Elbow", "R_Wrist", "L_Shoulder", "L_Elbow", "L_Wrist", "R_Hip", "R_Knee"),
    *("R_Ankle", "L_Hip", "L_Knee", "L_Ankle", "Pelvis", "Spine", "Head", "R_Hand", "L_Hand", "R_Toe", "L_Toe"),
)


def _write_muco(root: Path) -> None:
    def person(number: int, image: int, x_mm: float, depth_mm: float) -> dict[str, Any]:
        places = [[x_mm + STICK_MM[j][0], STICK_MM[j][1], depth_mm + STICK_MM[j][2]] for j in _MUCO21]
        pixels = [[x / z * FOCAL[0] + CENTRE[0], y / z * FOCAL[1] + CENTRE[1]] for x, y, z in places]
        pelvis_px = (x_mm / depth_mm * FOCAL[0] + CENTRE[0], CENTRE[1])
        return {**_of(number, image, pelvis_px), "keypoints_img": pixels, "keypoints_cam": places}

    people = [person(1, 1, -800, 4000), person(2, 1, 300, 3000), person(3, 1, 0, 5000), person(4, 2, 0, 3000)]
    camera = {"f": FOCAL, "c": CENTRE}
    images = [_image(1, "augmented_set/1/1.jpg", **camera), _image(2, "unaugmented_set/1/2.jpg", **camera)]
    _json(root, "MuCo/annotations/MuCo-3DHP.json", {"images": images, "annotations": people})
    _json(root, "MuCo/annotations/smpl_param.json", {"1": smpl_param(1), "2": smpl_param(2)})


def _write_crowdpose(root: Path) -> None:
    """With width and height swapped, as published."""
    names = SKELETONS["crowdpose14"]
    people = []
    for number, person in enumerate(KNOWN["crowdpose", "train"], 1):
        points = stick_px(names, person.pelvis_px)
        keypoints = [number for point in points for number in (*point, 1)]
        people.append({**_of(number, 100 + (number > 2), person.pelvis_px), "keypoints": keypoints})
    people[3]["keypoints"][:3] = [0, 0, 0]  # L_Shoulder of the last
    images = [{**_image(number, f"{number}.jpg"), "width": HEIGHT, "height": WIDTH} for number in (100, 101)]
    fits = {
        str(number): {"smpl_param": smpl_param(number), "cam_param": _CAMERA, "fit_err": error}
        for number, error in ((1, 3.0), (2, 5.0), (4, 4.99))
    }
    _json(root, "CrowdPose/annotations/crowdpose_train.json", {"images": images, "annotations": people})
    _json(root, "CrowdPose/annotations/CrowdPose_train_SMPL_NeuralAnnot.json", fits)


def _write_3dpw(root: Path) -> None:
    _3dpw_file(root, "3DPW_latest_test.json", KNOWN["3dpw", "test"])
    _3dpw_file(root, "3DPW_latest_validation.json", KNOWN["3dpw", "validation"])


def _write_3dpw_crowd(root: Path) -> None:
    """HigherHRNet finds everybody a pixel more to the right than OpenPose does, but one not at all."""
    _3dpw_file(root, "3DPW_latest_validation.json", KNOWN["3dpw", "validation"])
    found = {
        person.key: {"coco_joints": _found("coco17", (person.pelvis_px[0] + 1, person.pelvis_px[1]), 0.75)}
        for person in KNOWN["3dpw", "validation"]
        if person.key != FALLS_BACK
    }
    _json(root, "3DPW/annotations/3DPW_validation_crowd_hhrnet_result.json", found)


def _write_3dpw_occ(root: Path) -> None:
    """Beside those who are to be read, somebody in the frame after, and somebody of another sequence."""
    for split in ("train", "validation", "test"):
        people = [person for person in KNOWN["3dpw-occ-3dnbf", "all"] if person.key.startswith(split)]
        own = [replace(person, key=person.key.rpartition("/")[2]) for person in people]
        others = _3dpw(91, own[0].sequence, own[0].frame + 1, 60), _3dpw(92, "courtyard_golfCart_00", 30, 60)
        _3dpw_file(root, f"3DPW_latest_{split}.json", (*own, *others))


def _3dpw_file(root: Path, file: str, people: tuple[Known, ...]) -> None:
    numbers = {image: number for number, image in enumerate(dict.fromkeys(person.image for person in people), 1)}
    images, annotations = {}, []
    for person in people:
        number = numbers[person.image]
        images[number] = _image(number, Path(person.image).name, sequence=person.sequence, cam_param=_CAMERA)
        annotations.append({
            **_of(int(person.key), number, person.pelvis_px),
            "smpl_param": {**smpl_param(int(person.key)), "gender": person.gender},
            "openpose_result": _found("coco18", person.pelvis_px, 0.875),
        })  # fmt: skip
    _json(root, f"3DPW/annotations/{file}", {"images": list(images.values()), "annotations": annotations})


def _write_3doh(root: Path) -> None:
    people = {}
    for number, person in enumerate(KNOWN["3doh", "test"], 1):
        x, y, width, height = box_xywh(person.pelvis_px)
        fit = smpl_param(number)
        people[person.key] = {
            **fit, "pose": [fit["pose"]], "scale": 1.0, "hrnet_results": _found("coco17", person.pelvis_px, 0.75),
            "bbox": [x, y, x + width, y + height],
        }  # fmt: skip
    _json(root, "3DOH/annotations/3doh_test_annots_scale_1.json", people)


# ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────────

_CAMERA = {"focal": FOCAL, "princpt": CENTRE}


def _image(number: int, file: str, **more: Any) -> dict[str, Any]:
    return {"id": number, "file_name": file, "width": WIDTH, "height": HEIGHT, **more}


def _of(number: int, image: int, pelvis_px: tuple[float, float]) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": 1, "bbox": box_xywh(pelvis_px)}


def _found(skeleton: str, pelvis_px: tuple[float, float], confidence: float) -> list[list[float]]:
    """Joints as a network finds them: all but the ears."""
    names = SKELETONS[skeleton]
    return [
        [0.0, 0.0, 0.0] if name.endswith("Ear") else [*xy, confidence]
        for name, xy in zip(names, stick_px(names, pelvis_px), strict=True)
    ]


def _json(root: Path, file: str, content: Any) -> None:
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    cv2.imwrite(str(path), cv2.rectangle(picture, (50, 15), (70, 93), (60, 90, 120), -1))


_WRITERS: dict[str, Callable[[Path], None]] = {
    "h36m": _write_h36m,
    "mscoco": _write_mscoco,
    "muco": _write_muco,
    "crowdpose": _write_crowdpose,
    "3dpw": _write_3dpw,
    "3dpw-oc": lambda root: _3dpw_file(root, "3DPW_oc.json", KNOWN["3dpw-oc", "test"]),
    "3dpw-pc": lambda root: _3dpw_file(root, "3DPW_pc.json", KNOWN["3dpw-pc", "test"]),
    "3dpw-crowd": _write_3dpw_crowd,
    "3dpw-occ-3dnbf": _write_3dpw_occ,
    "3doh": _write_3doh,
}
