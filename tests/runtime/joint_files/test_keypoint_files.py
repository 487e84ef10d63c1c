import json

import numpy as np
import pytest

from jotr_deploy.errors import KeypointFileError
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.joint_files.keypoint_file import read_keypoints
from jotr_deploy.runtime.joint_files.npz_file import write_keypoints_npz
from jotr_deploy.skeletons import SKELETONS, SMPL30_INDEX, to_smpl30

LAYOUTS = "give COCO or AlphaPose results, OpenPose files, or the .npz that --save-2d writes; see docs/joints.md"
JSON_RULES = "write it with a JSON library: double quotes, no comments, no trailing commas"
OTHER_NETWORK = "use a pose network with COCO, Halpe, CrowdPose, BODY_25 or BlazePose joints"
LENGTHS = (
    "known lengths: 42 (crowdpose14), 51 (coco17), 54 (coco18), 75 (body25), 78 (halpe26), 90 (smpl30), "
    "99 (blazepose33)"
)
NOSE = SMPL30_INDEX["Nose"]


def joints(count, seed=0):
    return np.random.default_rng(seed).uniform([2, 2, 0.1], [600, 400, 1], (count, 3)).astype(np.float32)


def flat(array):
    return [float(x) for x in np.ravel(array)]


def write(path, data):
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def coco(image_id, keypoints, **more):
    return {"image_id": image_id, "category_id": 1, "keypoints": flat(keypoints), **more}


def alphapose(image_id, keypoints, **more):
    return {"image_id": image_id, "keypoints": flat(keypoints), "score": 2.7, **more}


def openpose(*people, **more):
    return {"version": 1.3, "people": [{"person_id": [-1], "pose_keypoints_2d": flat(p), **more} for p in people]}


@pytest.mark.parametrize("skeleton", SKELETONS)
@pytest.mark.parametrize("entry", [coco, alphapose])
def test_the_number_of_joints_tells_the_skeleton(tmp_path, entry, skeleton):
    person = joints(len(SKELETONS[skeleton]))
    file = read_keypoints(write(tmp_path / "k.json", [entry("a.jpg", person)]))
    np.testing.assert_array_equal(file.for_image("a.jpg").keypoints_px, to_smpl30(person[None], skeleton))
    assert not file.has_boxes
    np.testing.assert_array_equal(file.people.boxes_px, 0)


def test_people_of_several_skeletons_keep_their_order(tmp_path):
    people = [joints(count, seed) for seed, count in enumerate((17, 26, 17))]
    data = [coco(name, person, score=0.1) for name, person in zip(("a.jpg", "b.jpg", "a.jpg"), people, strict=True)]
    file = read_keypoints(write(tmp_path / "k.json", data))
    found = file.for_image("a.jpg")
    np.testing.assert_array_equal(found.keypoints_px[:, NOSE], [people[0][0], people[2][0]])
    np.testing.assert_array_equal(file.for_image("b.jpg").keypoints_px[:, NOSE], [people[1][0]])
    np.testing.assert_allclose(found.scores, [0.1, 0.1])
    assert found.track_ids.tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("score", "expected"), [({}, 1.0), ({"score": 0.25}, 0.25), ({"score": 3.1}, 1.0), ({"score": -2}, 0.0)]
)
def test_scores_are_clipped(tmp_path, score, expected):
    file = read_keypoints(write(tmp_path / "k.json", [coco("a.jpg", joints(17), **score)]))
    assert file.for_image("a.jpg").scores.tolist() == [expected]


@pytest.mark.parametrize(
    ("idx", "expected"), [(7, 7), ([7], 7), (7.0, 7), ([3, 4], -1), (-1, -1), ("7", 7), (None, -1), (10**40, -1)]
)
def test_alphapose_tracks(tmp_path, idx, expected):
    file = read_keypoints(write(tmp_path / "k.json", [alphapose("0.jpg", joints(17), idx=idx)]))
    people = file.for_image("0.jpg")
    assert people.track_ids.tolist() == [expected]
    assert people.scores.tolist() == [1.0]


@pytest.mark.parametrize(
    ("confidence", "expected"),
    [(0.3, 0.3), (1.7, 1.0), (0, 0), (-0.2, 0), (1, 1), (2, 1)],  # the last two: visibility flags of annotations
)
def test_confidences_are_clipped_and_absent_joints_are_zero(tmp_path, confidence, expected):
    person = joints(17)
    person[0, 2] = confidence
    nose = read_keypoints(write(tmp_path / "k.json", [coco("a.jpg", person)])).people.keypoints_px[0, NOSE]
    np.testing.assert_allclose(nose, [*person[0, :2], expected] if expected else [0, 0, 0])


def test_a_midpoint_with_one_joint_missing_is_absent(tmp_path):
    person = joints(17)
    person[SKELETONS["coco17"].index("L_Hip"), 2] = 0
    keypoints = read_keypoints(write(tmp_path / "k.json", [coco("a.jpg", person)])).people.keypoints_px[0]
    np.testing.assert_array_equal(keypoints[SMPL30_INDEX["Pelvis"]], 0)
    assert keypoints[SMPL30_INDEX["Neck"], 2] > 0


def test_other_categories_are_left_out(tmp_path):
    data = [coco("a.jpg", joints(17)), {**coco("a.jpg", joints(17)), "category_id": 2}]
    assert len(read_keypoints(write(tmp_path / "k.json", data)).for_image("a.jpg")) == 1


def test_nobody_anywhere(tmp_path):
    people = read_keypoints(write(tmp_path / "k.json", [])).for_image("a.jpg")
    assert len(people) == 0
    assert people.keypoints_px.shape == (0, 30, 3)


@pytest.mark.parametrize("count", [18, 25])
def test_a_folder_of_openpose_files(tmp_path, count):
    people = [joints(count, seed) for seed in range(3)]
    write(tmp_path / "walk_000000000000_keypoints.json", openpose(*people[:2]))
    write(tmp_path / "walk_000000000001_keypoints.json", openpose())
    write(tmp_path / "walk_000000000002_keypoints.json", openpose(people[2]))
    file = read_keypoints(tmp_path)
    assert [len(file.for_image(f"walk_{n:012d}", frame=n)) for n in range(4)] == [2, 0, 1, 0]
    np.testing.assert_array_equal(file.people.keypoints_px[:, NOSE], [p[0] for p in people])
    assert file.people.track_ids.tolist() == [-1, -1, -1]


@pytest.mark.parametrize(
    ("name", "image", "found"),
    [("photo_keypoints.json", "photo.jpg", 1), ("photo_keypoints.json", "other.jpg", 0), ("kp.json", "any.jpg", 1)],
)
def test_one_openpose_file(tmp_path, name, image, found):
    assert len(read_keypoints(write(tmp_path / name, openpose(joints(25)))).for_image(image)) == found


@pytest.mark.parametrize(
    ("low", "text"),
    [(0.0, "coordinates lie within 0..1"), (-1.0, "coordinates lie within -1..1")],
)
def test_openpose_fractions_become_pixels(tmp_path, caplog, low, text):
    person = joints(25)
    person[3] = 0
    scaled = person.copy()
    scaled[:, :2] = person[:, :2] / [639, 479] * (1 - low) + low
    file = read_keypoints(write(tmp_path / "a_keypoints.json", openpose(scaled)))
    assert caplog.messages == [
        f"{tmp_path / 'a_keypoints.json'}: {text}; interpreted as fractions of the image, not pixels"
    ]
    found = file.for_image("a.jpg", size_px=(640, 480))
    np.testing.assert_allclose(found.keypoints_px, to_smpl30(person[None], "body25"), atol=1e-3)
    with pytest.raises(ValueError, match="the image size is needed"):
        file.for_image("a.jpg")


def test_openpose_pixels_are_no_fractions(tmp_path, caplog):
    assert read_keypoints(write(tmp_path / "a_keypoints.json", openpose(joints(25)))).coordinates.fractions is None
    assert (
        read_keypoints(write(tmp_path / "b_keypoints.json", openpose(np.zeros((25, 3))))).coordinates.fractions is None
    )
    assert caplog.messages == []


GOOD = flat(joints(17))


@pytest.mark.parametrize(
    ("content", "cause", "remedy"),
    [
        ("", "{}: is an empty file", "download or copy it again, and compare its size with that of the original"),
        ("hello", "{}: not JSON (Expecting value: line 1 column 1 (char 0))", LAYOUTS),
        ("[1,]", "{}: not JSON (Expecting value: line 1 column 4 (char 3))", JSON_RULES),
        (
            "[][]",
            "{}: contains more than one JSON value (Extra data: line 1 column 3 (char 2))",
            "write one; jq -s add FILE joins lists",
        ),
        ('"[]"', "{}: is JSON inside a JSON string, encoded twice", "write the value itself, not its JSON text"),
        (
            '[{"image_id": "a.jpg", "keypoints": [1, 2,',
            "{}: the JSON ends too early: the file is truncated (Expecting value: line 1 column 43 (char 42))",
            "write the file again",
        ),
        (
            '[{"image_id": "a.jp',
            "{}: the JSON ends too early: the file is truncated "
            "(Unterminated string starting at: line 1 column 15 (char 14))",
            "write the file again",
        ),
        ({"a": 1}, "{}: not a known keypoint layout (its keys are 'a')", LAYOUTS),
        ("3", "{}: not a known keypoint layout", LAYOUTS),
        ([coco("a.jpg", GOOD), 3], "{}: person 1: has no 'keypoints'", LAYOUTS),
        (
            [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}],
            "{}: person 0: has no 'keypoints'",
            "it contains boxes: give it as --boxes",
        ),
        (
            [{**coco("a.jpg", GOOD), "keypoints": ["x"]}],
            "{}: person 0: keypoints must be numbers",
            "write the file again",
        ),
        (
            [{**coco("a.jpg", GOOD), "score": [1, 2]}],
            "{}: person 0: the score must be one finite number",
            "write the file again",
        ),
        (
            [coco("a.jpg", GOOD), coco("a.jpg", GOOD[:49])],
            "{}: person 1: 49 numbers are not a flat list of x, y, confidence",
            LAYOUTS,
        ),
        ([coco("a.jpg", GOOD), coco("a.jpg", GOOD[:39])], "{}: person 1: 39 numbers match no skeleton", LENGTHS),
        (
            [coco("a.jpg", GOOD[:48])],
            "{}: person 0: 16 joints are those of the MPII body, which is not supported",
            OTHER_NETWORK,
        ),
        (
            [coco("a.jpg", joints(308))],
            "{}: person 0: 308 joints are those of Sapiens' Goliath set, which is not supported",
            OTHER_NETWORK,
        ),
        (
            [coco("a.jpg", []), {**coco("a.jpg", []), "keypoints": None}],
            "{}: none of its 2 people has body joints",
            "detect bodies as well",
        ),
        (
            openpose(joints(25), joints(15)),
            "{}: person 1: 15 joints are those of OpenPose's MPI body, which is not supported",
            "run OpenPose with --model_pose BODY_25 or COCO",
        ),
        ({"people": 3}, "{}: not an OpenPose file, as it has no list of 'people'", LAYOUTS),
        ({"people": [{}]}, "{}: person 0: has no 'pose_keypoints_2d'", LAYOUTS),
        (
            [coco(True, GOOD)],
            "{}: person 0: image_id is neither a file name nor a number",
            "write one for every person",
        ),
        (
            [coco("a.jpg", GOOD), {"keypoints": GOOD}],
            "{}: person 1: image_id is neither a file name nor a number",
            "write one for every person",
        ),
    ],
)
def test_what_is_wrong_is_said_with_file_and_person(tmp_path, content, cause, remedy):
    path = write(tmp_path / "k.json", content)
    with pytest.raises(KeypointFileError) as caught:
        read_keypoints(path)
    assert (caught.value.cause, caught.value.remedy) == (cause.format(path), remedy)


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "k.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(KeypointFileError) as caught:
        read_keypoints(path)
    assert (caught.value.cause, caught.value.remedy) == (f"{path}: is data of an unknown kind", LAYOUTS)
    path.write_bytes(b'[{"image_id": "\xe4.jpg"}]')
    with pytest.raises(KeypointFileError, match="is text, but not UTF-8"):
        read_keypoints(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_json_in_any_encoding_of_unicode(tmp_path, encoding):
    (tmp_path / "k.json").write_bytes(json.dumps([coco("a.jpg", GOOD)]).encode(encoding))
    assert len(read_keypoints(tmp_path / "k.json").for_image("a.jpg")) == 1


@pytest.mark.parametrize(
    ("name", "cause", "remedy"),
    [
        ("none.json", "{}: no such file or folder", "check the path"),
        ("none.npz", "{}: no such file or folder", "check the path"),
        ("", "{}: no OpenPose files (*_keypoints.json) in this folder", LAYOUTS),
    ],
)
def test_nothing_there(tmp_path, name, cause, remedy):
    with pytest.raises(KeypointFileError) as caught:
        read_keypoints(tmp_path / name)
    assert (caught.value.cause, caught.value.remedy) == (cause.format(tmp_path / name), remedy)


def test_the_skeleton_can_be_forced(tmp_path):
    path = write(tmp_path / "k.json", [coco("a.jpg", joints(18))])
    assert len(read_keypoints(path, "coco18").people) == 1
    with pytest.raises(KeypointFileError) as caught:
        read_keypoints(path, "coco17")
    assert caught.value.cause == f"{path}: person 0: 54 numbers, but coco17 needs 51"
    assert caught.value.remedy == f"give the right skeleton; {LENGTHS}"
    with pytest.raises(KeypointFileError) as caught:
        read_keypoints(path, "coco")
    assert caught.value.cause == "unknown skeleton 'coco'"
    assert caught.value.remedy == "known: blazepose33, body25, coco17, coco18, crowdpose14, halpe26, smpl30"


def people_of(count, seed=0):
    rng = np.random.default_rng(seed)
    keypoints = rng.uniform([0, 0, 0.1], [600, 400, 1], (count, 30, 3))
    keypoints[:, :5] = 0
    corner = rng.uniform(-50, 300, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(20, 400, (count, 1))], 1)
    return Detections(boxes, keypoints, rng.random(count), rng.integers(0, 99, count))


@pytest.mark.parametrize("counts", [[], [0], [2], [1, 0, 3]])
def test_our_own_file_repeats_the_people_exactly(tmp_path, counts):
    frames = [(frame, people_of(count, frame)) for frame, count in enumerate(counts)]
    write_keypoints_npz(tmp_path / "people.npz", frames)
    file = read_keypoints(tmp_path / "people.npz")
    assert file.has_boxes
    for frame, expected in frames:
        found = file.for_image("whatever.png", frame=frame)
        for name in ("boxes_px", "keypoints_px", "scores", "track_ids"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert [p.name for p in tmp_path.iterdir()] == ["people.npz"]


def test_our_own_file_is_the_same_bytes_every_time(tmp_path):
    for name in ("a.npz", "b.npz"):
        write_keypoints_npz(tmp_path / name, [(3, people_of(2))])
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_an_npz_by_hand_needs_no_boxes(tmp_path):
    person = joints(17)
    np.savez(tmp_path / "k.npz", joints=person[None], frame=[4], skeleton="coco17")
    file = read_keypoints(tmp_path / "k.npz")
    assert not file.has_boxes
    np.testing.assert_array_equal(file.for_image("x", frame=4).keypoints_px, to_smpl30(person[None], "coco17"))


NPZ = {"joints": np.ones((2, 17, 3)), "frame": np.arange(2), "skeleton": np.array("coco17")}


@pytest.mark.parametrize(
    ("change", "cause", "remedy"),
    [
        ({"joints": None}, "{}: has no array 'joints'", LAYOUTS),
        ({"frame": None}, "{}: has no array 'frame'", LAYOUTS),
        (
            {"skeleton": np.array("dog")},
            "{}: unknown skeleton 'dog'",
            "known: blazepose33, body25, coco17, coco18, crowdpose14, halpe26, smpl30",
        ),
        ({"joints": np.ones((2, 18, 3))}, "{}: 'joints' must be finite numbers of shape (2, 17, 3)", LAYOUTS),
        ({"joints": np.full((2, 17, 3), np.nan)}, "{}: 'joints' must be finite numbers of shape (2, 17, 3)", LAYOUTS),
        ({"joints": np.full((2, 17, 3), "x")}, "{}: 'joints' must be finite numbers of shape (2, 17, 3)", LAYOUTS),
        ({"frame": np.array([0.5, 1])}, "{}: 'frame' must be whole numbers of shape (2,)", LAYOUTS),
        ({"frame": np.array(1)}, "{}: 'frame' must be whole numbers of shape (1,)", LAYOUTS),
        ({"boxes": np.ones((2, 3))}, "{}: 'boxes' must be finite numbers of shape (2, 4)", LAYOUTS),
        (
            {"boxes": np.array([[0, 0, 5, 5], [0, 0, 5, 9]])},
            "{}: person 1: (0, 0, 5, 9) is not a square crop box",
            "leave 'boxes' out of the file",
        ),
        ({"frame": np.array([{}, {}])}, "{}: not an intact .npz (", "write it again"),
    ],
)
def test_a_wrong_npz(tmp_path, change, cause, remedy):
    path = tmp_path / "k.npz"
    np.savez(path, **{name: array for name, array in {**NPZ, **change}.items() if array is not None})
    with pytest.raises(KeypointFileError) as caught:
        read_keypoints(path)
    assert caught.value.cause.startswith(cause.format(path))
    assert caught.value.remedy == remedy


@pytest.mark.parametrize(
    "damage", [lambda data: data[:200], lambda data: b"text", lambda data: data.replace(b"\x93NUM", b"XXXX")]
)
def test_a_damaged_npz(tmp_path, damage):
    path = tmp_path / "k.npz"
    np.savez(path, **NPZ)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(KeypointFileError) as caught:
        read_keypoints(path)
    assert caught.value.cause.startswith(f"{path}: not an intact .npz (")
    assert caught.value.remedy == "write it again"
