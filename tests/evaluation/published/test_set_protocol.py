"""Networks that are wrong by a known amount go through the evaluation of every set in miniature."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_network import FakeNetwork
from miniature import KNOWN, write_miniature

from jotr_deploy.bundle import Bundle, FileEntry, Manifest
from jotr_deploy.config import ModelConfig
from jotr_deploy.evaluation.mesh_files import OpenFile, OpenFiles
from jotr_deploy.evaluation.published import protocol as protocols
from jotr_deploy.evaluation.published.protocol import SetOptions, evaluate_set
from jotr_deploy.evaluation.published.set_people import read_everybody
from jotr_deploy.evaluation.published.set_result import MotionFigures, SetEvaluation
from jotr_deploy.evaluation.published.true_bodies import TrueBodies
from jotr_deploy.geometry.rotations import matrix_from_axis_angle
from jotr_deploy.skeletons import H36M14_IN_H36M17
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.choices import SPLITS

EVALUATED = [10 * joint for joint in H36M14_IN_H36M17]  # vertices that the regressor of these tests takes for joints

BUNDLE = Bundle(Path("b"), Manifest.model_construct(model=ModelConfig(), labels=(), files=()))


class Miniature:
    """A set on disk, and what a network answers to its people; row n is person n."""

    def __init__(self, name: str, root: Path, smpl: Path, regressor: Path) -> None:
        self.options = SetOptions(name, root, regressor, smpl, seed=0)
        people = read_everybody(name, root, 1.1).people
        self.truth_m = TrueBodies(smpl, ["male", "female"]).truth(people).vertices_m
        self.joints_m = np.zeros((len(people), 30, 3))

    def answered(self, monkeypatch: pytest.MonkeyPatch, *vertices_m: Array, drift: bool = False) -> SetEvaluation:
        """The evaluation of a network that says these vertices, and of other files of the bundle."""
        entries = [
            FileEntry(role="mesh", name=f"{n}.onnx", sha256="", precision="fp32") for n in range(len(vertices_m))
        ]
        files = [self._file(*each) for each in zip(entries, vertices_m, strict=True)]

        @contextmanager
        def opened(*_: object) -> Iterator[OpenFiles]:
            yield OpenFiles(files[0], files[0] if drift else None, tuple(files[1:]), {})

        monkeypatch.setattr(protocols, "open_files", opened)
        return evaluate_set(BUNDLE, replace(self.options, drift=drift))

    def _file(self, entry: FileEntry, vertices_m: Array) -> OpenFile:
        network: Any = FakeNetwork(self.joints_m, vertices_m)
        network.session = SimpleNamespace(device="cpu")
        return OpenFile(entry, network)


@pytest.fixture
def set_of(tmp_path: Path, smpl: Path, h36m_regressor: Path) -> Any:
    """Write a set and make it ready: `set_of("3dpw")`."""

    def made(name: str) -> Miniature:
        write_miniature(name, tmp_path)
        if name == "3dpw":
            one_shape_a_gender(tmp_path / "3DPW/annotations/3DPW_latest_test.json")
        return Miniature(name, tmp_path, smpl, h36m_regressor)

    return made


def one_shape_a_gender(path: Path) -> None:
    """As in the set itself, where nobody changes shape: the man and the woman are each in three frames."""
    content = json.loads(path.read_text())
    for person in content["annotations"]:
        person["smpl_param"]["shape"] = [0.5, *[0.0] * 9]
    path.write_text(json.dumps(content))


def figures(result: SetEvaluation) -> tuple[float | None, ...]:
    everybody = result.everybody
    return everybody.mpjpe_mm, everybody.pa_mpjpe_mm, everybody.pve_mm, everybody.acceleration_mm


every_set = pytest.mark.parametrize("name", SPLITS)


@every_set
def test_the_truth_has_no_error(name: str, set_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mini = set_of(name)
    result = mini.answered(monkeypatch, mini.truth_m)
    still = 0.0 if name == "3dpw" else None  # the others are too short to see anybody move
    assert figures(result) == (0.0, 0.0, 0.0, still)
    assert result.everybody.people == len(KNOWN[name, SPLITS[name]])
    assert (result.left_out, result.not_finite, result.drift) == ({}, 0, None)
    counts = f"{len(mini.truth_m)} of {len(mini.truth_m)}"
    if name == "3dpw-occ-3dnbf":
        assert result.protocol.people == counts
        assert result.protocol.published == "3DNBF, arXiv 2308.10123, Table 1"
    else:
        assert result.protocol.people.startswith(f"{counts}; the paper evaluates ")


@every_set
def test_a_pelvis_that_is_off(name: str, set_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The H36M pelvis 68.9 mm to the side: so are all joints against it, and one of 6890 vertices is."""
    mini = set_of(name)
    found = mini.truth_m.copy()
    found[:, 0, 0] += 0.0689
    assert figures(mini.answered(monkeypatch, found))[:3] == (68.9, 0.0, 0.01)


@every_set
def test_a_larger_person(name: str, set_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mini = set_of(name)
    joints = mini.truth_m[:, EVALUATED] - mini.truth_m[:, :1]
    expected = [100 * np.linalg.norm(points, axis=-1).mean() for points in (joints, mini.truth_m)]
    mpjpe, pa_mpjpe, pve, _ = figures(mini.answered(monkeypatch, 1.1 * mini.truth_m))
    assert (mpjpe, pa_mpjpe, pve) == (pytest.approx(expected[0], abs=2e-3), 0.0, pytest.approx(expected[1], abs=2e-3))


@every_set
def test_a_turned_person(name: str, set_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter turn moves a point by its distance from the axis times the square root of two."""
    mini = set_of(name)
    quarter = matrix_from_axis_angle(np.array([0, 0, np.pi / 2]))
    joints = mini.truth_m[:, EVALUATED] - mini.truth_m[:, :1]
    expected = [1000 * np.sqrt(2) * np.hypot(*points[..., :2].T).mean() for points in (joints, mini.truth_m)]
    mpjpe, pa_mpjpe, pve, _ = figures(mini.answered(monkeypatch, mini.truth_m @ quarter.T))
    assert (mpjpe, pa_mpjpe, pve) == (pytest.approx(expected[0], abs=2e-3), 0.0, pytest.approx(expected[1], abs=2e-3))


def test_motion_and_sequences(set_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A man and a woman in three frames, somebody alone in another sequence.

    The man's pelvis is off by 10 mm in the middle frame only: one of seven people, and an acceleration error of
    2 * 10 mm/frame^2; the woman's is off by 5 mm in all frames, which moves nobody.
    """
    mini = set_of("3dpw")
    genders = [person.gender for person in KNOWN["3dpw", "test"]]
    assert genders == ["male", "female"] * 3 + ["male"]
    found = mini.truth_m.copy()
    found[2, 0, 1] += 0.010
    found[[1, 3, 5], 0, 1] += 0.005
    result = mini.answered(monkeypatch, found)
    pve = (10 + 3 * 5) / 7 / 6890
    assert result.everybody == MotionFigures(7, round(25 / 7, 3), 0.0, round(pve, 3), 10.0, 2)
    assert list(result.sequences) == ["downtown_walking_00", "outdoors_fencing_01"]
    walking, fencing = result.sequences.values()
    assert (walking.people, walking.mpjpe_mm) == (6, round(25 / 6, 3))
    assert (walking.acceleration_mm, walking.accelerations) == (10.0, 2)
    assert fencing == MotionFigures(1, 0.0, 0.0, 0.0, None, 0)
    assert result.protocol.acceleration.endswith("2 times here")


def test_a_gap_in_a_sequence_is_not_crossed(
    set_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, h36m_regressor: Path, smpl: Path
) -> None:
    """The man has no joints in the middle frame: nobody knows how he moved."""
    set_of("3dpw")
    path = tmp_path / "3DPW/annotations/3DPW_latest_test.json"
    content = json.loads(path.read_text())
    content["annotations"][2]["openpose_result"] = np.zeros((18, 3)).tolist()
    path.write_text(json.dumps(content))
    mini = Miniature("3dpw", tmp_path, smpl, h36m_regressor)
    found = mini.truth_m.copy()
    found[0, 0, 1] += 0.010
    result = mini.answered(monkeypatch, found)
    assert result.left_out == {"no crop box from the joints found": ("3",)}
    assert result.everybody == MotionFigures(6, round(10 / 6, 3), 0.0, 0.0, 0.0, 1)
    assert result.protocol.people.startswith("6 of 7; ")


def test_sets_without_sequences(set_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mini = set_of("3doh")
    result = mini.answered(monkeypatch, mini.truth_m)
    assert result.sequences == {}
    assert (result.everybody.acceleration_mm, result.everybody.accelerations) == (None, 0)


def test_drift(set_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mini = set_of("3dpw-oc")
    found = mini.truth_m.copy()
    found[:, 0, 0] += 0.002
    drift = mini.answered(monkeypatch, mini.truth_m, found, drift=True).drift
    assert drift is not None
    assert (drift.reference, drift.people) == ("0.onnx", 2)
    (row,) = drift.files
    assert (row.name, row.mean_mm, row.mpjpe_change_mm, row.interval_mm) == ("1.onnx", 0.0, 2.0, (2.0, 2.0))


def test_numbers_that_are_not_finite(set_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mini = set_of("3dpw")
    found = mini.truth_m.copy()
    found[6, 3] = np.nan
    result = mini.answered(monkeypatch, found)
    assert result.not_finite == 1
    assert (result.everybody.people, result.everybody.pve_mm) == (7, None)
    assert result.sequences["downtown_walking_00"].pve_mm == 0.0


def test_equal_runs_are_equal(set_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mini = set_of("3dpw")
    first, again = (json.dumps(mini.answered(monkeypatch, 1.01 * mini.truth_m).as_dict()) for _ in range(2))
    assert first == again


@pytest.mark.parametrize(
    ("labels", "bodies", "warned"),
    [
        ((), "smpl", None),
        (("stand-in body",), "stand-in", None),
        (("stand-in body",), "smpl", "the meshes of the bundle are of the stand-in body, the true ones of SMPL: "),
        ((), "stand-in", "the meshes of the bundle are of SMPL, the true ones of the stand-in body: "),
    ],
)
def test_meshes_of_another_body(labels: tuple[str, ...], bodies: str, warned: str | None) -> None:
    manifest = Manifest.model_construct(model=ModelConfig(), labels=labels)
    true: Any = SimpleNamespace(stand_in=bodies == "stand-in")
    warnings = protocols._warnings(Bundle(BUNDLE.path, manifest), true)
    assert len(warnings) == (warned is not None)
    assert all(str(warned) in warning and "say nothing of the network" in warning for warning in warnings)
