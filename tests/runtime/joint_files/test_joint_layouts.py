"""Every layout of joints that is read, with one and the same person in it; and those that are not, by their names."""

import json

import numpy as np
import pytest

from jotr_deploy.errors import KeypointFileError
from jotr_deploy.runtime.joint_files.box_file import read_boxes
from jotr_deploy.runtime.joint_files.keypoint_file import read_keypoints
from jotr_deploy.skeletons import SKELETONS, SMPL30_INDEX, to_smpl30

SIZE_PX = (640, 480)
RNG = np.random.default_rng(1)
PEOPLE = RNG.uniform([2, 2, 0.1], [600, 400, 1], (2, 17, 3)).astype(np.float32)
COCO18 = RNG.uniform([2, 2, 0.1], [600, 400, 1], (2, 18, 3)).astype(np.float32)
EXPECTED, EXPECTED18 = to_smpl30(PEOPLE, "coco17"), to_smpl30(COCO18, "coco18")


def named(names):
    return {"images": [], "annotations": [coco(A)], "categories": [{"id": 1, "name": "person", "keypoints": names}]}


def flat(joints):
    return [float(x) for x in np.ravel(joints)]


def nested(joints):
    return [flat(joint) for joint in joints]


def coco(joints, **more):
    return {"image_id": "a.jpg", "category_id": 1, "keypoints": flat(joints), "score": 0.5, **more}


def instance(joints, **more):
    return {"keypoints": nested(joints[:, :2]), "keypoint_scores": flat(joints[:, 2]), **more}


def ultralytics(joints):
    columns = dict(zip(("x", "y", "visible"), (flat(column) for column in joints.T), strict=True))
    return {
        "name": "person",
        "class": 0,
        "confidence": 0.5,
        "box": {"x1": 1, "y1": 2, "x2": 9, "y2": 9},
        "keypoints": columns,
    }


def by_names(joints):
    return {**coco(joints), "keypoints": [
        {"x": float(x), "y": float(y), "score": float(c), "name": name}
        for (x, y, c), name in reversed(list(zip(joints, NAMES, strict=True)))
    ]}  # fmt: skip


NAMES = ["nose", *(f"{side}_{name}" for name in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
                   for side in ("left", "right"))]  # fmt: skip
A, B = PEOPLE
FACE = {"face_keypoints_2d": [1.0] * 210}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([coco(A), coco(B)], EXPECTED),
        ([coco(A, category_id=0), coco(B, category_id=0)], EXPECTED),  # counted from 0
        ([coco(A, category_id=0), coco(B, category_id=1)], EXPECTED[:1]),  # where 1 is something else
        ([coco(A, category_id="1"), coco(B, category_id=None)], EXPECTED),
        ([coco(A), {**coco(B), "keypoints": None}], EXPECTED[:1]),
        ([coco(A), {"image_id": "a.jpg", "bbox": [1, 2, 3, 4]}], EXPECTED[:1]),
        ([coco([*A, *np.ones((116, 3))])], EXPECTED[:1]),  # COCO-WholeBody, flat
        ([coco(A, foot_kpts=[1.0] * 18, face_kpts=[1.0] * 204)], EXPECTED[:1]),  # and split
        ([{**coco(A), "keypoints": [str(x) for x in flat(A)]}], EXPECTED[:1]),
        ([{**coco(A), "keypoints": nested(A)}], EXPECTED[:1]),
        ([by_names(A)], EXPECTED[:1]),
        ([ultralytics(A), ultralytics(B)], EXPECTED),
        ({"images": [{"id": 7, "file_name": "s/a.jpg", "width": 640, "height": 480}],
          "annotations": [coco(A, image_id=7, iscrowd=0), coco(B, image_id=7, iscrowd=1)]}, EXPECTED[:1]),
        ({"images": [{"id": 7, "file_name": "a.jpg"}], "annotations": [coco(A[::-1], image_id=7, category_id=4)],
          "categories": [{"id": 4, "name": "person", "keypoints": NAMES[::-1]}]}, EXPECTED[:1]),
        ({"version": 1.1, "people": [{"pose_keypoints": flat(p)} for p in COCO18]}, EXPECTED18),
        ({"people": [{"pose_keypoints_2d": [], **FACE}, {"pose_keypoints_2d": flat(COCO18[1])}]}, EXPECTED18[1:]),
        ({"people": [FACE, {"pose_keypoints_2d": None}, {"pose_keypoints_2d": flat(COCO18[1])}]}, EXPECTED18[1:]),
        ([{"people": [{"pose_keypoints_2d": flat(p)} for p in COCO18], "canvas_width": 640, "canvas_height": 480}],
         EXPECTED18),
        ({"a.jpg": {"version": "AlphaPose", "people": [{"pose_keypoints_2d": flat(p)} for p in COCO18]}}, EXPECTED18),
        ({"a.jpg": [{"keypoints": flat(p), "scores": 2.9, "box": [1, 2, 3, 4], "idx": 1 + at}
                    for at, p in enumerate(PEOPLE)]}, EXPECTED),
        ({"a.jpg": [nested(A), nested(B)], "b.jpg": []}, EXPECTED),
        ({"a.jpg": [nested(np.column_stack([p, p[:, :2]])) for p in PEOPLE]}, EXPECTED),  # with tags
        ({"a.jpg": nested(A)}, EXPECTED[:1]),
        ([instance(A), instance(B)], EXPECTED),
        ({"meta_info": {"dataset_name": "coco"}, "instance_info": [instance(A), instance(B)]}, EXPECTED),
        ({"meta_info": {"keypoint_id2name": dict(enumerate(NAMES[::-1]))}, "instance_info": [instance(A[::-1])]},
         EXPECTED[:1]),
        ([[instance(A), instance(B)]], EXPECTED),  # in Python, saved as it is
        ({"predictions": [[instance(A), instance(B)]], "visualization": []}, EXPECTED),
        ([{"keypoints": nested(p), "bbox": [1, 2, 3, 4]} for p in PEOPLE], EXPECTED),  # of one picture
        ({"results": [coco(A), coco(B)]}, EXPECTED),
        (coco(A), EXPECTED[:1]),
        ([{"keypoints": [{"position": {"x": float(x), "y": float(y)}, "score": float(c), "part": name}
                         for (x, y, c), name in zip(A, NAMES, strict=True)]}], EXPECTED[:1]),
        ([{**coco(A), "keypoints": flat(A * [1, 1, 0]), "keypoint_scores": flat(A[:, 2])}], EXPECTED[:1]),
        ({"images": [{"id": 7, "file_name": "a.jpg", "width": "320", "height": "240"}],
          "annotations": [coco(A * [0.5, 0.5, 1], image_id="7")]}, EXPECTED[:1]),
        ({"images": [{"id": "f3", "path": "s/a.jpg"}, {"id": "f4", "path": "s/b.jpg"}],
          "annotations": [coco(A, image_id="f3"), coco(B, image_id="f4"), coco(B, image_id="f5")]}, EXPECTED[:1]),
    ],
)  # fmt: skip
def test_layouts(tmp_path, data, expected):
    path = tmp_path / "k.json"
    path.write_text(json.dumps(data))
    found = read_keypoints(path).for_image("a.jpg", size_px=SIZE_PX)
    np.testing.assert_allclose(found.keypoints_px, expected, rtol=1e-6)


@pytest.mark.parametrize("skeleton", sorted(SKELETONS))
def test_places_without_confidence(tmp_path, skeleton):
    joints = RNG.uniform(2, 400, (len(SKELETONS[skeleton]), 2)).astype(np.float32)
    (tmp_path / "k.json").write_text(json.dumps([{**coco(A), "keypoints": flat(joints)}]))
    if len(joints) * 2 in [3 * len(names) for names in SKELETONS.values()]:
        pytest.skip("as many numbers as another skeleton has")
    found = read_keypoints(tmp_path / "k.json").for_image("a.jpg")
    np.testing.assert_allclose(found.keypoints_px, to_smpl30(np.insert(joints, 2, 1, 1)[None], skeleton), rtol=1e-6)


@pytest.mark.parametrize("mark", [[0, 0, 1], [-1, -1, 0.5], ["None", "None", "None"], ["", None, "NaN"]])
@pytest.mark.parametrize("size_px", [(1, 1), SIZE_PX])
def test_marks_of_joints_that_were_not_found(tmp_path, mark, size_px):
    joints = nested(A / [*size_px, 1] * [*SIZE_PX, 1] if size_px == SIZE_PX else A / [*SIZE_PX, 1])
    joints[0] = mark
    (tmp_path / "k.json").write_text(json.dumps([{**coco(A), "keypoints": joints}]))
    found = read_keypoints(tmp_path / "k.json").for_image("a.jpg", size_px=SIZE_PX).keypoints_px[0]
    np.testing.assert_array_equal(found[SMPL30_INDEX["Nose"]], 0)
    np.testing.assert_allclose(found[SMPL30_INDEX["L_Hip"]], EXPECTED[0, SMPL30_INDEX["L_Hip"]], rtol=1e-5)


SHORT = [
    "nose",
    *(f"{side}{name}" for name in ("eye", "ear", "sho", "elb", "wri", "hip", "kne", "ank") for side in "lr"),
]
LONG = ["Nose", *(name[0] + name[name.index("_") + 1 :].capitalize() for name in NAMES[1:])]  # LShoulder


@pytest.mark.parametrize("names", [NAMES, SHORT, LONG, [name.replace("_", " ") for name in NAMES]])
def test_names_of_joints_as_tools_write_them(tmp_path, names):
    data = {"images": [], "annotations": [coco(A[::-1])],
            "categories": [{"id": 1, "name": "person", "keypoints": names[::-1]}]}  # fmt: skip
    (tmp_path / "k.json").write_text(json.dumps(data))
    np.testing.assert_allclose(read_keypoints(tmp_path / "k.json").for_image("a.jpg").keypoints_px, EXPECTED[:1])


def test_halpe136_is_halpe26_and_more(tmp_path):
    body = RNG.uniform([2, 2, 0.1], [600, 400, 1], (26, 3)).astype(np.float32)
    (tmp_path / "k.json").write_text(json.dumps([coco([*body, *np.ones((110, 3))])]))
    found = read_keypoints(tmp_path / "k.json").for_image("a.jpg")
    np.testing.assert_array_equal(found.keypoints_px, to_smpl30(body[None], "halpe26"))


@pytest.mark.parametrize("bad", [float("nan"), None, 1e39])
@pytest.mark.parametrize("column", [0, 1, 2])
def test_a_joint_that_is_no_number_is_absent(tmp_path, bad, column):
    numbers = flat(A)
    numbers[column] = bad  # of the nose
    (tmp_path / "k.json").write_text(json.dumps([{**coco(A), "keypoints": numbers}]))
    found = read_keypoints(tmp_path / "k.json").people.keypoints_px[0]
    np.testing.assert_array_equal(found[SMPL30_INDEX["Nose"]], 0)
    np.testing.assert_array_equal(found[SMPL30_INDEX["L_Hip"]], EXPECTED[0, SMPL30_INDEX["L_Hip"]])


@pytest.mark.parametrize("first", [0, 1])
def test_frames_of_mmpose_count_from_1_in_its_demos_and_from_0_in_its_inferencer(tmp_path, first):
    frames = [{"frame_id": first + at, "instances": [instance(p)]} for at, p in enumerate(PEOPLE)]
    (tmp_path / "k.json").write_text(json.dumps(frames if first == 0 else {"meta_info": {}, "instance_info": frames}))
    file = read_keypoints(tmp_path / "k.json")
    for at in range(2):
        np.testing.assert_array_equal(file.for_image("v", frame=at).keypoints_px[0], EXPECTED[at])


@pytest.mark.parametrize("end", ["_keypoints.json", ".json"])
def test_a_folder_with_a_file_for_every_picture(tmp_path, end):
    for name, person in zip("ab", COCO18, strict=True):
        (tmp_path / f"{name}{end}").write_text(json.dumps({"people": [{"pose_keypoints_2d": flat(person)}]}))
    np.testing.assert_array_equal(read_keypoints(tmp_path).for_image("b.jpg").keypoints_px, EXPECTED18[1:])


WARNING = "its ids are not used: {}; people are tracked"


@pytest.mark.parametrize(
    ("key", "ids", "expected", "why"),
    [
        ("track_id", [70, 71, 70], [70, 71, 70], None),
        ("idx", [[3.0], [4.0], [3.0]], [3, 4, 3], None),
        ("track_id", ["70", "71", "70"], [70, 71, 70], None),
        ("idx", [[0.0], [0.0], [0.0]], [-1, -1, -1], "an id occurs twice in one picture"),
        ("track_id", [5, None, 5], [-1, -1, -1], "only some of the people have an id"),
        ("track_id", [-1, -1, -1], [-1, -1, -1], None),
    ],
)
def test_ids_are_believed_where_they_can_be(tmp_path, caplog, key, ids, expected, why):
    data = [coco(person, image_id=frame, **{key: value})
            for person, frame, value in zip((A, B, A), (0, 0, 1), ids, strict=True)]  # fmt: skip
    (tmp_path / "k.json").write_text(json.dumps(data))
    assert read_keypoints(tmp_path / "k.json").people.track_ids.tolist() == expected
    assert caplog.messages == ([f"{tmp_path / 'k.json'}: {WARNING.format(why)}"] if why else [])


def test_words_as_ids_tell_people_apart(tmp_path):
    data = [
        coco(A, image_id=0, track_id="anna"),
        coco(B, image_id=0, track_id="ben"),
        coco(A, image_id=1, track_id="anna"),
    ]
    (tmp_path / "k.json").write_text(json.dumps(data))
    anna, ben, again = read_keypoints(tmp_path / "k.json").people.track_ids.tolist()
    assert anna == again != ben
    assert min(anna, ben) >= 0


COCO_REMEDY = "convert it to COCO results: a list of {image_id, category_id: 1, keypoints: [x, y, confidence, ...]}"


@pytest.mark.parametrize(
    ("content", "cause", "remedy"),
    [
        ({"poseLandmarks": []}, "contains MediaPipe landmarks", COCO_REMEDY),
        ({"shapes": [], "imagePath": "a.jpg"}, "is a LabelMe annotation file", COCO_REMEDY),
        ({"bundle": "b", "people_per_frame": [1]}, "is the summary of a run and contains no joints",
         "give the NAME_2d.npz beside it, written by run --save-2d"),
        ({"bboxes": [], "labels": []}, "contains detector boxes but no joints", "give it as --boxes"),
        ("<!DOCTYPE html><html>", "is a web page, not the file itself", "download the file itself"),
        ("version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer, not the file itself",
         "fetch the file: git lfs pull"),
        ('{"a": 1}\n{"a": 2}\n', "has one JSON object per line", "write them as one JSON list: jq -s . FILE"),
        ("0 0.5 0.5 0.2 0.7 0.1\n", "is a YOLO label file, whose coordinates are fractions of the picture",
         COCO_REMEDY),
        ("frame,x,y,c\n0,1,2,3\n", "is a table of values separated by commas (CSV)", COCO_REMEDY),
        ({"meta_info": {"dataset_name": "aic"}, "instance_info": []},
         "joints of the data set 'aic', whose joint order is not supported",
         "use an MMPose network trained on COCO, CrowdPose or Halpe"),
        ([{"image_id": 1, "category_id": 3, "keypoints": flat(A)}],
         "no entry has category 1, which is person (found: 3)",
         "write category_id 1 for every person, or add 'categories' with their names"),
        (named([f"bone {word}" for word in "abcdefghijklmnopq"]),
         "person 0: the file names its joints Bone_a, Bone_b, Bone_c, ..., few of which are known body joints",
         "name them Nose, L_Eye, R_Eye, L_Ear, R_Ear, L_Shoulder, ..., or give their order with --skeleton"),
        ({"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}], "annotations": []},
         "'images': id 1 is used by both 'a.jpg' and 'b.jpg'", "give every picture a unique id"),
        ([instance(A) | {"keypoints": nested(A)}], "person 0: has 3-D joints (x, y, z)",
         "give the results of the 2-D network that precedes the lifting"),
        ({"people": [{"pose_keypoints_2d": [], "pose_keypoints_3d": [1.0] * 100}]},
         "person 0: has only 3-D joints", "run OpenPose without --3d"),
        ([nested(A)], "is an array without picture names",
         "write {picture name: people x joints x (x, y, confidence)}"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_named(tmp_path, content, cause, remedy):
    path = tmp_path / "k.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(KeypointFileError) as caught:
        read_keypoints(path)
    assert (caught.value.cause, caught.value.remedy) == (f"{path}: {cause}", remedy)


BOX, OTHER = [100, 50, 300, 400], [10, 20, 60, 90]
XYWH = [100, 50, 200, 350]


def ultralytics_box(box, **more):
    x1, y1, x2, y2 = box
    return {"name": "person", "class": 0, "confidence": 0.5, "box": {"x1": x1, "y1": y1, "x2": x2, "y2": y2}, **more}


@pytest.mark.parametrize(
    ("content", "frame", "boxes", "scores"),
    [
        ([[*BOX, 0.5], OTHER], None, [BOX, OTHER], [0.5, 1]),
        ([BOX, [], None], None, [BOX], [1]),
        ([BOX, [10, 20, 10, 60]], None, [BOX], [1]),  # one without area
        ([{"image_id": "a", "category_id": 0, "bbox": XYWH, "score": 0.5},
          {"image_id": "a", "category_id": 1, "bbox": [1, 2, 3, 4]}], None, [BOX], [0.5]),
        ({"images": [{"id": 1, "file_name": "a.jpg", "width": 320, "height": 240}],
          "annotations": [{"image_id": 1, "category_id": 9, "bbox": [50, 25, 100, 175]}],
          "categories": [{"id": 9, "name": "person"}]}, None, [BOX], [1]),
        ([ultralytics_box(BOX), ultralytics_box(OTHER, name="dog", **{"class": 16})], None, [BOX], [0.5]),
        ({"labels": [0, 2], "scores": [0.5, 0.9], "bboxes": [BOX, OTHER]}, None, [BOX], [0.5]),
        ({"a.jpg": [[100 / 640, 50 / 480, 300 / 640, 400 / 480]]}, None, [BOX], [1]),
        ([dict(zip(("xmin", "ymin", "xmax", "ymax"), BOX, strict=True), name="person", confidence=0.5),
          dict(zip(("xmin", "ymin", "xmax", "ymax"), OTHER, strict=True), name="dog")], None, [BOX], [0.5]),
        ([{"label": "person", "score": 0.5,
           "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), BOX, strict=True))}], None, [BOX], [0.5]),
        ("0,1,10,20,50,70,1,-1,-1,-1\n1.0,7,100,50,200,350,0.5,-1,-1,-1\n", 1, [BOX], [0.5]),  # frames from 0
        ("\ufeff1,7,100,50,200,350,1,1,1\n1,8,1,2,3,4,1,3,1\n", 0, [BOX], [1]),  # ground truth with a car
        ("1,1,10,20,50,70,1,-1,-1,-1\n2,7,100,50,200,350,0.5,-1,-1,-1\n", 1, [BOX], [0.5]),
    ],
)  # fmt: skip
def test_layouts_of_boxes(tmp_path, content, frame, boxes, scores):
    path = tmp_path / "b.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    found = read_boxes(path).for_image("a.jpg", frame=frame, size_px=SIZE_PX)
    np.testing.assert_allclose(found.boxes_px, boxes, atol=1e-3)
    np.testing.assert_allclose(found.scores, scores)


def test_every_skeleton_is_listed_for_users():
    from pathlib import Path

    page = (Path(__file__).parents[3] / "docs" / "joints.md").read_text()
    for name, joints in SKELETONS.items():
        assert f"| `{name}` | {len(joints)} |" in page


def test_frames_with_numbers_are_where_these_say(tmp_path):
    frames = [{"frame_index": at, "people": [{"keypoints": flat(p)}]} for at, p in zip((0, 5), PEOPLE, strict=True)]
    (tmp_path / "k.json").write_text(json.dumps(frames))
    file = read_keypoints(tmp_path / "k.json")
    assert [len(file.for_image("v", frame=at)) for at in (0, 1, 5)] == [1, 0, 1]


def test_a_folder_with_upper_case_suffixes(tmp_path):
    (tmp_path / "a_KEYPOINTS.JSON").write_text(json.dumps({"people": [{"pose_keypoints_2d": flat(COCO18[0])}]}))
    np.testing.assert_array_equal(read_keypoints(tmp_path).for_image("a.jpg").keypoints_px, EXPECTED18[:1])
