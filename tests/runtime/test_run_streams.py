"""`run` on moving pictures: every format of networks, overlap, faults, Ctrl-C, tracks and smoothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import pytest
from canned import (
    joints_on_canvas,
    mmdeploy_answers,
    on_canvas,
    on_centred_canvas,
    rtmo_answers,
    ultralytics_end_to_end,
    ultralytics_pose,
    write_always,
    write_heatmaps,
    write_simcc,
)
from outcome import tree
from pictures import noise, person, picture, video, write
from streams import camera, plays, served

from jotr_deploy.bundle import Bundle, open_bundle
from jotr_deploy.errors import SourceError
from jotr_deploy.people import LAYOUT
from jotr_deploy.runtime.run import RunOptions, run
from jotr_deploy.runtime.run_outputs import Results
from jotr_deploy.runtime.sources.opening import VideoWriter
from jotr_deploy.third_party.addition import NewNetwork, add_networks
from jotr_deploy.visual.result_files import PeopleWriter, read_people

pytestmark = pytest.mark.slow

FOOTAGE = Path(os.environ.get("JOTR_DEPLOY_FOOTAGE", Path(__file__).parents[3] / "shared" / "data"))
PICTURE_PX, CANVAS, INPUT = (80, 60), (96, 96), (48, 64)
BOXES_PX = np.array([[10, 8, 34, 50], [44, 12, 70, 56.0]])
SCORES = np.array([0.9, 0.8])


@pytest.fixture
def bundle(tmp_path: Path, tiny_bundle: Path) -> Bundle:
    return open_bundle(Path(shutil.copytree(tiny_bundle, tmp_path / "bundle")))


def joints_px() -> np.ndarray:
    rng = np.random.default_rng(3)
    inside = BOXES_PX[:, None, :2] + rng.uniform(0.1, 0.9, (2, 17, 2)) * (BOXES_PX[:, None, 2:] - BOXES_PX[:, None, :2])
    return np.concatenate([inside, np.full((2, 17, 1), 0.9)], -1)


def centred(boxes_px: np.ndarray) -> np.ndarray:
    return on_centred_canvas(boxes_px, PICTURE_PX, CANVAS)


def mmdeploy_and_heatmaps(folder: Path) -> dict[str, Path]:
    answers = mmdeploy_answers(on_canvas(BOXES_PX, PICTURE_PX, CANVAS), SCORES)
    return {"detector": write_always(folder / "d.onnx", "input", CANVAS, answers),
            "pose": write_heatmaps(folder / "p.onnx", INPUT)}  # fmt: skip


def ultralytics_and_simcc(folder: Path) -> dict[str, Path]:
    answers = ultralytics_end_to_end(centred(BOXES_PX), SCORES)
    return {"detector": write_always(folder / "d.onnx", "images", CANVAS, answers),
            "pose": write_simcc(folder / "p.onnx", INPUT)}  # fmt: skip


def rtmo(folder: Path) -> dict[str, Path]:
    def boxes(boxes_px: np.ndarray) -> np.ndarray:
        return on_canvas(boxes_px, PICTURE_PX, CANVAS)

    answers = rtmo_answers(boxes(BOXES_PX), SCORES, joints_on_canvas(joints_px(), boxes))
    return {"detector": write_always(folder / "d.onnx", "input", CANVAS, answers)}


def ultralytics_with_joints(folder: Path) -> dict[str, Path]:
    joints = joints_on_canvas(joints_px(), centred)
    answers = ultralytics_pose(centred(BOXES_PX), SCORES, joints, CANVAS, True)
    return {"detector": write_always(folder / "d.onnx", "images", CANVAS, answers)}


FORMATS = [mmdeploy_and_heatmaps, ultralytics_and_simcc, rtmo, ultralytics_with_joints]


def added(bundle: Bundle, files: dict[str, Path]) -> Bundle:
    new = [NewNetwork(role, file, {}) for role, file in files.items()]  # type: ignore[arg-type]
    with patch(
        "jotr_deploy.third_party.addition._refuse_if_wrong"
    ):  # their answers are for another picture than the one `add` tries
        add_networks(bundle, new)
    return open_bundle(bundle.path)


@pytest.mark.parametrize("networks", FORMATS)
def test_networks_of_others_find_the_people_of_a_video(
    tmp_path: Path, bundle: Bundle, networks: Callable[[Path], dict[str, Path]]
) -> None:
    with VideoWriter(tmp_path / "clip.mp4", 12) as writer:
        for _ in range(4):
            writer.write(noise())
    clip, options = tmp_path / "clip.mp4", RunOptions(coco=True, smooth="one-euro")
    summary = run(added(bundle, networks(tmp_path)), str(clip), tmp_path / "out", options)
    assert (summary.frames, summary.people_per_frame, summary.tracks) == (4, [2] * 4, 2)
    assert summary.skeleton == "coco17"
    result = read_people(tmp_path / "out" / "clip.npz")
    assert result.people.track_ids.tolist() == [1, 2] * 4
    entries = json.loads((tmp_path / "out" / "clip_coco.json").read_text())
    assert [(entry["image_id"], entry["track_id"]) for entry in entries] == [(f, t) for f in range(4) for t in (1, 2)]


@pytest.mark.parametrize("networks", FORMATS)
@pytest.mark.parametrize("name", ["single_person.mp4", "multi_person.mp4"])
def test_real_footage_goes_through(
    tmp_path: Path, bundle: Bundle, networks: Callable[[Path], dict[str, Path]], name: str
) -> None:
    film = FOOTAGE / name
    if not film.is_file():
        pytest.skip(f"no {name}: put videos of people into a folder and name it in JOTR_DEPLOY_FOOTAGE")
    for number, opened in enumerate((added(bundle, networks(tmp_path)), open_bundle(Path("starter")))):
        summary = run(opened, str(film), tmp_path / str(number), RunOptions(every=10))
        assert summary.frames == 4
        assert summary.people == sum(summary.people_per_frame) > 0


@pytest.mark.parametrize("smooth", [None, "one-euro", "two-sided"])
def test_overlap_changes_nothing_but_the_time(tmp_path: Path, bundle: Bundle, smooth: Any) -> None:
    networks = added(bundle, ultralytics_and_simcc(tmp_path))
    clip = video(tmp_path / "clip.mp4", 9)
    for overlap in (False, True):
        options = RunOptions(overlap=overlap, smooth=smooth, save_2d=True, coco=True)
        run(networks, str(clip), tmp_path / str(overlap), options)
    plain, overlapped = tree(tmp_path / "False"), tree(tmp_path / "True")
    assert plain.pop("clip.json") != overlapped.pop("clip.json")
    assert plain == overlapped
    assert {thread.name for thread in threading.enumerate()} & {"decode", "people", "mesh"} == set()


@pytest.mark.parametrize("smooth", ["one-euro", "two-sided"])
def test_smoothed_people_are_those_of_their_frames_and_all_there(tmp_path: Path, bundle: Bundle, smooth: Any) -> None:
    joints = write(tmp_path / "k.json", [{**person(frame, 1), "idx": 5} for frame in (0, 1, 2, 4, 5)])
    clip = video(tmp_path / "clip.mp4", 6)
    for mode in (None, smooth):
        run(bundle, str(clip), tmp_path / str(mode), RunOptions(keypoints=joints, smooth=mode))
    raw, smoothed = (read_people(tmp_path / str(mode) / "clip.npz") for mode in (None, smooth))
    assert raw.frame.tolist() == smoothed.frame.tolist() == [0, 1, 2, 4, 5]
    assert smoothed.people.track_ids.tolist() == [5] * 5  # the file knows who is who
    for name in LAYOUT.keys() - {"pose_rad", "betas", "translation_m", "vertices_m", "joints_m"}:
        np.testing.assert_array_equal(getattr(raw.people, name), getattr(smoothed.people, name), name)
    assert not np.array_equal(raw.people.vertices_m, smoothed.people.vertices_m)


def shots(folder: Path) -> Path:
    folder.mkdir()
    for number in range(4):
        picture(folder / f"{number}.png", noise(number))
    return folder


@pytest.mark.parametrize("overlap", [False, True])
def test_a_frame_that_fails_is_named_and_left_out(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, overlap: bool, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shots(tmp_path / "shots")
    (folder / "2.png").write_text("no picture")
    boxes = {f"{number}.png": [[5, 5, 50, 50]] for number in range(4)}
    boxes["1.png"] = [[500, 500, 600, 600]]  # outside of the picture
    options = RunOptions(boxes=write(tmp_path / "b.json", boxes), keep_going=True, overlap=overlap)
    summary = run(bundle, str(folder), tmp_path / "out", options)
    assert (summary.frames, summary.people) == (2, 2)
    assert sorted(each.split(":")[0] for each in summary.skipped) == ["1.png", "2.png"]
    assert "1.png: skipped (" in caplog.text
    assert read_people(tmp_path / "out" / "shots.npz").frame.tolist() == [0, 3]
    assert {name for name in tree(tmp_path / "out") if name.endswith(".jpg")} == {"0_overlay.jpg", "3_overlay.jpg"}
    with pytest.raises(SourceError, match=r"2\.png"):
        run(bundle, str(folder / "[023].png"), tmp_path / "strict", RunOptions(people="frame", overlap=overlap))
    assert not (tmp_path / "strict").exists()


def test_where_every_frame_fails_the_first_says_why(tmp_path: Path, bundle: Bundle) -> None:
    folder = shots(tmp_path / "shots")
    options = RunOptions(people="frame", keep_going=True, roi_px=(200, 0, 300, 60))
    with pytest.raises(SourceError, match=r"0\.png: the region .* is outside the picture"):
        run(bundle, str(folder), tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("after", [1, 5])
def test_an_interrupt_leaves_whole_files_of_what_was_done(
    tmp_path: Path, bundle: Bundle, overlap: bool, after: int
) -> None:
    clip = video(tmp_path / "clip.mp4", 30)

    def progress(done: int, _: int | None) -> None:
        if done == after:
            signal.raise_signal(signal.SIGINT)

    options = RunOptions(people="frame", save_2d=True, glb=True, coco=True, overlap=overlap)
    summary = run(bundle, str(clip), tmp_path / "out", options, progress)
    assert (summary.ended, summary.frames) == ("interrupted", after)
    assert sorted(summary.files) == sorted(tree(tmp_path / "out"))
    assert read_people(tmp_path / "out" / "clip.npz").frames == after
    capture = cv2.VideoCapture(str(tmp_path / "out" / "clip_overlay.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == after
    assert len(json.loads((tmp_path / "out" / "clip_coco.json").read_text())) == after


def test_a_stream_that_ends_early_keeps_what_came(tmp_path: Path, bundle: Bundle) -> None:
    pictures = [cv2.imencode(".jpg", noise(seed))[1].tobytes() for seed in range(8)]
    with served(camera(pictures)) as url:
        summary = run(bundle, f"{url}/cam.mjpg", tmp_path / "out", RunOptions(people="frame"))
    assert summary.frames > 0
    assert summary.ended is not None
    assert summary.ended.endswith(f"the stream ended, after {summary.frames} frame{'s' * (summary.frames != 1)}")
    assert read_people(tmp_path / "out" / "cam.npz").frames == summary.frames


def test_a_video_over_http_is_all_there(tmp_path: Path, bundle: Bundle) -> None:
    data = video(tmp_path / "clip.mp4", 40).read_bytes()
    with served(plays(data)) as url:
        summary = run(bundle, f"{url}/clip.mp4", tmp_path / "out", RunOptions(people="frame", every=4))
    assert (summary.frames, summary.ended) == (10, None)
    assert read_people(tmp_path / "out" / "clip.npz").numbers.tolist() == list(range(0, 40, 4))


@pytest.mark.parametrize("smooth", [None, "one-euro", "two-sided"])
def test_one_frame_every_few_seconds(tmp_path: Path, bundle: Bundle, smooth: Any) -> None:
    clip = video(tmp_path / "clip.mp4", 70)  # 12 frames/s
    options = RunOptions(people="frame", every=30, smooth=smooth, glb=True)
    summary = run(bundle, str(clip), tmp_path / "out", options)
    assert (summary.frames, summary.people, summary.tracks) == (3, 3, 1)
    assert read_people(tmp_path / "out" / "clip.npz").numbers.tolist() == [0, 30, 60]


@pytest.mark.parametrize("when", ["finish", "assemble"])
def test_an_interrupt_while_files_are_finished_comes_after_them(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    place, name = {"finish": (Results, "finish"), "assemble": (PeopleWriter, "_assemble")}[when]
    work = getattr(place, name)

    def interrupted(*arguments: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        work(*arguments)

    monkeypatch.setattr(place, name, interrupted)
    clip = video(tmp_path / "clip.mp4", 3)
    with pytest.raises(KeyboardInterrupt):
        run(bundle, str(clip), tmp_path / "out", RunOptions(people="frame"))
    assert set(tree(tmp_path / "out")) == {"clip.npz", "clip.json", "clip_overlay.mp4"}
    assert read_people(tmp_path / "out" / "clip.npz").frames == 3


def test_only_so_many_and_only_there(tmp_path: Path, bundle: Bundle) -> None:
    networks = added(bundle, mmdeploy_and_heatmaps(tmp_path))
    clip = video(tmp_path / "clip.mp4", 2)
    most = run(networks, str(clip), tmp_path / "most", RunOptions(max_people=1))
    assert most.people_per_frame == [1, 1]
    found = read_people(tmp_path / "most" / "clip.npz").people
    np.testing.assert_allclose(found.scores, 0.9, atol=1e-6)
    boxes = write(tmp_path / "b.json", {str(frame): BOXES_PX.tolist() for frame in range(2)})
    there = run(bundle, str(clip), tmp_path / "there", RunOptions(boxes=boxes, roi_px=(40, 0, 80, 60)))
    assert there.people_per_frame == [1, 1]
