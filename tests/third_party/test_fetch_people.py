"""`fetch people`: what is refused, what is stored, and the real networks where they have been fetched."""

from __future__ import annotations

import json
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from outcome import Outcome, tree

from jotr_deploy.errors import BundleError, FetchError, VerificationError
from jotr_deploy.runtime.finding import fetched_networks
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.third_party import blazepose_wheel

Cli = Callable[..., Outcome]
REAL = fetched_networks.people_folder()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data"


def wheel(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


MEMBERS = {source.member: b"something else" for source in blazepose_wheel.SOURCES.values()}


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"", "not a readable wheel (it is an empty file)"),
        (
            b"<html>sign in</html>",
            "not a readable wheel (it is an HTML page (a download page rather than the file))",
        ),
        ({}, "does not contain mediapipe/modules/pose_detection/pose_detection.tflite"),
        (MEMBERS, "pose_detection.tflite has sha256"),
    ],
)
def test_what_is_not_the_wheel_is_refused(
    cli: Cli, tmp_path: Path, home: Path, content: dict[str, bytes] | bytes | None, cause: str
) -> None:
    given = tmp_path / "a.whl"
    if isinstance(content, bytes):
        given.write_bytes(content)
    elif content is not None:
        wheel(given, content)
    said = cli("fetch", "people", "--from", given)
    assert cause in said.mistake[0]
    assert said.mistake[1].startswith("download the wheel elsewhere (pip download")
    assert not home.exists()


def test_a_wheel_cut_short_is_refused(tmp_path: Path, home: Path) -> None:
    whole = wheel(tmp_path / "whole.whl", MEMBERS).read_bytes()
    for size in range(0, len(whole), 7):
        (tmp_path / "cut.whl").write_bytes(whole[:size])
        with pytest.raises(FetchError):
            blazepose_wheel.fetch_people(tmp_path / "cut.whl")


@pytest.mark.parametrize(
    ("stderr", "why"),
    [
        ("ERROR: No matching distribution found for mediapipe==0.10.21\n", "No matching distribution found"),
        ("/usr/bin/python3: No module named pip\n", "No module named pip"),
        ("", "exit code 1"),
    ],
)
def test_a_download_that_fails_says_how_to_do_without(
    monkeypatch: pytest.MonkeyPatch, home: Path, stderr: str, why: str
) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 1, "", stderr)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(FetchError) as refusal:
        blazepose_wheel.fetch_people()
    assert why in refusal.value.cause
    assert "--from WHEEL" in refusal.value.remedy
    assert "mediapipe==0.10.21" in asked[0]
    assert "--only-binary=:all:" in asked[0]  # nothing of a source package is executed


def test_nothing_is_fetched_for_anything_else(cli: Cli) -> None:
    assert cli("fetch", "animals").mistake == ("WHAT: 'animals' is not known", "give one of people")


def test_a_network_that_differs_is_not_kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def differs(*_: object) -> None:
        raise VerificationError("differs", "report it")

    monkeypatch.setattr(blazepose_wheel, "_convert", lambda data, source, target: None)
    monkeypatch.setattr(blazepose_wheel, "compare", differs)
    with pytest.raises(VerificationError):
        blazepose_wheel.install(dict.fromkeys(blazepose_wheel.SOURCES, b""))
    assert not home.exists() or tree(home) == {}


def stored(home: Path) -> Path:
    """Two files as `fetch` leaves them."""
    folder = home / "jotr-deploy" / "blazepose"
    folder.mkdir(parents=True)
    for name in blazepose_wheel.SOURCES:
        (folder / name).write_bytes(name.encode())
    blazepose_wheel._describe(folder, dict.fromkeys(blazepose_wheel.SOURCES, b""))
    return folder


def test_what_was_fetched_is_found_with_its_hashes(cli: Cli, home: Path) -> None:
    assert fetched_networks.fetched_people() is None
    folder = stored(home)
    found = fetched_networks.fetched_people()
    assert found is not None
    assert (found.detector, found.landmarks) == (folder / "detector.onnx", folder / "landmarks.onnx")
    assert "Apache License, Version 2.0" in (folder / "LICENCE").read_text()
    told = json.loads(cli("fetch", "people", "--json").out)
    assert told == {"folder": str(folder), "package": "mediapipe 0.10.21", "licence": "Apache-2.0", "fetched": False,
                    "sha256": found.sha256}  # fmt: skip


@pytest.mark.parametrize("damage", ["missing", "changed", "unlisted", "not JSON"])
def test_what_changed_since_is_refused(home: Path, damage: str) -> None:
    folder = stored(home)
    if damage == "missing":
        (folder / "detector.onnx").unlink()
    elif damage == "changed":
        (folder / "landmarks.onnx").write_bytes(b"other")
    else:
        (folder / "source.json").write_text("{}" if damage == "unlisted" else "{")
    with pytest.raises(BundleError) as refusal:
        fetched_networks.fetched_people()
    assert refusal.value.remedy == "fetch them again: jotr-deploy fetch people --force"


@pytest.mark.parametrize(("set_to", "inside"), [("", True), ("relative", True), ("/elsewhere", False)])
def test_the_data_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, set_to: str, inside: bool) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", set_to)
    expected = Path.home() / ".local" / "share" if inside else Path("/elsewhere")
    assert fetched_networks.data_folder() == expected / "jotr-deploy"


real = pytest.mark.skipif(
    not REAL.is_dir(),
    reason="BlazePose is not fetched: jotr-deploy fetch people",
)


@real
@pytest.mark.parametrize("name", list(blazepose_wheel.SOURCES))
def test_the_real_networks_equal_their_originals(name: str) -> None:
    blazepose_wheel.compare(REAL / name, blazepose_wheel.recorded()[name], blazepose_wheel.SOURCES[name].low)


@real
@pytest.mark.parametrize("name", list(blazepose_wheel.SOURCES))
def test_a_batch_is_as_many_single_calls(name: str, rng: np.random.Generator) -> None:
    with open_session(REAL / name, device="cpu") as session:
        images = rng.random((3, *session.inputs["image"].shape[1:]), dtype=np.float32)
        together = session({"image": images})
        for k in range(3):
            for output, values in session({"image": images[k : k + 1]}).items():
                np.testing.assert_array_equal(values[0], together[output][k])
