"""What the viewer shows of a result, as values, and where it looks for files."""

from __future__ import annotations

import json
import socket
from dataclasses import replace

import numpy as np
import pytest
from crowd import crowd
from viewer_clip import CLIP, LEFT, RIGHT, SIZE, plain, recording, write

from jotr_deploy.errors import JotrDeployError, SourceError
from jotr_deploy.geometry.camera import project_px
from jotr_deploy.geometry.scene_frame import image_centre_px
from jotr_deploy.people import People
from jotr_deploy.visual.overlay import draw_keypoints
from jotr_deploy.visual.palette import person_colours
from jotr_deploy.visual.viewer import free_port
from jotr_deploy.visual.viewer_data import (
    PICTURE_SIDE_PX,
    Pictures,
    all_names,
    description,
    find_result,
    ground_m,
    likely_sources,
    person_names,
    scene_camera,
    shown_at,
    with_joints,
)

# What is shown, as values


@pytest.mark.parametrize(
    ("track_ids", "names"),
    [
        ([], ()),
        ([-1, -1], ("person 0", "person 1")),
        ([7, 0], ("track 7", "track 0")),
        ([-1, 4, -1], ("person 0", "track 4", "person 1")),
    ],
)
def test_names_of_a_frame(track_ids, names):
    assert person_names(np.array(track_ids, np.int64)) == names


@pytest.mark.parametrize(
    ("frames", "names"),
    [
        ({}, ()),
        ({0: People.none()}, ()),
        (CLIP, ("person 0", "person 1")),
        (
            {0: crowd([LEFT, RIGHT], track_ids=[9, -1]), 5: crowd([LEFT], track_ids=2)},
            ("track 2", "track 9", "person 0"),
        ),
    ],
)
def test_names_of_a_clip_are_those_of_its_frames_once(frames, names):
    clip = recording(frames)
    assert all_names(clip) == names
    assert set(names) == {name for k in range(clip.frames) for name in shown_at(clip, scene_camera(clip), k).names}


def test_the_scene_camera_sees_every_pelvis_where_its_own_camera_does():
    clip = recording(CLIP)
    camera = scene_camera(clip)
    for k in range(4):
        shown = shown_at(clip, camera, k)
        count = len(shown.people)
        assert count == len(clip.at(k)) == len(shown.names)
        np.testing.assert_array_equal(shown.colours_rgb, person_colours(shown.people.track_ids))
        centre = np.tile(image_centre_px(SIZE), (count, 1))
        seen = project_px(shown.places_m[:, None], np.full(count, camera.focal_px), centre)
        own = project_px(shown.people.translation_m[:, None], shown.people.focal_px, shown.people.principal_px)
        np.testing.assert_allclose(seen, own, atol=1e-3)
        assert np.all(shown.places_m[:, 2] < camera.picture_m - 1)


@pytest.mark.parametrize("window_aspect", [0.4, 1.0, 4 / 3, 2.5])
def test_a_window_of_any_shape_holds_the_whole_picture(window_aspect):
    camera = scene_camera(recording(CLIP))
    assert np.tan(camera.fov_rad / 2) == pytest.approx(SIZE[1] / 2 / camera.focal_px)
    height = np.tan(camera.fov_around_rad(window_aspect) / 2) * camera.focal_px * 2
    shares = SIZE[0] / (height * window_aspect), SIZE[1] / height
    assert max(shares) == pytest.approx(1 / 1.03)


@pytest.mark.parametrize("frames", [{}, {0: People.none()}, {0: People.none(), 1: People.none()}])
def test_nobody_has_a_camera_and_a_ground(frames):
    clip = recording(frames)
    camera = scene_camera(clip)
    assert (camera.focal_px, camera.aspect, camera.people_m) == (640.0, 4 / 3, 4.0)
    assert ground_m(clip, camera) == 1.0
    assert len(shown_at(clip, camera, 0).people) == 0


def test_the_ground_is_below_the_people():
    one = recording({0: crowd([(220, 140, 420, 340)])})  # around the middle of the picture
    assert ground_m(one, scene_camera(one)) == pytest.approx(0.5, abs=0.01)


def test_what_is_said_of_people():
    clip = recording(CLIP)
    camera = scene_camera(clip)
    people = replace(clip.at(1), scores=[0.5, 0.25], joints_used=[17, 3], betas=np.full((2, 10), 0.5))
    shown = replace(shown_at(clip, camera, 1), people=people)
    depths = [f"{z:.1f}" for z in shown.places_m[:, 2]]
    assert description(shown, None).splitlines() == [
        "| who | score | joints | depth, m |",
        "|---|---|---|---|",
        f"| person 0 | 0.50 | 17 | {depths[0]} |",
        f"| person 1 | 0.25 | 3 | {depths[1]} |",
    ]
    assert description(shown, "person 1").splitlines() == [
        "| person 1 | |",
        "|---|---|",
        "| score | 0.25 |",
        "| joints used | 3 of 30 |",
        f"| depth | {depths[1]} m before the scene camera |",
        "| own camera | 44.0 m at 1953 px |",
        "| betas | 0.50, 0.50, 0.50, 0.50, 0.50, 0.50, 0.50, 0.50, 0.50, 0.50 |",
    ]
    assert description(shown_at(clip, camera, 0), "person 1") == "person 1 is not in this frame."
    assert description(shown_at(clip, camera, 2), None) == "Nobody is in this frame."


# Pictures


def test_pictures_are_read_one_by_one_and_stay():
    asked = []

    def frames():
        for index in (0, 1, 3, 4):
            asked.append(index)
            yield index, plain(40 * index)

    pictures = Pictures(frames(), np.arange(4))
    assert pictures.at(0) is None
    assert asked == []
    assert [pictures.read_next() for _ in range(2)] == [0, 1]
    assert (asked, pictures.complete) == ([0, 1], False)
    assert [pictures.read_next() for _ in range(2)] == [3, None]
    assert pictures.complete
    assert [pictures.has(k) for k in range(5)] == [True, True, False, True, False]
    picture, size_px = pictures.at(3)
    assert size_px == (64, 48)
    np.testing.assert_allclose(picture, plain(120), atol=2)


def test_of_a_run_of_some_frames_only_those_are_kept():
    pictures = Pictures(((k, plain(0)) for k in range(100)), np.arange(0, 12, 4))
    assert [pictures.read_next() for _ in range(4)] == [0, 4, 8, None]
    assert not pictures.has(1)


@pytest.mark.parametrize(
    ("size", "small"), [((1600, 900), (800, 450)), ((90, 2000), (36, 800)), ((3000, 1), (800, 1)), ((20, 30), (20, 30))]
)
def test_pictures_are_kept_small(size, small):
    pictures = Pictures(iter([(0, plain(9, *size))]), np.arange(1))
    pictures.read_next()
    picture, size_px = pictures.at(0)
    assert (picture.shape, size_px) == ((small[1], small[0], 3), size)
    assert max(picture.shape) <= PICTURE_SIDE_PX


def test_joints_lie_on_the_small_picture_where_they_lie_on_the_whole_one():
    people = crowd([LEFT])
    people.keypoints_px[:] = 0
    people.keypoints_px[0, 0] = (100, 140, 1)
    whole, small = plain(0, *SIZE), plain(0, SIZE[0] // 2, SIZE[1] // 2)
    np.testing.assert_array_equal(with_joints(whole, SIZE, people), draw_keypoints(whole, people))
    drawn = with_joints(small, SIZE, people)
    assert drawn[70, 50].any()
    # the box of LEFT, and nothing beyond it
    rows, columns = np.nonzero(drawn.any(2))
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (20, 50, 120, 150)
    assert not small.any()
    assert people.keypoints_px[0, 0].tolist() == [100, 140, 1]


# Finding the files


def test_a_directory_stands_for_the_file_of_people_in_it(tmp_path):
    write(tmp_path / "clip.npz", recording(CLIP))
    np.savez(tmp_path / "clip_2d.npz", keypoints=np.zeros(3))
    (tmp_path / "torn.npz").write_bytes(b"PK")
    assert find_result(tmp_path) == tmp_path / "clip.npz"
    assert find_result(tmp_path / "clip_2d.npz") == tmp_path / "clip_2d.npz"  # read_people says what is wrong with it
    for name in "abc":
        write(tmp_path / f"{name}.npz", recording({0: People.none()}))
    with pytest.raises(SourceError) as caught:
        find_result(tmp_path)
    assert caught.value.cause == f"{tmp_path}: 4 files of people in this directory (a.npz, b.npz, c.npz, ...)"
    assert caught.value.remedy == "give one of them"


def test_a_directory_without_a_file_of_people(tmp_path):
    with pytest.raises(SourceError) as caught:
        find_result(tmp_path)
    assert caught.value.cause == f"{tmp_path}: no file of people in this directory"
    assert caught.value.remedy == "give the -o of jotr-deploy run, or its .npz"


@pytest.mark.parametrize(
    "summary", [None, "{", "[]", '{"source": 3}', '{"source": "gone.mp4"}', '{"source": "a\\u0000"}']
)
def test_pictures_are_looked_for_near_the_result(tmp_path, monkeypatch, summary):
    monkeypatch.chdir(tmp_path)
    result = tmp_path / "out" / "clip.npz"
    result.parent.mkdir()
    if summary is not None:
        result.with_suffix(".json").write_text(summary)
    assert likely_sources(result, recording({})) == []
    (tmp_path / "clip.mp4").write_bytes(b"")
    assert {path.resolve() for path in likely_sources(result, recording({}))} == {tmp_path / "clip.mp4"}


def test_the_summary_of_the_run_comes_first(tmp_path):
    result, elsewhere = tmp_path / "clip.npz", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "clip.mp4").write_bytes(b"")
    (elsewhere / "clip.mp4").write_bytes(b"")
    result.with_suffix(".json").write_text(json.dumps({"source": str(elsewhere / "clip.mp4")}))
    assert likely_sources(result, recording({}))[:2] == [elsewhere / "clip.mp4", tmp_path / "clip.mp4"]


def test_a_glob_of_pictures_is_found_again_and_no_name_is_no_folder(tmp_path):
    (tmp_path / "a[1]_0.png").write_bytes(b"")
    result = tmp_path / "clip.npz"
    for given, found in [(str(tmp_path / "a*.png"), 1), (str(tmp_path / "b*.png"), 0), ("0", 0)]:
        result.with_suffix(".json").write_text(json.dumps({"source": given}))
        assert len(likely_sources(result, replace(recording({}), source=""))) == found


@pytest.mark.parametrize("source", ["../keep.png", "/dev/null", "\0", "..", "{outside}"])
def test_a_result_leads_to_no_picture_outside_its_folder_and_to_no_device(tmp_path, source):
    (tmp_path / "keep.png").write_bytes(b"")
    result = tmp_path / "a" / "b" / "c" / "clip.npz"
    result.parent.mkdir(parents=True)
    source = source.format(outside=tmp_path / "keep.png")
    assert likely_sources(result, replace(recording({}), source=source)) == []
    result.with_suffix(".json").write_text(json.dumps({"source": "/dev/null" if source == ".." else "\0"}))
    assert likely_sources(result, replace(recording({}), source=source)) == []


def test_the_first_free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert port < free_port("127.0.0.1", port) < port + 100
    assert free_port("127.0.0.1", port) == port
    assert free_port("127.0.0.1", 0) > 0


def test_a_host_that_is_not_this_machine():
    with pytest.raises(JotrDeployError, match=r"^192\.0\.2\.1:8080: cannot be opened for a page \(") as caught:
        free_port("192.0.2.1", 8080)
    assert caught.value.remedy == (
        "give a free --port above 1023; --host 127.0.0.1 serves this machine alone, 0.0.0.0 everybody who can reach it"
    )
