import json
from functools import partial

import cv2
import numpy as np
import pytest
from canned import simcc_session, yolox_rows, yolox_session
from pictures import figure

from jotr_deploy.errors import BundleError, KeypointFileError, MissingDependency
from jotr_deploy.geometry.crop import square_box
from jotr_deploy.runtime.crops import make_crops
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.finding import people_source
from jotr_deploy.runtime.finding.crop_boxes import LEAST_JOINTS, with_joint_boxes
from jotr_deploy.runtime.finding.detection import open_detector
from jotr_deploy.runtime.finding.detection.one_stage import OneStage
from jotr_deploy.runtime.finding.people_networks import PeopleNetworks
from jotr_deploy.runtime.finding.people_source import WholeFrame, file_use
from jotr_deploy.runtime.finding.pose import open_pose_network
from jotr_deploy.runtime.joint_files.npz_file import write_keypoints_npz
from jotr_deploy.runtime.sources.opening import VideoWriter, open_source
from jotr_deploy.skeletons import SKELETONS, SMPL30_INDEX, to_smpl30
from jotr_deploy.support.spans import Spans

open_people_source = partial(people_source.open_people_source, crop_factor=1.1)

SIZE_PX = (200, 100)
IMAGE = np.zeros((100, 200, 3), np.uint8)
ADD = "add a detector with jotr-deploy add BUNDLE --detector FILE"
HOG = (
    "no keypoints, no boxes, no detector: people are found by OpenCV's HOG, which is for demonstrations and only "
    f"finds upright, fully visible people; {ADD}"
)
WHOLE = "nobody was found in 'a.png'; each image without a detection is treated as one person filling it"


@pytest.fixture
def photo(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), IMAGE)
    return open_source(tmp_path / "a.png")


@pytest.fixture
def video(tmp_path):
    with VideoWriter(tmp_path / "v.mp4", 12) as writer:
        for _ in range(3):
            writer.write(IMAGE)
    return open_source(tmp_path / "v.mp4")


def write(path, data):
    path.write_text(json.dumps(data))
    return path


def person(seed=0):
    return np.random.default_rng(seed).uniform([20, 10, 0.1], [180, 90, 1], (17, 3)).astype(np.float32)


def coco(image_id, keypoints):
    return {"image_id": image_id, "category_id": 1, "keypoints": [float(x) for x in np.ravel(keypoints)]}


def everyone(source, people_of):
    return [people_of(frame.image_bgr, frame.name, frame.index) for frame in source]


def test_the_box_is_that_of_the_valid_joints(photo, tmp_path):
    joints = person()
    joints[:3] = [[0, 0, 0.05], [199, 99, 0.01], [0, 99, 0]]  # none of them above the threshold
    (people,) = everyone(photo, open_people_source(photo, write(tmp_path / "k.json", [coco("a.png", joints)])))
    low, high = joints[3:, :2].min(0), joints[3:, :2].max(0)
    centre, size = (low + high) / 2, (high - low) * 1.2
    low = np.maximum(centre - size / 2, 0)
    high = np.minimum(low + size - 1, np.array(SIZE_PX) - 1)
    side = (high - low).max() * 1.1
    centre = (low + high) / 2
    np.testing.assert_allclose(people.boxes_px, [[*(centre - side / 2), *(centre + side / 2)]], atol=1e-3)
    assert people.keypoints_px.shape == (1, 30, 3)


def test_frames_of_a_video_are_found_by_number(video, tmp_path):
    data = [coco(0, person(0)), coco(2, person(1)), coco(2, person(2))]
    people_of = open_people_source(video, write(tmp_path / "k.json", data))
    assert [len(people) for people in everyone(video, people_of)] == [1, 0, 2]


def only(count, confidence=0.9):
    joints = np.zeros((17, 3))
    joints[5 : 5 + count] = person()[5 : 5 + count]
    joints[5 : 5 + count, 2] = confidence
    return joints


@pytest.mark.parametrize(
    ("joints", "kept"),
    [
        (only(0), 0),
        (only(1), 0),  # a point has no box
        (only(2), 1),
        (only(12, confidence=0.05), 0),  # at, not above, the threshold
    ],
)
def test_who_has_no_box_is_left_out_and_counted(video, tmp_path, caplog, joints, kept):
    data = [coco(frame, joints) for frame in range(3)] + [coco(1, person())]
    path = write(tmp_path / "k.json", data)
    people_of = open_people_source(video, path)
    assert [len(people) for people in everyone(video, people_of)] == [kept, kept + 1, kept]
    assert people_of.dropped == 3 * (1 - kept)
    told = [
        f"{path}: people with too few joints above confidence 0.05 for a box are left out (first in 'v_000000000000')"
    ]
    assert caplog.messages == ([] if kept else told)


@pytest.mark.parametrize(
    ("joints", "why"),
    [
        (np.full((17, 3), 50.0), "smaller than 2 px"),  # all in one place
        (person() * [0.01, 0.01, 1] + [9, 9, 0], "smaller than 2 px"),
        (person() - np.array([400, 0, 0]), "outside the picture"),  # the published clipping would move it inside
    ],
)
def test_who_cannot_be_in_the_picture_is_left_out_and_is_an_error_where_nobody_remains(
    video, tmp_path, caplog, joints, why
):
    path = write(tmp_path / "k.json", [coco(0, joints), coco(1, joints), coco(1, person())])
    people_of = open_people_source(video, path)
    assert [len(people) for people in everyone(video, people_of)] == [0, 1, 0]
    assert caplog.messages == [f"{path}: people {why} are left out (first in 'v_000000000000')"]
    use = file_use(people_of)
    assert (use.entries, use.entries_used, use.entries_unused, use.left_out) == (3, 1, 0, {why: 2})
    assert (use.pictures_matched, use.pictures_unmatched) == (2, 1)
    use.check_somebody()
    people_of = open_people_source(video, write(tmp_path / "k.json", [coco(0, joints)]))
    everyone(video, people_of)
    with pytest.raises(KeypointFileError) as caught:
        file_use(people_of).check_somebody()
    assert caught.value.cause == f"{path}: nobody in the file can be used: 1 {why}"


@pytest.mark.parametrize(
    ("shift", "kept"),
    [
        ([400, 0, 0], 1),  # the height still makes a box, at the edge of the image
        ([400, 900, 0], 0),  # nothing does
    ],
)
def test_beyond_the_right_edge_every_crop_still_has_an_area(shift, kept):
    keypoints = to_smpl30(person()[None] + np.array(shift), "coco17")
    people = with_joint_boxes(Detections(np.zeros((1, 4)), keypoints, np.ones(1), -np.ones(1)), SIZE_PX, 1.1)
    assert make_crops(IMAGE, people, 64).joints_mask.shape == (kept, 30)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([10, 20, 50, 60], [8, 18, 52, 62]),
        ([-40, -20, 60, 60], [-45, -35, 65, 75]),  # neither clipped nor moved
    ],
)
def test_a_given_box_becomes_square_and_grows_by_a_tenth(photo, tmp_path, box, expected):
    (people,) = everyone(photo, open_people_source(photo, boxes=write(tmp_path / "b.json", [box])))
    np.testing.assert_allclose(people.boxes_px, [expected], rtol=1e-6)
    assert not people.keypoints_px.any()
    assert people.scores.tolist() == [1]


def test_boxes_of_a_video(video, tmp_path):
    data = [{"image_id": 1, "bbox": [10, 20, 40, 40]}]
    people_of = open_people_source(video, boxes=write(tmp_path / "b.json", data))
    assert [len(people) for people in everyone(video, people_of)] == [0, 1, 0]


@pytest.mark.parametrize("kind", ["keypoints", "boxes"])
def test_an_empty_file_says_that_nobody_is_there(video, tmp_path, kind):
    people_of = open_people_source(video, **{kind: write(tmp_path / "f.json", [])})
    assert [len(people) for people in everyone(video, people_of)] == [0, 0, 0]


def test_without_anything_a_frame_of_a_video_in_which_hog_finds_nobody_has_nobody(video, caplog):
    assert [len(people) for people in everyone(video, open_people_source(video))] == [0, 0, 0]
    assert caplog.messages == [HOG]


def test_the_spans_are_told_whoever_finds(someone):
    spans = Spans()
    for people, networks in (("auto", PeopleNetworks(detector(), FakePose(body()))), ("hog", PeopleNetworks())):
        everyone(someone, open_people_source(someone, networks=networks, people=people, spans=spans))
    assert [span.stage for span in spans.spans] == ["detect", "pose", "detect"]


def folder_of_pictures(folder, *names):
    for name in names:
        cv2.imwrite(str(folder / name), IMAGE)
    return open_source(folder)


def test_without_anything_a_picture_in_which_hog_finds_nobody_is_one_person_and_that_is_said_once(tmp_path, caplog):
    pictures = folder_of_pictures(tmp_path, "a.png", "b.png", "c.png")
    for people in everyone(pictures, open_people_source(pictures)):
        np.testing.assert_allclose(people.boxes_px, [[-10, -60, 210, 160]])
        assert not make_crops(IMAGE, people, 64).joints_mask.any()
    assert caplog.messages == [HOG, WHOLE]


@pytest.fixture
def someone(tmp_path):
    cv2.imwrite(str(tmp_path / "s.png"), figure((500, 400), 260, (250, 60)))
    return open_source(tmp_path / "s.png")


@pytest.mark.parametrize("people", ["auto", "hog"])
def test_hog_finds_who_stands_there(someone, caplog, people):
    (found,) = everyone(someone, open_people_source(someone, people=people))
    assert len(found) == 1
    assert not found.keypoints_px.any()
    np.testing.assert_allclose(found.boxes_px[0, :2] + found.boxes_px[0, 2:], [500, 380], atol=25)
    assert caplog.messages == ([HOG] if people == "auto" else [])  # who asks for it knows


@pytest.mark.parametrize("people", ["auto", "hog", "frame"])
def test_whoever_is_found_has_the_joints_of_the_pose_network(someone, people):
    pose = FakePose(body())
    (found,) = everyone(someone, open_people_source(someone, networks=PeopleNetworks(None, pose), people=people))
    assert found.keypoints_px[0, SMPL30_INDEX["Nose"], 2] > 0
    assert len(pose.boxes_px) == 1
    if people == "frame":
        assert pose.boxes_px[0].tolist() == [[0, 0, 500, 400]]


def test_hog_asked_for_is_not_replaced_by_the_whole_picture(photo, caplog):
    (found,) = everyone(photo, open_people_source(photo, people="hog"))
    assert len(found) == 0
    assert caplog.messages == []


def test_the_frame_asked_for_comes_before_the_detector(video, caplog):
    source = open_people_source(video, networks=PeopleNetworks(detector()), people="frame")
    for people in everyone(video, source):
        np.testing.assert_allclose(people.boxes_px, [[-10, -60, 210, 160]])
    assert caplog.messages == []


def test_the_detector_asked_for(photo):
    (people,) = everyone(photo, open_people_source(photo, networks=PeopleNetworks(detector()), people="detector"))
    assert len(people) == 2
    with pytest.raises(BundleError) as caught:
        open_people_source(photo, people="detector")
    assert caught.value.cause == "people are to be found by a detector, but the bundle has none"
    assert caught.value.remedy == "add one: jotr-deploy add BUNDLE --detector FILE"


@pytest.mark.parametrize("given", ["keypoints", "boxes"])
@pytest.mark.parametrize("people", ["detector", "hog", "frame"])
def test_a_file_and_another_way_are_refused(photo, tmp_path, given, people):
    with pytest.raises(KeypointFileError) as caught:
        open_people_source(photo, people=people, **{given: tmp_path / "f.json"})
    assert caught.value.cause == f"people by '{people}' and {given} are given"
    assert caught.value.remedy == "give one: the file lists the people"


def test_an_opencv_without_hog(video, caplog, monkeypatch):
    monkeypatch.delattr(cv2, "HOGDescriptor")
    for people in everyone(video, open_people_source(video)):
        np.testing.assert_allclose(people.boxes_px, [[-10, -60, 210, 160]])
    lacks = f"OpenCV {cv2.__version__} has no HOG person detector"
    assert caplog.messages == [
        f"no keypoints, no boxes, no detector: every frame is treated as one person, because {lacks}; {ADD}"
    ]
    with pytest.raises(MissingDependency, match=lacks):
        open_people_source(video, people="hog")


def test_a_one_pixel_frame_has_a_box():
    people = WholeFrame(crop_factor=1.1)(np.zeros((1, 1, 3), np.uint8), "a.png", 0)
    np.testing.assert_allclose(people.boxes_px, [[-0.05, -0.05, 1.05, 1.05]])


def test_our_own_file_repeats_boxes_and_people_without_joints(video, tmp_path, caplog):
    frames = [
        (
            0,
            with_joint_boxes(Detections(np.zeros((1, 4)), to_smpl30(person()[None], "coco17"), [1], [3]), SIZE_PX, 1.1),
        ),
        (2, Detections.from_boxes(np.array([[5, 5, 65, 65]]))),
    ]
    write_keypoints_npz(tmp_path / "k.npz", frames)
    found = everyone(video, open_people_source(video, tmp_path / "k.npz"))
    assert [len(people) for people in found] == [1, 0, 1]
    for frame, expected in frames:
        np.testing.assert_array_equal(found[frame].boxes_px, expected.boxes_px)
        np.testing.assert_array_equal(found[frame].keypoints_px, expected.keypoints_px)
        np.testing.assert_array_equal(found[frame].track_ids, expected.track_ids)
    assert caplog.messages == []


def test_both_keypoints_and_boxes_are_refused(photo, tmp_path):
    with pytest.raises(KeypointFileError) as caught:
        open_people_source(photo, tmp_path / "k.json", tmp_path / "b.json")
    assert caught.value.cause == "both keypoints and boxes are given"
    assert caught.value.remedy == "give one: keypoints define their own boxes"


@pytest.mark.parametrize("kind", ["keypoints", "boxes"])
def test_a_file_of_another_source_is_refused(photo, tmp_path, kind):
    entry = {**coco("x.png", person()), "bbox": [1, 2, 3, 4]}
    path = write(tmp_path / "f.json", [entry])
    with pytest.raises(KeypointFileError) as caught:
        open_people_source(photo, **{kind: path})
    assert caught.value.cause == f"{path}: no entry matches 'a.png' (the file names 'x.png')"


BOXES_PX = np.array([[20, 10, 50, 90], [100, 5, 180, 95.0]])
SCORES = np.array([0.9, 0.6])


def detector(boxes_px=BOXES_PX, scores=SCORES):
    return open_detector(yolox_session(yolox_rows((boxes_px + 0.5) * 0.32, scores, (64, 32)), (64, 32)))


class FakePose:
    """Finds `joints` (17, 3), given as shares of every box."""

    skeleton, most_explained = "coco17", 1.0

    def __init__(self, joints, least_score=0.0, score_power=1.0):
        self.joints, self.boxes_px = joints, []
        self.least_score, self.score_power = least_score, score_power

    def __call__(self, image_bgr, boxes_px):
        self.boxes_px.append(boxes_px)
        size = (boxes_px[:, 2:] - boxes_px[:, :2])[:, None]
        places = boxes_px[:, None, :2] + self.joints[None, :, :2] * size
        joints = np.concatenate([places, np.broadcast_to(self.joints[:, 2:], (len(boxes_px), 17, 1))], -1)
        return np.where(joints[..., 2:] > 0, joints, 0).astype(np.float32)


def body(valid=17, seed=0):
    joints = np.random.default_rng(seed).uniform([0.1, 0.1, 0.5], [0.9, 0.9, 1], (17, 3))
    joints[valid:, 2] = 0
    return joints


def by_joints(boxes_px, joints):
    people = Detections(np.zeros((len(boxes_px), 4)), to_smpl30(FakePose(joints)(IMAGE, boxes_px), "coco17"),
                        np.ones(len(boxes_px)), -np.ones(len(boxes_px)))  # fmt: skip
    return with_joint_boxes(people, SIZE_PX, 1.1)


def test_detected_people_without_a_pose_network(photo):
    (people,) = everyone(photo, open_people_source(photo, networks=PeopleNetworks(detector())))
    np.testing.assert_allclose(people.boxes_px, square_box(BOXES_PX, 1.1), atol=1e-3)
    np.testing.assert_allclose(people.scores, SCORES, rtol=1e-5)
    assert not people.keypoints_px.any()
    assert people.track_ids.tolist() == [-1, -1]


@pytest.mark.parametrize("boxes", [BOXES_PX, BOXES_PX[:1], BOXES_PX[:0]])
def test_joints_of_a_pose_network_give_the_box_as_those_of_a_file_do(photo, boxes, caplog):
    pose = FakePose(body())
    networks = PeopleNetworks(detector(boxes, SCORES[: len(boxes)]), pose)
    (people,) = everyone(photo, open_people_source(photo, networks=networks))
    expected = by_joints(boxes, body())
    np.testing.assert_allclose(people.boxes_px, expected.boxes_px, atol=1e-2)
    np.testing.assert_allclose(people.keypoints_px, expected.keypoints_px, atol=1e-2)
    (asked,) = pose.boxes_px  # everybody at once
    np.testing.assert_allclose(asked, boxes, atol=1e-3)
    assert caplog.messages == []


@pytest.mark.parametrize("valid", [0, 1, 3])
def test_too_few_joints_leave_the_box_to_the_detector(photo, valid):
    networks = PeopleNetworks(detector(), FakePose(body(valid)))
    (people,) = everyone(photo, open_people_source(photo, networks=networks))
    np.testing.assert_allclose(people.boxes_px, square_box(BOXES_PX, 1.1), atol=1e-3)
    assert (people.keypoints_px[..., 2] > 0).sum(1).tolist() == [valid, valid]  # but stay joints


@pytest.mark.parametrize("valid", [LEAST_JOINTS - 3, LEAST_JOINTS - 2])  # neck and pelvis come with shoulders and hips
def test_how_many_joints_are_enough(photo, valid):
    networks = PeopleNetworks(detector(), FakePose(body(valid)))
    (people,) = everyone(photo, open_people_source(photo, networks=networks))
    expected = square_box(BOXES_PX, 1.1) if valid < LEAST_JOINTS - 2 else by_joints(BOXES_PX, body(valid)).boxes_px
    np.testing.assert_allclose(people.boxes_px, expected, atol=1e-2)


@pytest.mark.parametrize("place", [(0.5, 0.5), (50, 0.5), (1e6, 1e6)])
def test_joints_without_an_extent_in_the_picture_leave_the_box_to_the_detector(photo, place):
    joints = body()
    joints[:, :2] = place
    (people,) = everyone(photo, open_people_source(photo, networks=PeopleNetworks(detector(), FakePose(joints))))
    np.testing.assert_allclose(people.boxes_px, square_box(BOXES_PX, 1.1), atol=1e-3)


def test_given_boxes_get_joints_from_the_pose_network(photo, tmp_path):
    pose = FakePose(body())
    path = write(tmp_path / "b.json", BOXES_PX.tolist())
    networks = PeopleNetworks(detector(BOXES_PX[:0], SCORES[:0]), pose)  # the detector is not asked
    (people,) = everyone(photo, open_people_source(photo, boxes=path, networks=networks))
    np.testing.assert_allclose(people.boxes_px, by_joints(BOXES_PX, body()).boxes_px, atol=1e-2)
    np.testing.assert_allclose(people.keypoints_px[:, SMPL30_INDEX["Nose"], 2], body()[0, 2], atol=1e-6)


def test_given_joints_ask_no_network(photo, tmp_path):
    path = write(tmp_path / "k.json", [coco("a.png", person())])
    alone = everyone(photo, open_people_source(photo, path))
    pose = FakePose(body())
    beside = everyone(photo, open_people_source(photo, path, networks=PeopleNetworks(detector(), pose)))
    assert pose.boxes_px == []
    np.testing.assert_array_equal(alone[0].keypoints_px, beside[0].keypoints_px)


def test_the_joints_below_the_recipes_threshold_are_absent(photo):
    def answer(images):
        bins = {name: np.zeros((len(images), 17, count), np.float32) for name, count in
                (("simcc_x", 192), ("simcc_y", 256))}  # fmt: skip
        bins["simcc_x"][:, :, 96], bins["simcc_y"][:, :, 128] = np.linspace(0, 1, 17), 1
        return bins

    pose = open_pose_network(simcc_session(answer, (96, 128)), {"threshold": 0.5})
    (people,) = everyone(photo, open_people_source(photo, networks=PeopleNetworks(detector(), pose)))
    coco17 = [SMPL30_INDEX[name] for name in SKELETONS["coco17"]]
    assert (people.keypoints_px[:, coco17, 2] > 0).tolist() == [[False] * 9 + [True] * 8] * 2
    assert not people.keypoints_px[people.keypoints_px[..., 2] == 0].any()


@pytest.mark.parametrize(
    ("power", "share", "who"),
    [(1.0, 0.0, [0, 1]), (1.0, 0.99, [0, 1]), (1.0, 1.01, [0]), (1.0, 2.0, []),
     (0.5, 0.99, [0, 1]), (0.5, 1.01, [0]), (0.5, 1.3, []), (0.0, 0.99, [0, 1]), (0.0, 1.01, [])],
)  # fmt: skip
def test_who_has_hardly_a_joint_is_nobody(photo, power, share, who):
    joints = body(10)
    least = share * SCORES[1] ** power * joints[:, 2].mean()  # of the less sure of the two
    networks = PeopleNetworks(detector(), FakePose(joints, least, power))
    (people,) = everyone(photo, open_people_source(photo, networks=networks))
    np.testing.assert_allclose(people.scores, np.array(SCORES)[who], rtol=1e-5)
    assert people.boxes_px.shape == (len(who), 4)


class SureOfOne(FakePose):
    """Finds the same pose in every box, with full confidence only in the box with index `sure`."""

    def __init__(self, sure, power):
        super().__init__(body(), score_power=power)
        self.sure = sure

    def __call__(self, image_bgr, boxes_px):
        joints = super().__call__(image_bgr, np.broadcast_to(boxes_px[:1], boxes_px.shape))
        joints[np.arange(len(joints)) != self.sure, :, 2] *= 0.5
        return joints


@pytest.mark.parametrize(("sure", "power", "who"), [(0, 1.0, 0), (1, 1.0, 1), (1, 0.0, 1), (0, 0.0, 0)])
def test_of_two_with_one_pose_the_stronger_stays(photo, sure, power, who):
    networks = PeopleNetworks(detector(), SureOfOne(sure, power))  # scores 0.9 and 0.6
    (people,) = everyone(photo, open_people_source(photo, networks=networks))
    np.testing.assert_allclose(people.scores, SCORES[[who]], rtol=1e-5)


class FakeOneStage(OneStage):
    """Finds the same people and their joints (N, 17, 3) in every picture."""

    name, skeleton = "fake", "coco17"

    def __init__(self, boxes_px, joints):
        self.found = (np.float32(boxes_px), np.float32(SCORES[: len(boxes_px)]), np.float32(joints))

    @staticmethod
    def fits(session):
        return True

    def people(self, image_bgr):
        return self.found


def one_stage(boxes_px=BOXES_PX, joints=None):
    return FakeOneStage(boxes_px, FakePose(body() if joints is None else joints)(IMAGE, boxes_px))


@pytest.mark.parametrize("boxes", [BOXES_PX, BOXES_PX[:1], BOXES_PX[:0]])
@pytest.mark.parametrize("valid", [17, LEAST_JOINTS - 2, LEAST_JOINTS - 3, 0])
def test_joints_of_the_detector_are_taken_as_those_of_a_pose_network(photo, boxes, valid):
    found = PeopleNetworks(one_stage(boxes, body(valid)))
    (people,) = everyone(photo, open_people_source(photo, networks=found))
    asked = PeopleNetworks(detector(boxes, SCORES[: len(boxes)]), FakePose(body(valid)))
    (expected,) = everyone(photo, open_people_source(photo, networks=asked))
    np.testing.assert_allclose(people.boxes_px, expected.boxes_px, atol=1e-2)
    np.testing.assert_allclose(people.keypoints_px, expected.keypoints_px, atol=1e-2)
    np.testing.assert_allclose(people.scores, expected.scores, rtol=1e-5)
    assert people.keypoints_px.any() == (valid > 0 and len(boxes) > 0)


def test_joints_of_a_pose_network_win_over_those_of_the_detector(photo):
    pose = FakePose(body(seed=1))
    (people,) = everyone(photo, open_people_source(photo, networks=PeopleNetworks(one_stage(), pose)))
    expected = by_joints(BOXES_PX, body(seed=1))
    np.testing.assert_allclose(people.keypoints_px, expected.keypoints_px, atol=1e-3)
    np.testing.assert_allclose(people.boxes_px, expected.boxes_px, atol=1e-2)
    assert len(pose.boxes_px) == 1


def test_joints_of_the_detector_tell_who_was_found_twice(photo):
    boxes_px = BOXES_PX[[0, 0]] + [[0], [1]]
    (people,) = everyone(photo, open_people_source(photo, networks=PeopleNetworks(one_stage(boxes_px))))
    assert people.scores.tolist() == pytest.approx([0.9])
