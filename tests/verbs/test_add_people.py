"""`add --people blazepose`: what is fetched goes into a bundle, and finds people there as it does when fetched."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from canned import write_blaze_detector, write_blaze_landmarks, write_simcc, write_yolox, yolox_rows
from outcome import Outcome, tree
from pictures import picture, video, write

from jotr_deploy.api import load
from jotr_deploy.bundle import Bundle, open_bundle, write_manifest
from jotr_deploy.doctor.installation import examine, healthy
from jotr_deploy.evaluation.end_to_end import open_people
from jotr_deploy.profiling.timed_picture import SEARCHED_AS_A_STILL, default_scene, frame_job, open_scene, stages
from jotr_deploy.runtime.finding import fetched_networks
from jotr_deploy.runtime.finding.blazepose.person_detector import BlazeDetector
from jotr_deploy.runtime.finding.people_networks import open_people_networks
from jotr_deploy.runtime.finding.people_source import ONLY_BOTH, PUT_BOTH_IN
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.third_party import blazepose_wheel
from jotr_deploy.visual.result_files import read_people

Cli = Callable[..., Outcome]
REAL = fetched_networks.people_folder()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where stand-ins lie as `fetch people` leaves the networks."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    folder = fetched_networks.people_folder()
    folder.mkdir(parents=True)
    write_blaze_detector(folder / fetched_networks.DETECTOR)
    write_blaze_landmarks(folder / fetched_networks.LANDMARKS)
    blazepose_wheel._describe(folder, dict.fromkeys(blazepose_wheel.SOURCES, b""))
    return folder


@pytest.fixture
def added(cli: Cli, home: Path, place: Path) -> Path:
    """A bundle with both; nothing is fetched any more."""
    outcome = cli("add", place / "bundle", "--people", "blazepose", "-o", place / "both")
    assert outcome.code == 0, outcome.err
    shutil.rmtree(home)
    return place / "both"


def opened(path: Path) -> Bundle:
    """The bundle, after a look that every file in it is intact and listed."""
    bundle = open_bundle(path)
    for entry in bundle.manifest.files:
        bundle.file(entry.role, entry.name)
    assert set(tree(path)) == {"bundle.json", *(entry.name for entry in bundle.manifest.files)}
    return bundle


def test_both_go_in_with_their_hashes_and_terms(cli: Cli, home: Path, place: Path) -> None:
    outcome = cli("add", place / "bundle", "--people", "blazepose", "--json")
    assert outcome.code == 0, outcome.err
    found, bundle, told = fetched_networks.fetched_people(), opened(place / "bundle"), json.loads(outcome.out)
    assert found is not None
    names = (fetched_networks.DETECTOR, fetched_networks.LANDMARKS)
    for role, name, row in zip(("detector", "pose"), names, told, strict=True):
        entry = bundle.entry(role)
        assert (entry.name, entry.sha256) == (f"{role}.onnx", found.sha256[name])
        assert (entry.recipe, entry.backend, entry.batch) == ({"format": "blazepose"}, "onnx", "dynamic")
        assert (row["role"], row["about"].split(",")[0], row["replaced"]) == (role, "blazepose", [])
        assert row["licence"] == {
            "asset": f"{role}: {name}", "redistributable": True,
            "terms": "Apache-2.0 (https://www.apache.org/licenses/LICENSE-2.0), The MediaPipe Authors; from mediapipe "
                     "0.10.21, converted from TFLite to ONNX",
        }  # fmt: skip
    findings = [finding for finding in examine(place / "bundle") if finding.group == "bundle"]
    assert {"detector on a known picture", "pose on a known picture"} <= {finding.subject for finding in findings}


@pytest.mark.parametrize(
    ("options", "cause", "remedy"),
    [
        ([], "BlazePose's networks have not been fetched", "get them with: jotr-deploy fetch people"),
        (["--people", "hog"], "--people: 'hog' is not known", "give one of blazepose"),
        (["--pose", "p.onnx"], "--people is given together with a file or a licence",
         "give it alone: it includes both networks and their licence"),
        (["--licence", "MIT"], "--people is given together with a file or a licence",
         "give it alone: it includes both networks and their licence"),
    ],
)  # fmt: skip
def test_refused(cli: Cli, place: Path, options: list[str], cause: str, remedy: str) -> None:
    before = tree(place)
    assert cli("add", place / "bundle", "--people", "blazepose", *options).mistake == (cause, remedy)
    assert tree(place) == before


def test_what_has_changed_since_it_was_fetched_is_not_taken(cli: Cli, home: Path, place: Path) -> None:
    (home / fetched_networks.LANDMARKS).write_bytes(b"other")
    before = tree(place)
    cause, remedy = cli("add", place / "bundle", "--people", "blazepose").mistake
    assert cause.endswith("landmarks.onnx: the file has changed since it was fetched (sha256 differs)")
    assert remedy == "fetch them again: jotr-deploy fetch people --force"
    assert tree(place) == before


@pytest.mark.parametrize("kind", ["picture", "film"])
def test_it_finds_inside_what_it_finds_when_fetched(cli: Cli, home: Path, place: Path, kind: str) -> None:
    def ran(bundle: str, how: str, out: str) -> dict:
        outcome = cli("run", place / bundle, source, "--people", how, "-o", place / out, "--json")
        assert outcome.code == 0, outcome.err
        return json.loads(outcome.out)

    assert cli("add", place / "bundle", "--people", "blazepose", "-o", place / "both").code == 0
    source = picture(place / "a.png") if kind == "picture" else video(place / "a.mp4", 6)
    outside = ran("bundle", "blazepose", "outside")
    assert [used["file"] for used in outside["networks"]] == ["blazepose/detector.onnx", "blazepose/landmarks.onnx"]
    expected = read_people(place / "outside" / "a.npz").people
    shutil.rmtree(home)
    for how in ("auto", "blazepose", "detector"):
        inside = ran("both", how, how)
        assert inside["people"] == outside["people"] > 0
        assert inside["skeleton"] == outside["skeleton"] == "blazepose33"
        assert [used["file"] for used in inside["networks"]] == ["detector.onnx", "pose.onnx"]
        hashes = [[used["sha256"] for used in each["networks"]] for each in (inside, outside)]
        assert hashes[0] == hashes[1]
        found = read_people(place / how / "a.npz")
        np.testing.assert_array_equal(found.people.keypoints_px, expected.keypoints_px)
        np.testing.assert_array_equal(found.people.vertices_m, expected.vertices_m)
        assert found.found_by == ", ".join(f"{used['file']} ({used['sha256'][:12]})" for used in inside["networks"])


def test_people_of_a_film_are_followed(added: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The detector looks at all windows of the first frame and of every still, at fewer of later frames."""
    look, seen = BlazeDetector.__call__, []

    def counted(self: BlazeDetector, image_bgr: np.ndarray, windows: list) -> object:
        seen.append(len(windows))
        return look(self, image_bgr, windows)

    monkeypatch.setattr(BlazeDetector, "__call__", counted)
    with load(added, device="cpu") as model:
        frames = [frame.image_bgr for frame, _ in model.stream(video(place / "a.mp4", 4))]
        film, seen[:] = list(seen), []
        for image_bgr in frames:
            model(image_bgr)
    assert len(film) == 4
    assert seen == [film[0]] * 4
    assert film[0] > max(film[1:])


def test_boxes_that_are_given_get_joints(cli: Cli, added: Path, place: Path) -> None:
    boxes = write(place / "boxes.json", [[5, 5, 40, 50]])
    outcome = cli("run", added, picture(place / "a.png"), "--boxes", boxes, "-o", place / "new", "--json")
    summary = json.loads(outcome.out)
    assert (summary["people"], summary["skeleton"]) == (1, "blazepose33")
    assert [used["role"] for used in summary["networks"]] == ["pose"]


def test_half_of_it_is_refused_and_another_detector_is_not(cli: Cli, added: Path, place: Path) -> None:
    write_simcc(place / "p.onnx", (48, 64))
    write_yolox(place / "d.onnx", yolox_rows(np.zeros((0, 4)), np.zeros(0), (96, 96)), (96, 96))
    before, half = tree(place), added / "detector.onnx"
    keeps = (f"the bundle keeps its detector: {ONLY_BOTH}", "replace the detector too: --detector FILE")
    assert cli("add", added, "--pose", place / "p.onnx").mistake == keeps
    assert cli("add", place / "bundle", "--detector", half).mistake == (f"{half}: {ONLY_BOTH}", PUT_BOTH_IN)
    given = ("--detector", half, "--pose", place / "p.onnx")
    assert cli("add", place / "bundle", *given).mistake == (f"{half}: {ONLY_BOTH}", PUT_BOTH_IN)
    assert tree(place) == before
    assert cli("add", added, "--detector", place / "d.onnx").code == 0
    bundle = opened(added)
    assert [bundle.entry(role).recipe["format"] for role in ("detector", "pose")] == ["yolox", "blazepose"]
    assert cli("run", added, picture(place / "a.png"), "-o", place / "new").code == 0


def test_both_may_come_as_files(cli: Cli, added: Path, place: Path) -> None:
    files = ("--detector", added / "detector.onnx", "--pose", added / "pose.onnx")
    assert cli("add", place / "bundle", *files).code == 0
    summary = json.loads(cli("run", place / "bundle", picture(place / "a.png"), "-o", place / "new", "--json").out)
    assert summary["people"] > 0
    assert summary["skeleton"] == "blazepose33"


def test_a_bundle_with_half_of_it_finds_nobody_in_silence(cli: Cli, added: Path, place: Path) -> None:
    bundle = open_bundle(added)
    kept = tuple(entry for entry in bundle.manifest.files if entry.role != "pose")
    write_manifest(added, bundle.manifest.model_copy(update={"files": kept}))
    refused = cli("run", added, picture(place / "a.png"), "-o", place / "new").mistake
    assert refused == (f"{added / 'detector.onnx'}: {ONLY_BOTH}", PUT_BOTH_IN)


def test_bench_and_eval_know_it(added: Path) -> None:
    bundle = open_bundle(added)
    with (
        open_people_networks(bundle, threads=1) as networks,
        open_session(bundle.file("mesh"), device="cpu") as session,
        default_scene() as (path, _),
        open_scene(path, None, bundle.manifest.model, networks) as scene,
    ):
        assert scene.notes == (SEARCHED_AS_A_STILL,)
        names = ("decode", "detect", "pose", "crop", "network")
        assert stages(scene, draws=False) == names
        assert [key[1] for key in frame_job(scene, session, None).run()] == list(names)
    with open_people(bundle, "cpu") as source:
        found, boxes_px = source.find(np.zeros((60, 80, 3), np.uint8))
        assert len(found) == len(boxes_px) > 0


def test_a_picture_of_the_users_is_tried_with_both(
    cli: Cli, home: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    told = json.loads(cli("add", "bundle", "--people", "blazepose", "--try", "photo.png", "--json").out)
    (person, *_) = told[0]["tried"]["people"]
    assert len(person["joints"]) == 30
    assert (place / "try-photo.jpg").stat().st_size > 0


def test_eval_finds_people_with_what_is_fetched(cli: Cli, home: Path, place: Path) -> None:
    options = ("--scenes", 1, "--device", "cpu", "--threads", 1, "--pixels", "--people", "blazepose")
    found = json.loads(cli("eval", place / "bundle", *options, "--json").out)
    assert found["pixels"]["detector"] is None
    assert found["pixels"]["people"]["detections"] > 0
    assert "BlazePose" in found["protocol"]["pixels"]
    assert "--pixels --people blazepose" in cli("eval", place / "bundle", *options).out.replace("\n", " ")


@pytest.mark.skipif(not REAL.is_dir(), reason="BlazePose is not fetched: jotr-deploy fetch people")
def test_the_real_networks_find_somebody_drawn(cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(REAL.parent.parent))
    outcome = cli("add", place / "bundle", "--people", "blazepose")
    assert "of the 2 people in the picture inside this package" in outcome.out
    assert "finds 33.0 of 33 joints" in outcome.out
    assert healthy([finding for finding in examine(place / "bundle") if finding.group == "bundle"])
    monkeypatch.setenv("XDG_DATA_HOME", os.devnull)
    with default_scene() as (path, _):
        summary = json.loads(cli("run", place / "bundle", path, "-o", place / "new", "--json").out)
    assert summary["people"] >= 1
    assert summary["skeleton"] == "blazepose33"
