import json

import cv2
import numpy as np
import pytest

from jotr_deploy.errors import SourceError
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.finding.people_source import DetectedPeople, WholeFrame, open_people_source
from jotr_deploy.runtime.finding.region import MostPeople, WithinRegion, moved
from jotr_deploy.runtime.sources.opening import open_source

IMAGE = np.zeros((100, 200, 3), np.uint8)


class Bright:
    """Finds the box of all that is bright, and one joint at its first corner."""

    skeleton = "coco17"

    def __call__(self, image_bgr):
        y, x = np.nonzero(image_bgr[..., 0])
        if not len(x):
            return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
        return np.float32([[x.min(), y.min(), x.max(), y.max()]]), np.float32([0.5])


def bright(*boxes_px):
    image = IMAGE.copy()
    for x0, y0, x1, y1 in boxes_px:
        image[y0 : y1 + 1, x0 : x1 + 1] = 255
    return image


def people(boxes_px, scores=None, seed=0):
    boxes_px = np.float32(boxes_px).reshape(-1, 4)
    joints = np.random.default_rng(seed).uniform(1, 90, (len(boxes_px), 30, 3)).astype(np.float32)
    joints[:, ::2] = 0  # every other one is absent
    count = len(boxes_px)
    return Detections(boxes_px, joints, np.ones(count) if scores is None else scores, np.arange(count))


def test_only_the_region_is_looked_at():
    image = bright((20, 30, 39, 49), (120, 10, 139, 29))
    (whole,) = DetectedPeople(Bright(), crop_factor=1.1)(image, "a", 0).boxes_px
    assert whole[2] - whole[0] > 100, "both of them in one box"
    for region_px, box_px in [((0, 0, 100, 100), (20, 30, 39, 49)), ((100, 0, 200, 100), (120, 10, 139, 29))]:
        found = WithinRegion(DetectedPeople(Bright(), crop_factor=1.1), region_px)(image, "a", 0)
        alone = DetectedPeople(Bright(), crop_factor=1.1)(bright(box_px), "a", 0)
        np.testing.assert_allclose(found.boxes_px, alone.boxes_px, atol=1e-4)
    assert len(WithinRegion(DetectedPeople(Bright(), crop_factor=1.1), (50, 50, 100, 100))(image, "a", 0)) == 0


@pytest.mark.parametrize("region_px", [(0, 0, 200, 100), (-50, -1, 900, 101)])
def test_the_whole_picture_changes_nothing(region_px):
    image = bright((20, 30, 39, 49))
    expected = DetectedPeople(Bright(), crop_factor=1.1)(image, "a", 0)
    found = WithinRegion(DetectedPeople(Bright(), crop_factor=1.1), region_px)(image, "a", 0)
    np.testing.assert_array_equal(found.boxes_px, expected.boxes_px)
    np.testing.assert_array_equal(found.keypoints_px, expected.keypoints_px)


def test_without_a_detector_the_region_is_the_person():
    (box_px,) = WithinRegion(WholeFrame(crop_factor=1.1), (150, 20, 999, 60))(IMAGE, "a", 0).boxes_px
    (alone_px,) = WholeFrame(crop_factor=1.1)(np.zeros((40, 50, 3), np.uint8), "a", 0).boxes_px
    np.testing.assert_allclose(box_px, alone_px + np.float32([150, 20, 150, 20]))


def test_moving_leaves_absent_joints_scores_and_tracks_alone():
    before = people([[0, 0, 10, 10], [5, 6, 25, 26]], [0.2, 0.9])
    after = moved(before, (30, 7))
    np.testing.assert_array_equal(after.boxes_px, before.boxes_px + np.float32([30, 7, 30, 7]))
    np.testing.assert_array_equal(after.keypoints_px[:, ::2], 0)
    np.testing.assert_array_equal(after.keypoints_px[:, 1::2], before.keypoints_px[:, 1::2] + np.float32([30, 7, 0]))
    np.testing.assert_array_equal(after.scores, before.scores)
    np.testing.assert_array_equal(after.track_ids, before.track_ids)
    np.testing.assert_allclose(moved(after, (-30, -7)).keypoints_px, before.keypoints_px, atol=1e-4)
    assert len(moved(Detections.none(), (3, 4))) == 0


def test_people_of_a_file_count_by_the_centre_of_their_box(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), IMAGE)
    boxes = [[10, 10, 20, 20], [90, 10, 20, 20], [91, 10, 20, 20], [150, 60, 20, 20]]  # x y w h
    rows = [{"image_id": "a.png", "category_id": 1, "bbox": box, "score": 1.0} for box in boxes]
    (tmp_path / "b.json").write_text(json.dumps(rows))
    with open_source(tmp_path / "a.png") as source:
        by_file = open_people_source(source, boxes=tmp_path / "b.json", crop_factor=1.1)
        everyone = by_file(IMAGE, "a.png", 0)
        centre_x = (everyone.boxes_px[:, 0] + everyone.boxes_px[:, 2]) / 2
        edge = int(centre_x[1]) + 1  # parts the second from the third
        left, right = (WithinRegion(by_file, r)(IMAGE, "a.png", 0) for r in [(0, 0, edge, 50), (edge, 0, 200, 50)])
    np.testing.assert_array_equal(left.boxes_px, everyone.boxes_px[:2])
    np.testing.assert_array_equal(right.boxes_px, everyone.boxes_px[2:3])


@pytest.mark.parametrize("region_px", [(200, 0, 300, 100), (0, 100, 10, 101), (-9, -9, 0, 50)])
def test_a_region_outside_of_the_picture(region_px):
    with pytest.raises(SourceError) as caught:
        WithinRegion(WholeFrame(crop_factor=1.1), region_px)(IMAGE, "a.png", 0)
    assert caught.value.cause == f"a.png: the region {region_px} is outside the picture of 200 x 100 px"
    assert caught.value.remedy == "give x0,y0,x1,y1 inside it, in pixels from the top-left corner"


@pytest.mark.parametrize("region_px", [(5, 5, 5, 9), (9, 5, 5, 9), (0, 4, 9, 4)])
def test_an_empty_region(region_px):
    with pytest.raises(SourceError) as caught:
        WithinRegion(WholeFrame(crop_factor=1.1), region_px)
    assert caught.value.cause == f"the region {region_px} is empty"
    assert caught.value.remedy == "give x0,y0,x1,y1 with x0 < x1 and y0 < y1"


@pytest.mark.parametrize(
    ("scores", "sides", "limit", "kept"),
    [
        ([], [], 2, []),
        ([0.5], [9], 1, [0]),
        ([0.5, 0.9, 0.7], [9, 1, 5], 5, [0, 1, 2]),
        ([0.5, 0.9, 0.7], [9, 1, 5], 2, [1, 2]),
        ([0.9, 0.5, 0.7], [9, 1, 5], 2, [0, 2]),
        ([1, 1, 1, 1], [4, 9, 2, 7], 2, [1, 3]),
        ([1, 1, 1], [3, 3, 3], 2, [0, 1]),
    ],
)
def test_the_best_stay_in_their_order(scores, sides, limit, kept):
    everyone = people([[5, 5, 5 + side, 5 + side] for side in sides], scores)
    found = MostPeople(lambda *_: everyone, limit)(IMAGE, "a", 0)
    assert found.track_ids.tolist() == kept
    np.testing.assert_array_equal(found.keypoints_px, everyone.keypoints_px[kept])


def test_at_least_one_must_be_allowed():
    with pytest.raises(ValueError, match="at most 0 people: give 1 or more"):
        MostPeople(WholeFrame(crop_factor=1.1), 0)
