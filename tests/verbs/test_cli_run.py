"""`run` at work, through the command line: what is written, what is said, and how it ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from shlex import quote

import cv2
import numpy as np
import pytest
from outcome import Outcome, tree
from pictures import noise, person, picture, video, write

from jotr_deploy.visual.result_files import read_people

Cli = Callable[..., Outcome]

SOURCES = "remedy: give an image, a folder, a glob in quotes such as 'folder/*.png', a video, a camera number or a URL"
STAGES = ["open", "decode", "crop", "network", "track", "place", "draw", "write"]
FILES = ("--vertices", "--obj", "--glb", "--save-2d")
NOBODY = "note nobody was found; are the joints or boxes those of this source?"
LABELS = ["untrained: pose is meaningless", "stand-in body"]


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def test_an_image(cli: Cli, tmp_path: Path, tiny_bundle: Path) -> None:
    photo, output = picture(tmp_path / "photo.png"), tmp_path / "deep" / "out"
    joints = write(tmp_path / "joints.json", [person("photo.png", 1), person("other.png", 2), person("photo.png", 3)])
    outcome = cli("run", tiny_bundle, photo, "--keypoints", joints, "-o", output, "--obj", "--glb", "--save-2d")
    assert outcome.code == 0
    assert outcome.err == f"reading {photo}\n"
    assert set(tree(output)) == {
        "photo.npz", "photo.json", "photo_overlay.jpg", "photo_2d.npz", "photo_2d.jpg", "photo.obj", "photo.glb",
    }  # fmt: skip
    lines = outcome.out.splitlines()
    assert re.fullmatch(r"ms per frame, mean: (\w+ [\d.]+, )+\w+ [\d.]+; all [\d.]+", lines[0])
    assert [line for line in lines if line.startswith("note")] == [f"note {label}" for label in LABELS]
    following = f"look at {output}/photo_overlay.jpg, or jotr-deploy view {output}/photo.npz"
    assert lines[-1] == f"done {output} (2 people in 1 frame, 7 files). Next: {following}"


def test_json_is_the_summary_that_is_written(cli: Cli, tmp_path: Path, tiny_bundle: Path) -> None:
    clip, output = video(tmp_path / "clip.mp4", 3), tmp_path / "out"
    joints = write(tmp_path / "joints.json", [person(0), person(2, 1), person(2, 2)])
    outcome = cli("run", tiny_bundle, clip, "--keypoints", joints, "-o", output, "--json")
    assert outcome.code == 0
    summary = json.loads(outcome.out)
    assert summary.pop("output") == str(output)
    assert summary == json.loads((output / "clip.json").read_text())
    times = summary.pop("milliseconds_per_frame")
    assert summary.pop("seconds") > 0
    assert list(times) == STAGES
    assert all(value >= 0 for value in times.values())
    assert summary == {
        "source": str(clip), "bundle": str(tiny_bundle), "labels": LABELS, "frames": 3, "people": 3,
        "people_per_frame": [1, 0, 2], "tracks": 2, "skeleton": None,
        "camera": ["guessed: 60 degrees across the longer side"], "alignment": None, "fit": None, "networks": [],
        "every": 1, "sizes_px": [[80, 60]], "frames_read": 3, "left_out": {}, "damage": None, "few_joints": 0,
        "joints": {"file": str(joints), "entries": 3, "entries_used": 3, "entries_unused": 0, "left_out": {},
                   "pictures_matched": 2, "pictures_unmatched": 1, "people_beyond": 0},
        "skipped": [], "unwritten": [], "dropped": 0, "ended": None,
        "files": ["clip.npz", "clip_overlay.mp4", "clip.json"], "earlier": [],
    }  # fmt: skip


@pytest.mark.parametrize("option", ["--keypoints", "--boxes"])
@pytest.mark.parametrize("source", ["photo.png", "clip.mp4"])
def test_nobody_is_a_result(cli: Cli, tmp_path: Path, tiny_bundle: Path, option: str, source: str) -> None:
    (video if source == "clip.mp4" else picture)(tmp_path / source)
    nobody, output = write(tmp_path / "empty.json", []), tmp_path / "out"
    outcome = cli("run", tiny_bundle, tmp_path / source, option, nobody, "-o", output, *FILES)
    assert outcome.code == 0
    assert NOBODY in outcome.out
    result = arrays(output / f"{Path(source).stem}.npz")
    assert len(result["numbers"]) == (4 if source == "clip.mp4" else 1)
    for name in ("vertices_m", "boxes_px", "frame", "keypoints_px"):
        assert len(result[name]) == 0
    assert result["vertices_m"].shape == (0, 6890, 3)
    assert not list(output.glob("*.obj"))


def test_an_overlay_of_nobody_is_the_picture_with_its_caption(cli: Cli, tmp_path: Path, tiny_bundle: Path) -> None:
    from jotr_deploy.visual.caption import draw_caption

    image = np.full((300, 400, 3), 90, np.uint8)
    photo = picture(tmp_path / "photo.png", image)
    cli("run", tiny_bundle, photo, "--keypoints", write(tmp_path / "k.json", []), "-o", tmp_path)
    captioned = image.copy()
    draw_caption(captioned, " · ".join(LABELS))
    assert not np.array_equal(captioned, image)
    expected = cv2.imdecode(cv2.imencode(".jpg", captioned)[1], cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "photo_overlay.jpg")), expected)


@pytest.mark.parametrize(("scale", "size"), [("1", (80, 60)), ("0.5", (40, 30)), ("0.3", (24, 18))])
def test_a_smaller_overlay(cli: Cli, tmp_path: Path, tiny_bundle: Path, scale: str, size: tuple[int, int]) -> None:
    clip = video(tmp_path / "clip.mp4")
    joints = write(tmp_path / "k.json", [])
    assert cli("run", tiny_bundle, clip, "--keypoints", joints, "-o", tmp_path, "--overlay-scale", scale).code == 0
    capture = cv2.VideoCapture(str(tmp_path / "clip_overlay.mp4"))
    assert (capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)) == size
    assert read_people(tmp_path / "clip.npz").image_size_px == (80, 60)


def test_no_overlay(cli: Cli, tmp_path: Path, tiny_bundle: Path) -> None:
    photo = picture(tmp_path / "photo.png")
    outcome = cli("run", tiny_bundle, photo, "--no-overlay", "-o", tmp_path / "out")
    assert set(tree(tmp_path / "out")) == {"photo.npz", "photo.json"}
    assert outcome.out.splitlines()[-1].endswith(f"Next: jotr-deploy view {tmp_path}/out/photo.npz")


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("[b]:cat:.png", "[b]_cat_"),  # not every file system takes a colon
        ("two words.png", "two words"),
        ("größe.png", "größe"),
        ("bad\udcff.png", "bad_"),  # a byte that is no UTF-8
    ],
)
def test_names_of_all_kinds(cli: Cli, tmp_path: Path, tiny_bundle: Path, name: str, stem: str) -> None:
    photo = tmp_path / "source" / name
    photo.parent.mkdir(parents=True)
    photo.write_bytes(cv2.imencode(".png", noise())[1].tobytes())
    out = tmp_path / "out"
    outcome = cli("run", tiny_bundle, photo, "-o", out, "--people", "frame", "--save-2d", "--obj", "--glb")
    assert outcome.code == 0, outcome.err
    shown, result = (quote(f"{tmp_path}/out/{stem}{end}") for end in ("_overlay.jpg", ".npz"))
    following = f"Next: look at {shown}, or jotr-deploy view {result}"
    assert outcome.out.splitlines()[-1].endswith(following)
    assert (tmp_path / "out" / f"{stem}_overlay.jpg").is_file()


@pytest.mark.parametrize(
    ("image", "pixels"),
    [
        pytest.param(noise()[:1, :1], (1, 1), id="one pixel"),
        pytest.param(noise()[..., 0], (80, 60), id="grey"),
        pytest.param(np.dstack([noise(), noise(1)[..., :1]]), (80, 60), id="alpha"),
        pytest.param(noise().astype(np.uint16) * 257, (80, 60), id="16 bit"),
        pytest.param(np.zeros((40, 20000, 3), np.uint8), (20000, 40), id="very wide"),
    ],
)
def test_unusual_images_are_not_refused(cli: Cli, place: Path, image: np.ndarray, pixels: tuple[int, int]) -> None:
    picture(place / "photo.png", image)
    outcome = cli("run", place / "bundle", place / "photo.png", "-o", place / "new", "--save-2d")
    assert outcome.code == 0, outcome.err
    assert set(tree(place / "new")) == {
        "photo.json", "photo.npz", "photo_overlay.jpg", "photo_2d.npz", "photo_2d.jpg",
    }  # fmt: skip
    with np.load(place / "new" / "photo.npz") as result:
        assert tuple(result["image_size_px"]) == pixels
        assert len(result["joints_m"]) == 1
        assert np.isfinite(result["joints_m"]).all()


def command(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jotr_deploy.cli", *map(str, arguments)],
        capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1", **variables}, check=False,
    )  # fmt: skip


def test_a_process_of_its_own_ends_well(tmp_path: Path, tiny_bundle: Path) -> None:
    photo = picture(tmp_path / "photo.png")
    done = command("run", tiny_bundle, photo, "-o", tmp_path / "out", "--json", PYTHONIOENCODING="ascii:strict")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["people"] == 1
    reading, by_hog, as_a_whole = done.stderr.splitlines()
    assert reading == f"reading {photo}"
    assert by_hog.startswith("no keypoints, no boxes, no detector: people are found by OpenCV's HOG")
    assert as_a_whole.startswith("nobody was found in 'photo.png'")


def test_a_process_of_its_own_refuses(tmp_path: Path, tiny_bundle: Path) -> None:
    photo = tmp_path / "gone.png"
    done = command("run", tiny_bundle, photo, "-o", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"reading {photo}",
        f"error: {photo}: no such file or folder",
        SOURCES,
    ]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "cause", "remedy"),
    [
        (["run"], "Missing argument 'bundle'.", "see jotr-deploy run --help"),
        (["fly"], "No such command 'fly'.", "see jotr-deploy --help"),
    ],
)
def test_a_mistyped_command_is_two_lines(arguments: list[str], cause: str, remedy: str) -> None:
    done = command(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {cause}\nremedy: {remedy}\n"


def test_debug_shows_the_stack_and_the_same_end(tmp_path: Path, tiny_bundle: Path) -> None:
    done = command("--debug", "run", tiny_bundle, tmp_path / "gone.png", "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.splitlines()[-1] == SOURCES
