"""`run`'s options for moving pictures, from the command line."""

from __future__ import annotations

import json
import signal
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from outcome import Outcome, tree
from pictures import noise, person, picture, video, write
from streams import plays, served

from jotr_deploy.visual.result_files import read_people

Cli = Callable[..., Outcome]

SCALE = "give a fraction, such as 0.5 for half the width"
REGION = "give X0,Y0,X1,Y1 in pixels, such as 0,0,640,480"


@pytest.mark.parametrize(
    ("options", "cause", "remedy"),
    [
        (["--roi", "1,2,3"], "--roi 1,2,3: not four whole numbers", REGION),
        (["--roi", "0,0,a,9"], "--roi 0,0,a,9: not four whole numbers", REGION),
        (["--roi", "9,9,9,20"], "the region (9, 9, 9, 20) is empty", "give x0,y0,x1,y1 with x0 < x1 and y0 < y1"),
        (["--smooth", "much"], "--smooth: 'much' is not known", "give one of one-euro, two-sided"),
        (["--joints-in", "pixels"], "--joints-in needs a file",
         "add --keypoints or --boxes, or leave --joints-in out"),
        (["--overlay-scale", "0"], "--overlay-scale 0: not between 0.05 and 1", SCALE),
        (["--overlay-scale", "0.001"], "--overlay-scale 0.001: not between 0.05 and 1", SCALE),
        (["--overlay-scale", "1.5"], "--overlay-scale 1.5: not between 0.05 and 1", SCALE),
        (["--overlay-scale", "nan"], "--overlay-scale nan: not between 0.05 and 1", SCALE),
        (["--overlay-scale", "0.5", "--no-overlay"], "--overlay-scale and --no-overlay contradict each other",
         "leave one of them out"),
        (["--fit", "default", "--align"],
         "--fit and --align contradict each other: a fit starts from the unaligned pose",
         "leave one of them out"),
        (["--tf32", "--device", "cpu"], "--tf32 is for CUDA, and --device is cpu", "leave one of them out"),
        (["--fit", "-o", "there"], "--fit takes a value, and '-o' follows it", "see jotr-deploy run --help"),
        (["--people", "eyes"], "--people: 'eyes' is not known", "give one of auto, blazepose, detector, hog, frame"),
        (["--people", "detector"], "people are to be found by a detector, but the bundle has none",
         "add one: jotr-deploy add BUNDLE --detector FILE"),
    ],
)  # fmt: skip
def test_refused(refused: Callable[..., tuple[str, str]], options: list[str], cause: str, remedy: str) -> None:
    assert refused(*options) == (cause, remedy)


def test_an_empty_source_is_not_the_folder_one_is_in(cli: Cli, place: Path) -> None:
    assert cli("run", place / "bundle", "", "-o", place / "new").mistake[0] == "SOURCE is empty"


def test_a_photo_of_a_phone_stands_upright(cli: Cli, place: Path) -> None:
    stored = noise()
    jpeg = cv2.imencode(".jpg", stored)[1].tobytes()
    turned = b"MM\0*" + struct.pack(">IHHHIHH", 8, 1, 0x0112, 3, 1, 6, 0) + b"\0" * 4
    exif = b"Exif\0\0" + turned
    (place / "phone.jpg").write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])
    boxes = write(place / "b.json", {"phone.jpg": [[5, 5, 50, 50]]})
    height, width = stored.shape[:2]
    for options, size_px in ((["--people", "frame"], (height, width)), (["--boxes", boxes], (height, width))):
        assert cli("run", place / "bundle", place / "phone.jpg", "-o", place / "new", *options).code == 0
        assert read_people(place / "new" / "phone.npz").image_size_px == size_px


def test_everything_at_once(cli: Cli, place: Path) -> None:
    clip = video(place / "clip.mp4", 6)
    joints = write(place / "k.json", [person(frame, frame) for frame in range(6)])
    out = place / "new"
    outcome = cli("run", place / "bundle", clip, "-o", out, "--keypoints", joints, "--every", 2, "--max-people", 1,
                  "--roi", "0,0,80,60", "--smooth", "two-sided", "--coco", "--live", "--profile", "--keep-going",
                  "--overlap")  # fmt: skip
    assert outcome.code == 0
    assert set(tree(out)) == {"clip.npz", "clip.json", "clip_coco.json", "clip_overlay.mp4", "clip_trace.json"}
    assert read_people(out / "clip.npz").frame.tolist() == [0, 2, 4]
    trace = json.loads((out / "clip_trace.json").read_text())["traceEvents"]
    stages = {event["name"] for event in trace if event["ph"] == "X"}
    assert stages == {"open", "decode", "track", "crop", "network", "place", "smooth", "draw", "write"}
    assert "critical path of a frame" in outcome.out
    assert "frame 3 of 3, " in outcome.err
    assert "frames/s; milliseconds per frame" in outcome.err


def signalled_in_the_middle(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Send this process a signal once the second frame is written."""
    from jotr_deploy.runtime.run_outputs import Results

    add = Results.add

    def add_and_signal(self: Results, frame, people, pictures) -> None:  # type: ignore[no-untyped-def]
        add(self, frame, people, pictures)
        if frame.index == 1:
            signal.raise_signal(number)

    monkeypatch.setattr(Results, "add", add_and_signal)


def test_after_an_interrupt_the_files_are_whole_and_the_code_says_so(
    cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signalled_in_the_middle(monkeypatch, signal.SIGINT)
    clip, out = video(place / "clip.mp4", 60), place / "new"
    outcome = cli("run", place / "bundle", clip, "-o", out, "--people", "frame")
    assert outcome.code == 130
    assert "ended early interrupted" in outcome.out
    frames = read_people(out / "clip.npz").frames
    assert 2 <= frames < 60  # pictures are written behind the networks, which may be some frames ahead
    assert f"(1 person, {frames} meshes in {frames} frames, 3 files)" in outcome.out
    assert json.loads((out / "clip.json").read_text())["ended"] == "interrupted"


def test_sigterm_leaves_nothing_half_written(cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    signalled_in_the_middle(monkeypatch, signal.SIGTERM)
    out = place / "new"
    assert cli("run", place / "bundle", video(place / "clip.mp4", 60), "-o", out, "--people", "frame").code == 143
    assert not out.exists()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_url_keeps_its_password_to_itself(cli: Cli, place: Path) -> None:
    with served(plays(video(place / "clip.mp4", 3).read_bytes())) as url:
        secret = url.replace("//", "//me:secret@") + "/clip.mp4"
        outcome = cli("run", place / "bundle", secret, "-o", place / "new", "--people", "frame")
    assert outcome.code == 0
    assert "secret" not in outcome.out + outcome.err + (place / "new" / "clip.json").read_text()
    assert threading.active_count() < 20


def test_without_a_directory_every_run_gets_one_of_its_own(
    cli: Cli, tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "photo.png")
    for folder in ("photo", "photo-2", "photo-3"):
        outcome = cli("run", tiny_bundle, "photo.png", "--people", "frame")
        assert outcome.code == 0
        assert f"done jotr-results/{folder} (1 person in 1 frame, 3 files)" in outcome.out
        assert set(tree(tmp_path / "jotr-results" / folder)) == {"photo.npz", "photo.json", "photo_overlay.jpg"}


def test_live_writes_nothing_unless_told_where(
    cli: Cli, tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "photo.png")
    outcome = cli("run", tiny_bundle, "photo.png", "--people", "frame", "--live")
    assert outcome.code == 0
    assert "1 person in 1 frame, nothing written" in outcome.out
    assert list(tree(tmp_path)) == ["photo.png"]
    assert (
        json.loads(cli("run", tiny_bundle, "photo.png", "--people", "frame", "--live", "--json").out)["output"] is None
    )
    assert cli("run", tiny_bundle, "photo.png", "--people", "frame", "--live", "-o", "out").code == 0
    assert (tmp_path / "out" / "photo.npz").is_file()
    cause, remedy = cli("run", tiny_bundle, "photo.png", "--live", "--glb").mistake
    assert (cause, remedy) == ("--glb with --live writes nothing without a results directory", "add -o DIR")
