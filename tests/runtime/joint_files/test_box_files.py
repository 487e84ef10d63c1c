import json

import numpy as np
import pytest

from jotr_deploy.errors import KeypointFileError
from jotr_deploy.runtime.joint_files.box_file import read_boxes

LAYOUTS = "give [[x0, y0, x1, y1], ...], {image name: [[x0, y0, x1, y1], ...]}, or COCO results with bbox and image_id"
XYWH = "a box is given by its corners x0, y0, x1, y1; give boxes of x, y (top left), width, height as COCO results"
A, B = [10, 20, 30, 60], [0.5, 1, 90, 50]


def write(tmp_path, data):
    path = tmp_path / "boxes.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def coco(image_id, box, **more):
    x0, y0, x1, y1 = box
    return {"image_id": image_id, "bbox": [x0, y0, x1 - x0, y1 - y0], **more}


@pytest.mark.parametrize(
    ("data", "asked", "boxes", "scores"),
    [
        ([], {"name": "a.jpg"}, [], []),
        ([A, B], {"name": "a.jpg"}, [A, B], [1, 1]),
        ({}, {"name": "a.jpg"}, [], []),
        ({"a.jpg": [A], "b.jpg": [B, A]}, {"name": "b.jpg"}, [B, A], [1, 1]),
        ({"some/a.jpg": [A]}, {"name": "a.jpg"}, [A], [1]),
        ({"a.jpg": []}, {"name": "a.jpg"}, [], []),
        ([coco("a.jpg", A, score=0.5), coco("b.jpg", B)], {"name": "a.jpg"}, [A], [0.5]),
        ([coco(4, A), coco(5, B)], {"name": "v_000000000005", "frame": 5}, [B], [1]),
        ([coco("a.jpg", A, category_id=1), coco("a.jpg", B, category_id=3)], {"name": "a.jpg"}, [A], [1]),
    ],
)
def test_layouts(tmp_path, data, asked, boxes, scores):
    people = read_boxes(write(tmp_path, data)).for_image(**asked, size_px=(100, 100))
    np.testing.assert_array_equal(people.boxes_px, np.reshape(boxes, (-1, 4)))
    np.testing.assert_array_equal(people.scores, scores)
    assert people.track_ids.tolist() == [-1] * len(boxes)
    assert people.keypoints_px.shape == (len(boxes), 30, 3)
    assert not people.keypoints_px.any()


@pytest.mark.parametrize(
    ("data", "cause", "remedy"),
    [
        ("hello", "{}: not JSON (Expecting value: line 1 column 1 (char 0))", LAYOUTS),
        ({"people": []}, "{}: contains keypoints but no boxes", "give it as --keypoints"),
        ([{"image_id": 1, "keypoints": [1] * 51}], "{}: person 0: has no 'bbox'", "give it as --keypoints"),
        (
            [{"box": {f"{axis}{at}": at for axis in "xy" for at in range(1, 5)}}],
            "{}: person 0: is an oriented box (four corners)",
            "give upright boxes, or the keypoints as --keypoints",
        ),
        (
            {"boxes": [A], "labels": [1], "scores": [0.5]},
            "{}: contains detector boxes without saying which class is person",
            "give the boxes of people as --boxes: {image name: [[x0, y0, x1, y1], ...]}",
        ),
        ("0 0.5 0.5 0.2 0.3\n", "{}: is a YOLO label file, whose coordinates are fractions of the picture", LAYOUTS),
        ("1 7 20 30 40 50 1\n", "{}: is a table of numbers separated by spaces", LAYOUTS),
        ("3", "{}: not a known box layout", LAYOUTS),
        ({"a.jpg": 3}, "{}: not a known box layout", LAYOUTS),
        ([A, [1, 2, 3]], "{}: person 1: a box has four numbers, not [1, 2, 3]", LAYOUTS),
        ([A, 3], "{}: person 1: a box has four numbers, not 3", LAYOUTS),
        ([A, "x"], "{}: person 1: a box must be numbers", "write the file again"),
        ([A, [1, 2, float("nan"), 4]], "{}: person 1: box (1, 2, nan, 4) contains NaN or infinity", LAYOUTS),
        ([A, [1, 2, 3, 1e99]], "{}: person 1: box (1, 2, 3, inf) contains NaN or infinity", LAYOUTS),
        ([A, [30, 20, 10, 60]], "{}: person 1: box (30, 20, 10, 60) is inverted", XYWH),
        (
            {"a.jpg": [A, [30, 20, 10, 60]]},
            "{}: person 1 of 'a.jpg': box (30, 20, 10, 60) is inverted",
            XYWH,
        ),
        (
            [{"image_id": 1, "bbox": [10, 20, -5, 5]}],
            "{}: person 0: box (10, 20, 5, 25) is inverted",
            LAYOUTS,
        ),
        ([{"image_id": 1}], "{}: person 0: has no 'bbox'", LAYOUTS),
        (
            [{"image_id": 1, "bbox": [1, 2, 3, 4]}, {"bbox": [1, 2, 3, 4]}],
            "{}: person 1: image_id is neither a file name nor a number",
            "write one for every person",
        ),
    ],
)
def test_what_is_wrong_is_said_with_person_and_box(tmp_path, data, cause, remedy):
    path = write(tmp_path, data)
    with pytest.raises(KeypointFileError) as caught:
        read_boxes(path)
    assert (caught.value.cause, caught.value.remedy) == (cause.format(path), remedy)


@pytest.mark.parametrize("box", [[-9, 0, 0, 9], [0, -9, 9, 0], [100, 0, 109, 9], [0, 50, 9, 59]])
def test_a_box_outside_the_image_is_refused(tmp_path, box):
    path = write(tmp_path, [[1, 1, 5, 5], box])
    with pytest.raises(KeypointFileError) as caught:
        read_boxes(path).for_image("a.jpg", size_px=(100, 50))
    text = "(" + ", ".join(map(str, box)) + ")"
    assert caught.value.cause == f"{path}: person 1 of 'a.jpg': box {text} lies outside the image of 100 x 50 px"
    assert caught.value.remedy == "boxes are x0, y0, x1, y1 in pixels of the image; in COCO results x, y, width, height"


def test_a_box_partly_outside_is_kept_as_it_is(tmp_path):
    people = read_boxes(write(tmp_path, [[-30, -30, 10, 10]])).for_image("a.jpg", size_px=(100, 50))
    np.testing.assert_array_equal(people.boxes_px, [[-30, -30, 10, 10]])
