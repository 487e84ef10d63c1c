"""A loaded bundle: pictures and streams in any order, people given or found, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from pictures import noise, person, picture, video, write

import jotr_deploy as jd
from jotr_deploy.errors import BundleError, JotrDeployError, KeypointFileError, SessionError, SourceError
from jotr_deploy.people import LAYOUT

IMAGE = noise()


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Iterator[jd.Model]:
    with jd.load(tiny_bundle, people="frame", device="cpu") as model:
        yield model


def joints(count: int, names: int = 17) -> np.ndarray:
    xy = np.random.default_rng(0).uniform(10, 50, (count, names, 2))
    return np.concatenate([xy, np.full((count, names, 1), 0.9)], -1)


def same(a: jd.People, b: jd.People) -> None:
    for name in LAYOUT:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def test_a_path_and_its_pixels_are_the_same_picture(model: jd.Model, tmp_path: Path) -> None:
    photo = picture(tmp_path / "photo.png")
    people = model(photo)
    assert len(people) == 1
    same(people, model(str(photo)))
    same(people, model(cv2.imread(str(photo))))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_given_boxes_become_squares_in_order(model: jd.Model, count: int) -> None:
    boxes = np.array([[5, 5, 25, 35], [10, 10, 40, 20], [0, 0, 80, 60]])[:count]
    people = model(IMAGE, boxes=boxes)
    assert len(people) == count
    sides = 1.1 * (boxes[:, 2:] - boxes[:, :2]).max(1, initial=0)
    np.testing.assert_allclose(people.boxes_px[:, 2] - people.boxes_px[:, 0], sides, rtol=1e-5)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    np.testing.assert_allclose((people.boxes_px[:, :2] + people.boxes_px[:, 2:]) / 2, centres, atol=1e-4)


@pytest.mark.parametrize(("names", "skeleton"), [(17, "coco17"), (17, None), (25, None), (30, "smpl30")])
def test_given_joints_reach_the_network(model: jd.Model, names: int, skeleton: str | None) -> None:
    people = model(IMAGE, keypoints=joints(2, names), skeleton=skeleton)
    assert len(people) == 2
    assert (people.joints_used >= 14).all()


def test_given_joints_are_those_of_a_file(model: jd.Model, tmp_path: Path) -> None:
    photo = picture(tmp_path / "photo.png")
    entry = person("photo.png", 1)
    write(tmp_path / "k.json", [entry])
    ((_, read),) = model.stream(photo, keypoints=tmp_path / "k.json")
    given = np.array(entry["keypoints"], float).reshape(1, 17, 3)
    passed = model(photo, keypoints=given)
    np.testing.assert_array_equal(read.vertices_m, passed.vertices_m)
    np.testing.assert_array_equal(read.boxes_px, passed.boxes_px)


def test_boxes_beside_joints_keep_everybody(model: jd.Model) -> None:
    given = joints(2)
    given[1, :, 2] = 0
    assert len(model(IMAGE, keypoints=given)) == 1
    people = model(IMAGE, keypoints=given, boxes=[[0, 0, 40, 40], [20, 10, 60, 50]])
    assert people.joints_used.tolist() == [people.joints_used[0], 0]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_people_of_a_result_give_it_again(model: jd.Model, count: int) -> None:
    first = model(IMAGE, keypoints=joints(count))
    assert len(first) == count
    same(first, model(IMAGE, people=first))
    same(first[1:], model(IMAGE, people=first[1:]))


def test_people_of_a_result_are_where_they_are_without_the_lens(tiny_bundle: Path, tmp_path: Path) -> None:
    camera = "camera_matrix: [[90, 0, 40], [0, 90, 30], [0, 0, 1]]\ndistortion_coefficients: [-0.3, 0.1, 0, 0]\n"
    (tmp_path / "camera.yml").write_text(camera)
    with jd.load(tiny_bundle, camera=tmp_path / "camera.yml", device="cpu") as model:
        first = model(IMAGE, keypoints=joints(2))
        same(first, model(IMAGE, people=first))


@pytest.mark.parametrize(
    ("boxes", "warned"),
    [
        ([], False),
        ([[1, 2, 11, 12]], False),  # whole numbers: somebody's own
        ([[1.5, 2, 11.5, 12], [3, 4, 9, 20]], False),
        ([[1.5, 2, 11.5, 12], [3, 4, 9.25, 10.25]], True),
    ],
)
def test_crops_given_for_boxes_are_warned_of(
    model: jd.Model, boxes: list[list[float]], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(model(IMAGE, boxes=boxes)) == len(boxes)
    assert ("People.boxes_px" in caplog.text) == warned


def test_what_is_not_finite_is_absent(model: jd.Model) -> None:
    given = joints(1)
    given[0, 3] = np.nan
    assert model(IMAGE, keypoints=given).keypoints_px[0, :, 2].tolist().count(0.0) > 0
    assert np.isfinite(model(IMAGE, keypoints=given).vertices_m).all()


def test_streams_start_anew_and_calls_between_them_change_nothing(model: jd.Model, tmp_path: Path) -> None:
    clip = video(tmp_path / "clip.mp4", 4)
    first = list(model.stream(clip, smooth="one-euro"))
    model(IMAGE)
    second = list(model.stream(str(clip), smooth="one-euro"))
    assert [frame.index for frame, _ in first] == [0, 1, 2, 3]
    for (_, one), (_, other) in zip(first, second, strict=True):
        same(one, other)
        assert one.track_ids.tolist() == [1]
    thinned = [frame.index for frame, _ in model.stream(clip, every=2)]
    assert thinned == [0, 2]


def test_two_streams_may_take_turns(model: jd.Model, tmp_path: Path) -> None:
    clips = [video(tmp_path / f"{name}.mp4", 3) for name in "ab"]
    alone = [list(model.stream(clip)) for clip in clips]
    turns = list(zip(*map(model.stream, clips), strict=True))
    for number, clip in enumerate(alone):
        for (frame, people), pair in zip(clip, turns, strict=True):
            assert pair[number][0].index == frame.index
            same(pair[number][1], people)


def test_drawing_leaves_the_picture_alone(model: jd.Model) -> None:
    before = IMAGE.copy()
    drawn = model.draw(IMAGE, model(IMAGE))
    assert drawn.shape == IMAGE.shape
    assert (drawn != IMAGE).any()
    np.testing.assert_array_equal(IMAGE, before)
    plain = model.draw(IMAGE, jd.People.none())
    assert plain.shape == IMAGE.shape


@pytest.mark.parametrize(
    ("image", "cause"),
    [
        (None, "the image is None"),
        (IMAGE.astype(np.float32), "the image is float32 of shape (60, 80, 3)"),
        (IMAGE[..., 0], "the image is uint8 of shape (60, 80)"),
        (np.zeros((0, 5, 3), np.uint8), "the image is uint8 of shape (0, 5, 3)"),
        (np.zeros((60, 80, 4), np.uint8), "the image is uint8 of shape (60, 80, 4)"),
    ],
)
def test_what_is_not_a_picture_is_refused(model: jd.Model, image: object, cause: str) -> None:
    with pytest.raises(SourceError) as refusal:
        model(image)
    assert refusal.value.cause == cause


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        ({"boxes": [[1, 2, 3]]}, "boxes are of shape (1, 3)"),
        ({"boxes": [[5, 5, 5, 9]]}, "a box has no area, or is not finite"),
        ({"boxes": [[0, 0, np.nan, 9]]}, "a box has no area, or is not finite"),
        ({"boxes": "a file"}, "boxes are not an array of numbers"),
        ({"keypoints": joints(1)[..., :2]}, "keypoints are of shape (1, 17, 2)"),
        ({"keypoints": joints(1)[0]}, "keypoints are of shape (17, 3)"),
        ({"keypoints": joints(1, 19)}, "keypoints have 19 joints per person"),
        ({"keypoints": joints(1), "skeleton": "body25"}, "keypoints have 17 joints per person"),
        ({"keypoints": joints(1), "skeleton": "coco"}, "skeleton 'coco' is not known"),
        ({"keypoints": joints(2), "boxes": [[0, 0, 9, 9]]}, "1 boxes but joints of 2 people"),
        ({"people": [[0, 0, 9, 9]]}, "people are given as list"),
        ({"people": jd.People.none(), "boxes": [[0, 0, 9, 9]]}, "both people and boxes or keypoints are given"),
    ],
)
def test_people_of_another_shape_are_refused(model: jd.Model, given: dict[str, object], cause: str) -> None:
    with pytest.raises(KeypointFileError) as refusal:
        model(IMAGE, **given)
    assert refusal.value.cause == cause


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"people": "yolo"}, "people: 'yolo' is not known"),
        ({"device": "gpu"}, "device: 'gpu' is not known"),
        ({"threads": 0}, "threads: 0 is too few"),
    ],
)
def test_loading_knows_its_words(tiny_bundle: Path, options: dict[str, object], cause: str) -> None:
    with pytest.raises(JotrDeployError) as refusal:
        jd.load(tiny_bundle, **options)
    assert refusal.value.cause == cause


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"source": IMAGE}, "cannot stream from ndarray"),
        ({"smooth": "two_sided"}, "smooth: 'two_sided' is not known"),
        ({"joints_in": "px"}, "joints_in: 'px' is not known"),
        ({"every": 0}, "every: 0 is too few"),
        ({"max_people": 0}, "max_people: 0 is too few"),
    ],
)
def test_streaming_knows_its_words(model: jd.Model, options: dict[str, object], cause: str) -> None:
    with pytest.raises(JotrDeployError) as refusal:
        next(model.stream(**{"source": "photo.png", **options}))
    assert refusal.value.cause == cause


def test_a_manifest_of_another_network_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "b")
    manifest = json.loads((tmp_path / "b/bundle.json").read_text())
    side, grid = manifest["model"]["crop_side"], manifest["model"]["voxel_grid"]
    manifest["model"].update(crop_side=2 * side, voxel_grid=2 * grid)
    (tmp_path / "b/bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=f"the manifest has crops of {2 * side} px, mesh.onnx takes {side} px"):
        jd.load(tmp_path / "b", device="cpu")


def test_a_closed_model_says_so(tiny_bundle: Path) -> None:
    with jd.load(tiny_bundle, people="frame", device="cpu") as model:
        pass
    for use in (lambda: model(IMAGE), lambda: next(model.stream("photo.jpg"))):
        with pytest.raises(SessionError, match="the model is closed"):
            use()


def test_a_detector_that_is_not_there_is_missed(tiny_bundle: Path) -> None:
    with (
        jd.load(tiny_bundle, people="detector", device="cpu") as model,
        pytest.raises(BundleError, match="the bundle has none"),
    ):
        model(IMAGE)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(JotrDeployError, match="not a bundle"):
        jd.load(tmp_path)
