"""`run` that cannot write, or is stopped: nothing half-written, and what was there before untouched."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
from outcome import Outcome, full_disk, tree
from pictures import person, picture, video, write

Cli = Callable[..., Outcome]
Refused = Callable[..., tuple[str, str]]

PLACE = "choose a writable folder that exists and has free space"


@pytest.mark.parametrize(
    ("output", "reason"),
    [("file", "Not a directory"), ("file/deep", "Not a directory"), ("x" * 300, None),
     ("taken", "'photo_overlay.jpg' is a folder")],
)  # fmt: skip
def test_outputs(refused: Refused, place: Path, output: str, reason: str | None) -> None:
    (place / "file").touch()
    (place / "taken" / "photo_overlay.jpg").mkdir(parents=True)
    cause, remedy = refused(output=output)
    if reason is None:
        assert (cause, remedy) == (
            f"{place / output}/bundle.json: File name too long", "check the path and its permissions",
        )  # fmt: skip
    else:
        assert (cause, remedy) == (f"{place / output}: cannot be written ({reason})", PLACE)


@pytest.mark.parametrize(("name", "option"), [("photo.json", "--keypoints"), ("photo.json", "--boxes")])
def test_a_result_does_not_replace_what_it_is_made_from(refused: Refused, place: Path, name: str, option: str) -> None:
    path = write(place / name, [person("photo.png")] if option == "--keypoints" else [[0, 0, 50, 50]])
    assert refused(option, path, output=".") == (
        f"{path}: a result of that name would overwrite it", "choose another -o",
    )  # fmt: skip


def test_a_bundle_is_no_place_for_results(refused: Refused, place: Path) -> None:
    cause = f"{place / 'bundle'}: is a bundle, where results do not belong"
    assert refused(output="bundle") == (cause, "choose another -o")


@pytest.mark.parametrize("source", ["photos", "photos/*.png"])
def test_results_do_not_become_pictures_of_the_next_run(refused: Refused, place: Path, source: str) -> None:
    (place / "photos").mkdir()
    picture(place / "photos" / "1.png")
    cause = f"{place / 'photos'}: the next run would read its overlays as pictures of the source"
    assert refused(source=source, output="photos") == (cause, "choose another -o")


def test_what_an_earlier_run_left_is_named(cli: Cli, place: Path) -> None:
    def again(*options: str) -> Outcome:
        return cli("run", place / "bundle", place / "photo.png", "-o", place / "new", *options)

    assert "from an earlier run" not in again("--obj", "--glb").out
    outcome = again()
    assert "from an earlier run photo.glb and 1 more" in outcome.out
    assert json.loads((place / "new" / "photo.json").read_text())["earlier"] == ["photo.glb", "photo.obj"]
    assert {"photo.glb", "photo.obj"} < set(tree(place / "new"))


@pytest.mark.parametrize("output", ["out", "deep/new"])
@pytest.mark.parametrize(
    ("broken", "written"),
    [
        ("pathlib.Path.write_bytes", "photo_overlay.jpg"),
        ("jotr_deploy.visual.result_files.PeopleWriter._spill", "photo.npz"),
        ("jotr_deploy.visual.result_files.PeopleWriter._assemble", "photo.npz"),
        ("numpy.savez_compressed", "photo_2d.npz"),
        ("pathlib.Path.write_text", None),
    ],
)
def test_a_full_disk(
    cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch, broken: str, written: str | None, output: str
) -> None:
    before = tree(place)
    with monkeypatch.context() as patch:
        patch.setattr(broken, full_disk)
        outcome = cli("run", place / "bundle", place / "photo.png", "-o", place / output, "--save-2d")
    path = place / output / written if written else place / output
    assert outcome.mistake == (f"{path}: cannot be written (No space left on device)", PLACE)
    assert tree(place) == before


def test_a_disk_that_fills_while_a_video_is_written(cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder says nothing; the file is counted afterwards."""

    class Forgetful:
        def __init__(self, path: str, *_: Any) -> None:
            Path(path).write_bytes(b"half a video")

        def isOpened(self) -> bool:  # noqa: N802
            return True

        def write(self, *_: Any) -> None: ...
        def release(self) -> None: ...

        fourcc = staticmethod(cv2.VideoWriter.fourcc)

    video(place / "clip.mp4", 3)
    before = tree(place)
    monkeypatch.setattr(cv2, "VideoWriter", Forgetful)
    monkeypatch.setattr("jotr_deploy.runtime.run_outputs.find_ffmpeg", lambda: None)
    outcome = cli("run", place / "bundle", place / "clip.mp4", "-o", place / "out")
    cause = f"{place / 'out' / 'clip_overlay.mp4'}: only 0 of 3 frames could be written"
    assert outcome.mistake == (cause, "free disk space")
    assert tree(place) == before


@pytest.mark.parametrize(("options", "code"), [((), 0), (("--strict",), 3)])
def test_a_clip_too_long_for_a_glb_keeps_its_other_results(
    cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], code: int
) -> None:
    monkeypatch.setattr("jotr_deploy.visual.gltf.MAX_BYTES", 1000)
    outcome = cli("run", place / "bundle", place / "photo.png", "-o", place / "out", "--glb", *options)
    assert outcome.code == code
    (told,) = json.loads((place / "out" / "photo.json").read_text())["unwritten"]
    assert told.startswith("photo.glb: ")
    assert told.endswith("do not fit in a GLB, which ends at 4 GiB: take fewer frames with --every, or a shorter clip")
    assert "not written photo.glb: " in " ".join(outcome.out.split())
    assert set(tree(place / "out")) == {"photo.npz", "photo.json", "photo_overlay.jpg"}


def test_an_interrupt_leaves_nothing(cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    before = tree(place)
    monkeypatch.setattr("jotr_deploy.runtime.run_outputs.draw_people", stop)
    outcome = cli("run", place / "bundle", place / "photo.png", "-o", place / "deep" / "new")
    assert outcome.code == 130
    assert outcome.err.endswith("interrupted\n")
    assert tree(place) == before


def test_a_bug_is_a_traceback_and_leaves_nothing(cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a bug")

    before = tree(place)
    monkeypatch.setattr("jotr_deploy.runtime.run_outputs.draw_people", bug)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        cli("run", place / "bundle", place / "photo.png", "-o", place / "out")
    assert tree(place) == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is Linux's")
@pytest.mark.parametrize("arguments", [("doctor",), ("--help",)])
def test_a_full_disk_behind_the_output(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "jotr_deploy.cli", *arguments], stdout=full, stderr=subprocess.PIPE
        )
    said = (
        "error: the output cannot be written (No space left on device)\nremedy: redirect it to a disk with free space\n"
    )
    assert (done.returncode, done.stderr.decode()) == (2, said)
