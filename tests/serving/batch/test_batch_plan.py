"""The plan of a batch: written once, compared ever after; and the names of what it makes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from batch_world import batch, film, opened
from pictures import picture

from jotr_deploy.errors import JotrDeployError, OutputError, SessionError, SourceError
from jotr_deploy.serving.batch.batch_options import BatchOptions
from jotr_deploy.serving.batch.batch_plan import Plan, planned
from jotr_deploy.serving.batch.batch_sources import folder_names, found_sources
from jotr_deploy.serving.batch.source_probe import NOTHING, probed

DAMAGED = "remove it to plan again, or choose another -o"


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        ([], []),
        ([("video", "walk.mp4")], ["walk"]),
        ([("video", "walk.mp4"), ("video", "Walk.avi"), ("image", "walk.jpg")], ["walk", "Walk-2", "walk-3"]),
        ([("video", "caf\u00e9.mp4"), ("video", "cafe\u0301.mp4")], ["caf\u00e9", "cafe\u0301-2"]),
        ([("video", "plan.json.mp4"), ("images", "shots/frame_*.jpg")], ["plan.json-2", "frame"]),
        ([("video", "con.mp4"), ("video", "a:b.mp4")], ["_con", "a_b"]),
    ],
)
def test_folders_of_results_never_collide(sources: list[tuple[str, str]], names: list[str]) -> None:
    assert folder_names(sources) == names


def test_sources_are_films_and_the_pictures_of_folders(tmp_path: Path) -> None:
    folder = tmp_path / "shots"
    folder.mkdir()
    b, a = film(folder / "b.mp4", 2), film(folder / "a.mp4", 2)
    picture(folder / "1.png")
    (folder / "notes.txt").write_text("nothing")
    assert found_sources([str(folder)]) == [str(folder), str(a), str(b)]
    assert found_sources([str(b), f"{folder}/*.mp4", str(b)]) == [str(b), str(a)]
    assert found_sources([f"{folder}/*.png"]) == [f"{folder}/*.png"]


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "shots"
    folder.mkdir()
    picture(folder / "1.png")
    (folder / "notes.txt").write_text("nothing")
    for given, cause in {
        "0": "0: batch works on files that every machine can read",
        "rtsp://camera/1": "rtsp://camera/1: batch works on files that every machine can read",
        str(tmp_path): f"{tmp_path}: neither films nor pictures",
        f"{folder}/*": f"{folder}/*: matches pictures and other files",
        f"{folder}/none": f"{folder}/none: no such file or folder",
    }.items():
        with pytest.raises(SourceError) as refusal:
            found_sources([given])
        assert refusal.value.cause == cause
    for given, remedy in {
        str(tmp_path): f"subfolders are not searched: give '{tmp_path}/**/*.mp4'",
        f"{folder}/*.txt": "give a pattern that matches films or pictures",
    }.items():
        with pytest.raises(SourceError) as refusal:
            found_sources([given])
        assert (refusal.value.cause, refusal.value.remedy) == (f"{given}: neither films nor pictures", remedy)


def test_a_second_start_takes_the_plan_that_is_there(tmp_path: Path, squares: Path) -> None:
    source = film(tmp_path / "walk.mp4", 12)
    plan = batch(squares, tmp_path / "out", source, shard=10)
    written = (tmp_path / "out" / "plan.json").read_bytes()
    assert batch(squares, tmp_path / "out", source, shard=10) == plan == Plan.read(tmp_path / "out")
    assert (tmp_path / "out" / "plan.json").read_bytes() == written
    assert len({unit.key for unit in plan.units}) == len(plan.units) == 3


def test_another_plan_is_refused_with_the_difference(tmp_path: Path, squares: Path, tiny_bundle: Path) -> None:
    first, second = film(tmp_path / "a.mp4", 2), film(tmp_path / "b.mp4", 2)
    output = tmp_path / "out"
    batch(squares, output, first, smooth="one-euro")
    cases = {
        "option smooth was one-euro, is None": (squares, (first,), {}),
        "option every was 1, is 2": (squares, (first,), {"smooth": "one-euro", "every": 2}),
        f"{second} was no source": (squares, (first, second), {"smooth": "one-euro"}),
        f"bundle {squares} was another one, or has changed, and 1 more": (
            tiny_bundle, (first,), {"smooth": "one-euro", "people": "auto"},
        ),
    }  # fmt: skip
    for difference, (bundle, sources, options) in cases.items():
        with pytest.raises(OutputError) as refusal:
            batch(bundle, output, *sources, **options)
        assert refusal.value.cause == f"{output / 'plan.json'}: is the plan of another batch: {difference}"
    film(first, 3)
    with pytest.raises(OutputError, match="has changed since"):
        batch(squares, output, first, smooth="one-euro")


def test_a_plan_of_something_else_and_a_bundle_are_refused(tmp_path: Path, squares: Path) -> None:
    source = film(tmp_path / "a.mp4", 2)
    with pytest.raises(OutputError, match="is a bundle"):
        planned(opened(squares), [str(source)], squares, BatchOptions())
    file = tmp_path / "plan.json"
    another = ("not a plan of this version of jotr-deploy batch", "choose another -o")
    for content, (cause, remedy) in {
        b"": ("is damaged (Expecting value: line 1 column 1 (char 0))", DAMAGED),
        b'{"format": 1': ("is damaged (Expecting ',' delimiter: line 1 column 13 (char 12))", DAMAGED),
        b"\xff": ("is damaged ('utf-8' codec can't decode byte 0xff in position 0: invalid start byte)", DAMAGED),
        b"{}": another,
        b"[]": another,
        b'{"format": 99}': another,
    }.items():
        file.write_bytes(content)
        with pytest.raises(OutputError) as refusal:
            batch(squares, tmp_path, source)
        assert (refusal.value.cause, refusal.value.remedy) == (f"{file}: {cause}", remedy)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (FileNotFoundError(2, "No such file or directory"), "No such file or directory"),
        (OSError("gone"), "gone"),
    ],
)
def test_a_plan_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, why: str) -> None:
    def fails(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(Path, "read_text", fails)
    with pytest.raises(OutputError) as refusal:
        Plan.read(tmp_path)
    assert refusal.value.cause == f"{tmp_path / 'plan.json'}: cannot be read ({why})"
    assert refusal.value.remedy == "check its permissions, and that this machine has the disk it is on"


def test_a_bundle_that_cannot_be_used_leaves_no_plan(tmp_path: Path, squares: Path) -> None:
    source, bundle, output = film(tmp_path / "a.mp4", 2), tmp_path / "bundle", tmp_path / "out"
    shutil.copytree(squares, bundle)
    manifest = bundle / "bundle.json"
    good = manifest.read_text()
    manifest.write_text(good.replace('"threshold": 0.7', '"threshold": 7'))
    with pytest.raises(JotrDeployError, match="threshold"):
        batch(bundle, output, source)
    assert not output.exists()
    manifest.write_text(good)
    assert len(batch(bundle, output, source).sources) == 1


def test_a_device_that_only_other_machines_have(tmp_path: Path, squares: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_device(*_: object) -> object:
        raise SessionError("this ONNX Runtime has no CUDA", "use --device cpu")

    monkeypatch.setattr("jotr_deploy.serving.batch.batch_plan.open_model", no_device)
    sources, output = [str(film(tmp_path / "a.mp4", 2))], tmp_path / "out"
    with pytest.raises(SessionError):
        planned(opened(squares), sources, output, BatchOptions(device="cuda"))
    assert not output.exists()
    assert len(planned(opened(squares), sources, output, BatchOptions(device="cuda"), elsewhere=True).sources) == 1


def test_a_file_that_kills_the_reader_is_planned_uncut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kills(tmp_path / "site", monkeypatch)
    good, bad = film(tmp_path / "good.mp4", 20), film(tmp_path / "poison.mp4", 2)
    (tmp_path / "text.mp4").write_text("no film")
    found = list(probed([str(bad), str(good), str(tmp_path / "text.mp4")], 10))
    assert found == [
        NOTHING, {"kind": "video", "name": "good.mp4", "frames": 20, "fps": 10.0, "even": True}, NOTHING,
    ]  # fmt: skip


def kills(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes started from now on die when they open a file called poison."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import os, sys\n"
        "sys.addaudithook(lambda event, told: event == 'open' and 'poison.mp4' in str(told[0])"
        " and os.kill(os.getpid(), 9))\n"
    )
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", str(folder) + (os.pathsep + before if before else ""))


def test_options_survive_the_plan() -> None:
    options = BatchOptions(roi_px=(1, 2, 3, 4), fov=50.0, overlay=True, smooth="two-sided")
    again = BatchOptions.from_dict(json.loads(json.dumps(options.as_dict())))
    assert again == options
    assert again.for_run(3).threads == 3
    assert again.for_run(3).camera.fov_deg == 50.0
    assert not again.for_run(None).partial


def test_the_camera_file_belongs_to_the_plan(tmp_path: Path) -> None:
    file = tmp_path / "camera.json"
    file.write_text("{}")
    one = BatchOptions(camera=str(file)).stamped()
    assert one == one.stamped() == BatchOptions.from_dict(one.as_dict())
    file.write_text("{ }")
    assert one != one.stamped()
    assert BatchOptions(camera="published").stamped().camera_sha256 is None
