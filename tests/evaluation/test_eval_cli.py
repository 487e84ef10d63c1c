"""`eval` through the command line, on scenes without a renderer."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from fake_scenes import fake_scene
from outcome import Outcome

from jotr_deploy.bundle import FileEntry, open_bundle, replace_file, write_manifest
from jotr_deploy.evaluation import held_out_scenes, protocols
from jotr_deploy.evaluation.measured_joints import EVALUATED
from jotr_deploy.profiling.networks import without_body
from jotr_deploy.runtime.finding.people_source import DetectedPeople
from jotr_deploy.support.choices import PROTOCOLS
from jotr_deploy.verbs import eval

Cli = Callable[..., Outcome]

SMALL = ("--scenes", 7, "--device", "cpu", "--threads", 1)


@pytest.fixture(autouse=True)
def _fake_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "held_out", fake_scene)


@pytest.fixture
def two_files(tiny_bundle: Path, tmp_path: Path) -> Path:
    """The tiny bundle with a copy of its network and an engine that cannot be opened."""
    path = tmp_path / "two"
    shutil.copytree(tiny_bundle, path)
    opened = open_bundle(path)
    mesh = opened.entry("mesh")
    files = list(opened.manifest.files)
    for name, precision, backend in (("mesh.copy.onnx", "fp16", "onnx"), ("mesh.engine", "fp16", "tensorrt")):
        shutil.copy(path / mesh.name, path / name)
        files.append(mesh.model_copy(update={"name": name, "precision": precision, "backend": backend}))
    write_manifest(path, opened.manifest.model_copy(update={"files": tuple(files)}))
    return path


def test_the_table(cli: Cli, tiny_bundle: Path) -> None:
    outcome = cli("eval", tiny_bundle, *SMALL)
    assert outcome.code == 0, outcome.err
    lines = [line.rstrip() for line in outcome.out.splitlines() if line.strip()]
    assert lines[0] == "mesh.onnx on cpu, millimetres"
    assert lines[1].split() == ["people", "from", "people", "n", "MPJPE", "PA-MPJPE", "PVE"]
    rows = [line for line in lines if ("occluded" in line or "mostly" in line) and line.startswith(" ")]
    assert [row.split()[0] for row in rows] == ["mostly", "occluded"]
    assert sum(line.split()[:1] == ["Neck"] for line in lines) == 1
    for said in ("scenes ", "people ", "joint set ", "regressor ", "alignment ", "box ", "confidence "):
        assert any(line.startswith(said) for line in lines), said
    assert "longer side times 1.1" in " ".join(outcome.out.split())
    assert "note stand-in body" in lines
    assert lines[-1] == (
        f"done {tiny_bundle} (measured; nothing was written). "
        f"Next: jotr-deploy eval {tiny_bundle} --seed 1000 --scenes 7 --json > eval.json"
    )


def test_json_is_the_same_to_the_byte(cli: Cli, tiny_bundle: Path) -> None:
    first, again = (cli("eval", tiny_bundle, *SMALL, "--seed", 5, "--json") for _ in range(2))
    assert first.code == 0
    assert first.out == again.out
    assert cli("eval", tiny_bundle, *SMALL, "--seed", 6, "--json").out != first.out
    found = json.loads(first.out)
    assert list(found) == [
        "bundle", "file", "precision", "device", "labels", "protocol", "errors", "not_finite", "pixels", "drift",
        "occlusion", "fit", "before_fit", "visible_joints",
    ]  # fmt: skip
    scenes = [fake_scene(5, index) for index in range(7)]
    counted = sum(scene.counted.sum() for scene in scenes)
    assert found["errors"]["people"]["all"]["people"] == counted
    assert found["protocol"]["people"].startswith(f"{counted} of {sum(len(s.boxes_px) for s in scenes)}: ")
    assert (found["protocol"]["seed"], found["protocol"]["scene_count"]) == (5, 7)
    assert list(found["errors"]["joints"]) == ["all", *EVALUATED]
    assert found["errors"]["people"]["all"]["mpjpe_mm"] > found["errors"]["people"]["all"]["pa_mpjpe_mm"] > 0
    assert (found["pixels"], found["drift"], found["occlusion"], found["not_finite"]) == (None, None, None, 0)


def test_drift(cli: Cli, two_files: Path) -> None:
    found = json.loads(cli("eval", two_files, *SMALL, "--drift", "--json").out)
    drift = found["drift"]
    assert drift["reference"] == "mesh.onnx"
    assert drift["people"] == found["errors"]["people"]["all"]["people"]
    (row,) = drift["files"]
    assert (row["name"], row["precision"], row["mean_mm"], row["p95_mm"]) == ("mesh.copy.onnx", "fp16", 0, 0)
    assert (row["mpjpe_change_mm"], row["interval_mm"], row["not_finite"]) == (0, [0, 0], 0)
    assert list(drift["not_run"]) == ["mesh.engine"]
    table = cli("eval", two_files, *SMALL, "--drift").out
    assert "Joints from those of mesh.onnx, change of MPJPE, mm, " in table
    assert "not run mesh.engine: " in table
    assert "+0.00 .. +0.00" in table


def test_one_file_of_several(cli: Cli, two_files: Path) -> None:
    assert json.loads(cli("eval", two_files, *SMALL, "--file", "mesh.copy.onnx", "--json").out)["precision"] == "fp16"


def test_pixels(cli: Cli, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = np.array([[20, 50, 60, 113], [120, 50, 160, 150], [220, 50, 260, 150]], np.float32)

    @contextmanager
    def people(*_: object) -> Iterator[DetectedPeople]:
        yield DetectedPeople(lambda image_bgr: (boxes, np.array([0.9, 0.8, 0.7], np.float32)), crop_factor=1.1)  # type: ignore[arg-type]

    monkeypatch.setattr(protocols, "open_people", people)
    found = json.loads(cli("eval", tiny_bundle, *SMALL, "--pixels", "--json").out)
    pixels, counted = found["pixels"], found["errors"]["people"]["all"]["people"]
    assert pixels["people"] == pixels["detector"]  # there is no pose network to tell more
    kept = pixels["people"]
    assert (kept["recall"], kept["detections"], kept["right"]) == (1, 21, sum(i % 4 for i in range(7)))
    assert pixels["errors"]["people"]["all"]["people"] == pixels["same_people"]["people"] == counted
    assert pixels["same_people"] == found["errors"]["people"]["all"]
    assert "IoU of at least 0.5" in found["protocol"]["pixels"]
    table = cli("eval", tiny_bundle, *SMALL, "--pixels").out
    rows = [line.split() for line in table.splitlines()]
    wanted = f"{kept['found_of_wanted']} of {kept['wanted']}".split()
    for who in ("in the end", "detector alone"):
        assert [*who.split(), "100.0%", *wanted, f"{kept['precision']:.1%}", str(kept["right"]), "of", "21"] in rows
    assert any(line.startswith(" pixels alone ") for line in table.splitlines())
    assert "the same by true boxes" in table


def test_nobody_is_a_result(cli: Cli, tiny_bundle: Path) -> None:
    outcome = cli("eval", tiny_bundle, "--scenes", 1, "--device", "cpu", "--threads", 1)
    assert outcome.code == 0
    row = next(line for line in outcome.out.splitlines() if line.strip().startswith("true boxes"))
    assert row.split()[-4:] == ["0", "-", "-", "-"]


def test_numbers_that_are_not_finite(cli: Cli, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jotr_deploy.runtime.sessions.onnxruntime import OnnxRuntimeSession

    run = OnnxRuntimeSession._run

    def broken(self: OnnxRuntimeSession, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        out = run(self, feeds)
        out["joints3d"][0, 4, 0] = np.nan
        return out

    monkeypatch.setattr(OnnxRuntimeSession, "_run", broken)
    found = json.loads(cli("eval", tiny_bundle, *SMALL, "--json").out)
    assert found["not_finite"] == 1
    assert found["errors"]["people"]["all"]["mpjpe_mm"] is None
    assert "warning mesh.onnx: numbers of 1 people are not finite" in cli("eval", tiny_bundle, *SMALL).out


@pytest.mark.parametrize(
    ("arguments", "cause", "remedy"),
    [
        (
            ("--protocol", "panoptic"),
            "--protocol: 'panoptic' is not known",
            "give one of synthetic, 3dpw, 3dpw-oc, 3dpw-pc, 3dpw-crowd, 3dpw-occ-3dnbf, 3doh",
        ),
        (("--device", "tpu"), "--device: 'tpu' is not known", "give one of auto, cpu, cuda"),
        (
            ("--file", "a.onnx"),
            "{bundle}: the bundle has no a.onnx of role mesh",
            "it has mesh.onnx",
        ),
        (
            ("--pixels",),
            "{bundle}: the bundle has no detector, so nobody is measured from pixels alone",
            "leave --pixels out, or put one in: jotr-deploy add BUNDLE --detector FILE --pose FILE",
        ),
        (("--people", "hog"), "--people: 'hog' is not known", "give one of detector, blazepose"),
        (
            ("--people", "blazepose"),
            "--people is for people found in pictures",
            "add --pixels, or leave --people out",
        ),
        (
            ("--pixels", "--people", "blazepose"),
            "BlazePose's networks have not been fetched",
            "get them with: jotr-deploy fetch people",
        ),
    ],
)
def test_refusals(
    cli: Cli, tiny_bundle: Path, arguments: tuple[str, ...], cause: str, remedy: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "empty"))
    found = cli("eval", tiny_bundle, *arguments).mistake
    assert found == (cause.format(bundle=tiny_bundle), remedy)


def test_a_bundle_without_a_body(cli: Cli, two_files: Path) -> None:
    bundle = open_bundle(two_files)
    bare = without_body(two_files / "mesh.onnx", two_files.parent)
    replace_file(bundle, "mesh.onnx", lambda path: _copied(bare, path, bundle.entry("mesh")))
    assert cli("eval", two_files, "--file", "mesh.onnx").mistake == (
        f"{two_files}/mesh.onnx: exported with --no-body, it makes no meshes",
        "export it again without --no-body",
    )


def _copied(source: Path, path: Path, entry: FileEntry) -> FileEntry:
    shutil.copy(source, path)
    return entry


def test_no_bundle(cli: Cli, tmp_path: Path) -> None:
    cause, remedy = cli("eval", tmp_path).mistake
    assert cause == f"{tmp_path}: not a bundle (no bundle.json)"
    assert remedy == "make one: jotr-deploy export CHECKPOINT -o BUNDLE; or use the bundle of this package: starter"


def test_the_defaults_are_those_of_the_protocol() -> None:
    defaults = inspect.signature(eval.evaluate).parameters
    assert defaults["seed"].default == held_out_scenes.SEED == protocols.SyntheticOptions().seed
    assert defaults["scenes"].default is None
    assert f"{held_out_scenes.SCENES} by default" in str(defaults["scenes"].annotation)
    assert protocols.SyntheticOptions().scenes == held_out_scenes.SCENES
    assert defaults["protocol"].default in PROTOCOLS
