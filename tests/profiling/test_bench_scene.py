import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from jotr_deploy.bundle import open_bundle
from jotr_deploy.config import ModelConfig
from jotr_deploy.errors import JotrDeployError, KeypointFileError, SourceError
from jotr_deploy.profiling.timed_picture import FOUND_NOBODY, default_scene, frame_job, open_scene, stages
from jotr_deploy.runtime.finding.people_networks import PeopleNetworks, open_people_networks
from jotr_deploy.runtime.finding.people_source import DetectedPeople
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.support.spans import Spans

SMALL = ModelConfig(crop_side=64, voxel_grid=4)

JOINTS = np.random.default_rng(0).uniform([20, 10, 0.5], [180, 90, 1], (17, 3))


@pytest.fixture
def picture(tmp_path):
    cv2.imwrite(str(tmp_path / "a.jpg"), np.full((100, 200, 3), 90, np.uint8))
    return tmp_path / "a.jpg"


@pytest.fixture
def keypoints(tmp_path):
    (tmp_path / "k.json").write_text(
        json.dumps([{"image_id": "a.jpg", "category_id": 1, "keypoints": list(JOINTS.ravel())}] * 3)
    )
    return tmp_path / "k.json"


def test_the_picture_in_the_package_shows_two_people():
    with default_scene() as (picture, joints):
        assert (picture.suffix, joints.suffix) == (".jpg", ".json")
    with open_scene(None, None, ModelConfig()) as scene:
        assert len(scene.people) == 2
        assert scene.size_px == (960, 720)
        assert scene.feeds["image"].shape == (2, 3, 256, 256)
        assert (scene.feeds["joints_mask"].sum(1) > 10).all()


def test_a_picture_of_the_user(picture, keypoints):
    with open_scene(picture, keypoints, SMALL) as scene:
        assert (scene.path, scene.size_px, len(scene.people)) == (picture, (200, 100), 3)


def test_without_keypoints_the_whole_picture_is_one_person(picture):
    with open_scene(picture, None, SMALL) as scene:
        assert len(scene.people) == 1
        assert not scene.feeds["joints_mask"].any()


@pytest.mark.parametrize("count", [0, 1, 3, 7])
def test_a_batch_repeats_the_people_in_order(picture, keypoints, count):
    with open_scene(picture, keypoints, SMALL) as scene:
        scene.feeds["joints_mask"][:, 0] = [10, 11, 12]
        feeds = scene.batch(count)
    assert {name: feed.shape[0] for name, feed in feeds.items()} == dict.fromkeys(scene.feeds, count)
    assert feeds["joints_mask"][:, 0].tolist() == [10, 11, 12, 10, 11, 12, 10][:count]


def test_keypoints_without_their_picture(keypoints):
    with pytest.raises(KeypointFileError) as caught, open_scene(None, keypoints, SMALL):
        pass
    assert str(caught.value) == f"{keypoints}: keypoints without their picture\ngive the picture: --source IMAGE"


@pytest.mark.parametrize(
    ("entries", "cause"),
    [
        ([], "{picture}: no people found in this picture"),
        (
            [{"image_id": "a.jpg", "category_id": 1, "keypoints": [0.0] * 51}],
            "{file}: nobody in the file can be used",
        ),
        (
            [{"image_id": "a.jpg", "category_id": 1, "keypoints": [99999.0, 99999.0, 1.0] * 17}],
            "{file}: nobody in the file can be used",
        ),
    ],
)
def test_nobody_in_the_picture_or_in_the_file(picture, tmp_path, entries, cause):
    nobody = tmp_path / "nobody.json"
    nobody.write_text(json.dumps(entries))
    with pytest.raises(JotrDeployError) as caught, open_scene(picture, nobody, SMALL):
        pass
    assert caught.value.cause.startswith(cause.format(picture=picture, file=nobody))


def test_a_folder_is_not_a_picture(picture):
    with pytest.raises(SourceError) as caught, open_scene(picture.parent, None, SMALL):
        pass
    assert str(caught.value) == (
        f"{picture.parent}: one picture is timed, not a folder or a video\ngive a picture: --source IMAGE"
    )


def detector(*boxes_px):
    """One who always finds the same."""
    return lambda image_bgr: (np.array(boxes_px, np.float32).reshape(-1, 4), np.ones(len(boxes_px), np.float32))


@pytest.mark.parametrize(
    ("networks", "keypoints_given", "draws", "expected"),
    [
        (PeopleNetworks(), False, True, "decode crop network draw"),
        (PeopleNetworks(), False, False, "decode crop network"),
        (PeopleNetworks(detector([20, 10, 90, 80])), False, True, "decode detect crop network draw"),
        (PeopleNetworks(detector([20, 10, 90, 80])), True, True, "decode crop network draw"),
    ],
)
def test_what_a_frame_goes_through(picture, keypoints, networks, keypoints_given, draws, expected):
    with open_scene(picture, keypoints if keypoints_given else None, SMALL, networks) as scene:
        assert " ".join(stages(scene, draws)) == expected


def test_the_networks_of_the_starter_find_people_and_are_timed():
    bundle = open_bundle(Path("starter"))
    with (
        open_people_networks(bundle, threads=1) as networks,
        open_session(bundle.file("mesh"), threads=1) as session,
        open_scene(None, None, bundle.manifest.model, networks) as scene,
    ):
        assert (len(scene.people), scene.notes) == (2, ())
        assert (scene.people.keypoints_px[..., 2] > 0).sum(1).min() >= 16
        job = frame_job(scene, session, np.load(bundle.file("faces")))
        seconds = job.run()
    names = ("decode", "detect", "pose", "crop", "network", "draw")
    assert job.keys == tuple(("stage", name) for name in names)
    assert list(seconds) == list(job.keys)
    assert all(value > 0 for value in seconds.values())


def test_a_detector_that_finds_nobody_in_the_picture_of_this_package():
    with open_scene(None, None, SMALL, PeopleNetworks(detector())) as scene:
        assert (len(scene.people), scene.finder, scene.notes) == (2, None, (FOUND_NOBODY,))


def test_a_detector_that_finds_nobody_in_a_picture_of_the_user(picture):
    with (
        pytest.raises(SourceError, match="no people found in this picture"),
        open_scene(picture, None, SMALL, PeopleNetworks(detector())),
    ):
        pass


def test_who_finds_people_tells_the_spans(picture):
    image_bgr, spans = cv2.imread(str(picture)), Spans()
    DetectedPeople(detector([20, 10, 90, 80]), spans=spans, crop_factor=1.1)(image_bgr, "a.jpg", 3)
    assert [(span.stage, span.frame) for span in spans.spans] == [("detect", 3)]


def test_the_stages_of_a_fit_are_part_of_the_frame(picture, keypoints, tiny_bundle):
    """A fit that notes its own stages, as `BundleFitter` does; the rest of its time is a stage too."""

    class Fitter:
        side, cells = 64, 16

        def __call__(self, crops, people, inside, spans):
            assert (crops.image.shape, inside.shape) == ((3, 3, 64, 64), (3, 16, 16))
            for stage in ("features", "render", "backward", "render"):
                with spans(stage):
                    pass
            return SimpleNamespace(people=people)

    bundle = open_bundle(tiny_bundle)
    with open_session(bundle.file("mesh")) as session:
        with open_scene(picture, keypoints, bundle.manifest.model) as scene:
            job = frame_job(scene, session, np.load(bundle.file("faces")), Fitter())
        seconds = job.run()
    names = ["decode", "crop", "network", "features", "render", "backward", "rest of the fit", "draw"]
    assert [name for _, name in job.keys] == [name for _, name in seconds] == names
    assert min(seconds.values()) > 0
