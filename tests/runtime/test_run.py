"""`run` from a source to its directory of results: every kind of source, repeats equal to the bit."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from outcome import tree
from pictures import noise, person, picture, video, write

from jotr_deploy.bundle import Bundle, open_bundle
from jotr_deploy.people import LAYOUT
from jotr_deploy.runtime.run import RunOptions, run
from jotr_deploy.runtime.summary import RunSummary
from jotr_deploy.support.file_names import name_fault
from jotr_deploy.visual.result_files import read_people

ALL = {"save_2d": True, "obj": True, "glb": True}


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


def objects(path: Path) -> int:
    return sum(line.startswith("o ") for line in path.read_text().splitlines())


def frames_of(path: Path) -> list[np.ndarray]:
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames


def test_an_image(tmp_path: Path, bundle: Bundle) -> None:
    photo = picture(tmp_path / "photo.png")
    joints = write(tmp_path / "k.json", [person("photo.png", 1), person("photo.png", 2)])
    seen: list[tuple[int, int | None]] = []
    options = RunOptions(keypoints=joints, **ALL)
    summary = run(bundle, str(photo), tmp_path / "out", options, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 1)]
    assert (summary.frames, summary.people, summary.people_per_frame) == (1, 2, [2])
    assert sorted(summary.files) == sorted(tree(tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "photo.json").read_text()) == summary.as_dict()
    assert objects(tmp_path / "out" / "photo.obj") == 2
    result = read_people(tmp_path / "out" / "photo.npz")
    assert (result.frames, result.source, result.image_size_px, result.fps) == (1, "photo.png", (80, 60), 0)
    assert (result.labels, result.crop_side) == (bundle.manifest.labels, bundle.manifest.model.crop_side)
    np.testing.assert_array_equal(result.faces, np.load(bundle.file("faces")))
    np.testing.assert_allclose(result.people.scores, 0.75)
    assert (result.people.joints_used > 0).all()
    for name in LAYOUT:
        assert np.isfinite(getattr(result.people, name)).all(), name
    for kind in ("overlay", "2d"):
        drawn = cv2.imread(str(tmp_path / "out" / f"photo_{kind}.jpg"))
        assert drawn.shape == (60, 80, 3)
        assert not np.array_equal(drawn, noise())


def folder_of(path: Path) -> Path:
    path.mkdir()
    for number in (10, 2, 1):
        picture(path / f"shot_{number}.png", noise(number))
    return path


@pytest.mark.parametrize(
    ("source", "stem", "shots"),
    [
        ("{}", "shots", (1, 2, 10)),
        ("{}/shot_*.png", "shot", (1, 2, 10)),
        ("{}/*", "images", (1, 2, 10)),
        ("{}/shot_[12].png", "shot__12", (1, 2)),
        ("{}/*_1?.png", "1", (10,)),
    ],
)
def test_folders_and_globs(tmp_path: Path, bundle: Bundle, source: str, stem: str, shots: tuple[int, ...]) -> None:
    folder = folder_of(tmp_path / "shots")
    count = {1: 1, 2: 0, 10: 2}
    boxes = {f"shot_{number}.png": [[5, 5, 50, 50]] * people for number, people in count.items()}
    options = RunOptions(boxes=write(tmp_path / "b.json", boxes), **ALL)
    summary = run(bundle, source.format(folder), tmp_path / "out", options)
    assert summary.people_per_frame == [count[number] for number in shots]
    written = {f"{stem}.npz", f"{stem}.json", f"{stem}.glb", f"{stem}_2d.npz"}
    written |= {f"shot_{number}_{kind}.jpg" for number in shots for kind in ("overlay", "2d")}
    if len(shots) == 1:
        written.add(f"{stem}.obj")
    else:
        written |= {f"{stem}_{frame:06d}.obj" for frame, number in enumerate(shots) if count[number]}
    assert set(tree(tmp_path / "out")) == written


def test_a_video_by_frame_number(tmp_path: Path, bundle: Bundle) -> None:
    clip = video(tmp_path / "clip.mp4", 4)
    joints = write(tmp_path / "k.json", [person(3, 3), person(0, 1), person(3, 2)])
    summary = run(bundle, str(clip), tmp_path / "out", RunOptions(keypoints=joints, **ALL))
    assert (summary.frames, summary.people_per_frame) == (4, [1, 0, 0, 2])
    result = read_people(tmp_path / "out" / "clip.npz")
    assert (result.frame.tolist(), result.frames, result.fps) == ([0, 3, 3], 4, 12.0)
    assert set(tree(tmp_path / "out")) == {
        "clip.npz", "clip.json", "clip.glb", "clip_2d.npz", "clip_000000.obj", "clip_000003.obj",
        "clip_overlay.mp4", "clip_2d.mp4",
    }  # fmt: skip
    assert [objects(tmp_path / "out" / f"clip_00000{frame}.obj") for frame in (0, 3)] == [1, 2]
    for kind in ("overlay", "2d"):
        assert [frame.shape for frame in frames_of(tmp_path / "out" / f"clip_{kind}.mp4")] == [(60, 80, 3)] * 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["keypoints", "boxes", "nothing"])
@pytest.mark.parametrize("source", ["photo.png", "clip.mp4", "shots"])
def test_the_joints_that_were_used_repeat_the_run(tmp_path: Path, bundle: Bundle, kind: str, source: str) -> None:
    picture(tmp_path / "photo.png")
    video(tmp_path / "clip.mp4", 3)
    folder_of(tmp_path / "shots")
    names: list[str | int] = ["photo.png", "shot_2.png", 1]
    content = [person(name, seed) for seed, name in enumerate(names)] + [person(name, 9) for name in names]
    boxes = [{"image_id": name, "bbox": [6, 7, 30, 40.5], "score": 0.5} for name in names]
    files = {
        "keypoints": RunOptions(keypoints=write(tmp_path / "k.json", content), save_2d=True),
        "boxes": RunOptions(boxes=write(tmp_path / "b.json", boxes), save_2d=True),
        "nothing": RunOptions(people="frame", save_2d=True),
    }
    stem = Path(source).stem
    first = run(bundle, str(tmp_path / source), tmp_path / "a", files[kind])
    assert first.people > 0
    again = RunOptions(keypoints=tmp_path / "a" / f"{stem}_2d.npz", save_2d=True)
    second = run(bundle, str(tmp_path / source), tmp_path / "b", again)
    assert first.people_per_frame == second.people_per_frame
    for result in (f"{stem}.npz", f"{stem}_2d.npz"):
        assert_equal_archives(tmp_path / "a" / result, tmp_path / "b" / result)


def assert_equal_archives(a: Path, b: Path) -> None:
    with np.load(a) as first, np.load(b) as second:
        assert first.files == second.files
        for name in first.files:
            assert first[name].dtype == second[name].dtype
            assert first[name].tobytes() == second[name].tobytes(), name


@pytest.mark.slow
def test_two_runs_are_equal_to_the_byte_but_for_their_times(tmp_path: Path, bundle: Bundle) -> None:
    clip = video(tmp_path / "clip.mp4", 3)
    joints = write(tmp_path / "k.json", [person(frame, seed) for seed, frame in enumerate((0, 0, 2))])
    options = RunOptions(keypoints=joints, **ALL)
    summaries = [run(bundle, str(clip), tmp_path / name, options) for name in ("a", "b")]
    first, second = tree(tmp_path / "a"), tree(tmp_path / "b")
    assert first.pop("clip.json") != b""
    second.pop("clip.json")
    assert first.keys() == second.keys()
    for name, content in first.items():
        assert content == second[name], name
    assert without_times(summaries[0]) == without_times(summaries[1])


def without_times(summary: RunSummary) -> dict[str, object]:
    return {
        name: value for name, value in summary.as_dict().items() if name not in ("milliseconds_per_frame", "seconds")
    }


def test_results_join_those_of_other_sources_and_replace_their_own(tmp_path: Path, bundle: Bundle) -> None:
    out = tmp_path / "out"
    for name in ("a", "b"):
        run(bundle, str(picture(tmp_path / f"{name}.png")), out, RunOptions())
    before = tree(out)
    run(bundle, str(picture(tmp_path / "b.png", noise(7))), out, RunOptions())
    after = tree(out)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} - {"b.json"} == {"b.npz", "b_overlay.jpg"}


def test_images_of_one_stem_do_not_overwrite_each_other(tmp_path: Path, bundle: Bundle) -> None:
    for name, seed in (("a.jpg", 0), ("a.png", 1), ("b.png", 2)):
        (tmp_path / "shots").mkdir(exist_ok=True)
        picture(tmp_path / "shots" / name, noise(seed))
    summary = run(bundle, str(tmp_path / "shots"), tmp_path / "out", RunOptions(save_2d=True))
    assert summary.frames == 3
    assert {name for name in summary.files if name.endswith(".jpg")} == {
        f"{name}_{kind}.jpg" for name in ("a_000000", "a_000001", "b") for kind in ("overlay", "2d")
    }


def test_images_of_several_sizes(tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "shots").mkdir()
    for name, image in (("1.png", noise()), ("2.png", noise()[:31, :17]), ("3.png", noise()[:1, :1])):
        picture(tmp_path / "shots" / name, image)
    run(bundle, str(tmp_path / "shots"), tmp_path / "out", RunOptions())
    shapes = [cv2.imread(str(tmp_path / "out" / f"{number}_overlay.jpg")).shape[:2] for number in (1, 2, 3)]
    assert shapes == [(60, 80), (31, 17), (1, 1)]


def test_the_bundle_is_not_touched(tmp_path: Path, bundle: Bundle) -> None:
    before = tree(bundle.path)
    run(bundle, str(picture(tmp_path / "photo.png")), tmp_path / "out", RunOptions(**ALL))
    assert tree(bundle.path) == before


def test_results_have_names_that_every_system_takes(tmp_path: Path, bundle: Bundle) -> None:
    folder = tmp_path / "12:30"
    folder.mkdir()
    for name in ("a:b.png", "a_b.png", "nul.png", "a\nb.png", f"{'x' * 240}.png"):
        picture(folder / name)
    options = RunOptions(people="frame", obj=True, coco=True)
    summary = run(bundle, str(folder), tmp_path / "out", options)
    assert [name_fault(file) for file in summary.files] == [None] * len(summary.files)
    assert {file for file in summary.files if file.endswith("overlay.jpg")} == {
        "_nul_overlay.jpg", f"{'x' * 160}_overlay.jpg",
        *(f"a_b_{number:06d}_overlay.jpg" for number in range(3)),
    }  # fmt: skip
    assert "12_30.npz" in summary.files


def test_a_summary_that_lies_there_names_no_file_outside(tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "keep.txt").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "photo_old.jpg").touch()
    listed = ["../keep.txt", str(tmp_path / "keep.txt"), "photo_old.jpg", "", "\0"]
    (tmp_path / "out" / "photo.json").write_text(json.dumps({"files": listed}))
    options = RunOptions(people="frame")
    assert run(bundle, str(picture(tmp_path / "photo.png")), tmp_path / "out", options).earlier == ["photo_old.jpg"]
