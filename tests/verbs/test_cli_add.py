"""`add`: what a file is, what it finds, and a bundle that has it; refused, the bundle is as it was."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from canned import (
    mmdeploy_answers,
    write_always,
    write_simcc,
    write_yolox,
    write_yolox_of_any_size,
    yolox_rows,
)
from contracts import healthy
from engines.tensorrt.fake_machine import fake_machine
from outcome import Outcome, full_disk, tree
from pictures import picture

from jotr_deploy.bundle import FIT_ROLES, Bundle, open_bundle
from jotr_deploy.doctor.installation import examine
from jotr_deploy.doctor.installation import healthy as sound
from jotr_deploy.runtime.finding.detection import FORMATS
from jotr_deploy.runtime.finding.people_networks import open_people_networks
from jotr_deploy.runtime.sources.images import read_image

Cli = Callable[..., Outcome]

SIZE, INPUT = (96, 96), (48, 64)
BOXES = np.array([[26, 21, 64, 63], [32, 27, 43, 59.0]])
"""On the canvas, where it shows the people of the picture inside this package."""
UNKNOWN = {"terms": "unknown: not stated", "redistributable": False}
DETECTORS = ", ".join(each.name for each in FORMATS)
YOLOX_RECIPE = "yolox accepts format, size_px, person, threshold, iou, flip_test, decoded"
FOUND_BOTH = "finds 2 of the 2 people in the picture inside this package (IoU 0.98 and 0.97)"


def yolox(path: Path, people: int = 2) -> Path:
    return write_yolox(path, yolox_rows(BOXES[:people], np.array([0.9, 0.8])[:people], SIZE), SIZE)


@pytest.fixture
def files(place: Path) -> Path:
    """In `place`, a detector and a pose network."""
    yolox(place / "d.onnx")
    write_simcc(place / "p.onnx", INPUT)
    return place


def opened(place: Path) -> Bundle:
    """The bundle, after a look that every file in it is intact and listed."""
    bundle = open_bundle(place / "bundle")
    for entry in bundle.manifest.files:
        bundle.file(entry.role, entry.name)
    assert set(tree(bundle.path)) == {"bundle.json", *(entry.name for entry in bundle.manifest.files)}
    return bundle


def test_both_at_once(cli: Cli, files: Path) -> None:
    outcome = cli("add", files / "bundle", "--detector", files / "d.onnx", "--pose", files / "p.onnx",
                  "--licence", "Apache-2.0", "--redistributable")  # fmt: skip
    assert outcome.code == 0, outcome.err
    sizes = [(files / name).stat().st_size / 1e6 for name in ("d.onnx", "p.onnx")]
    assert outcome.out.splitlines() == [
        f"detector.onnx yolox, 96 x 96 px, classes: 1; {FOUND_BOTH}",
        "licence detector: d.onnx: Apache-2.0; may be passed on",
        "pose.onnx simcc, 48 x 64 px, joints of coco17; finds 17.0 of 17 joints per person in the picture inside this "
        "package, off by 49.9% of the box height (median): too far; check the order of the joints and the decoding",
        "licence pose: p.onnx: Apache-2.0; may be passed on",
        f"done {files / 'bundle'} (detector.onnx, {sizes[0]:.1f} MB and pose.onnx, {sizes[1]:.1f} MB). Next: "
        f"jotr-deploy run {files / 'bundle'} IMAGE -o DIR",
    ]
    bundle = opened(files)
    for role, source, name in (("detector", "d.onnx", "yolox"), ("pose", "p.onnx", "simcc")):
        entry = bundle.entry(role)
        assert (entry.name, entry.recipe) == (f"{role}.onnx", {"format": name})
        assert (entry.backend, entry.batch) == ("onnx", "dynamic")
        assert bundle.file(role).read_bytes() == (files / source).read_bytes()
    assert [licence.asset for licence in bundle.manifest.licences] == [
        "stand-in body", "detector: d.onnx", "pose: p.onnx",
    ]  # fmt: skip
    findings = examine(files / "bundle")
    assert sound([finding for finding in findings if finding.group == "bundle"])
    said = {finding.subject: finding.detail for finding in findings if finding.group == "bundle"}
    assert said["detector.onnx"].endswith("unchanged")
    assert said["detector: d.onnx"] == "may be passed on: Apache-2.0"


def test_run_uses_what_was_added(cli: Cli, files: Path) -> None:
    assert cli("add", files / "bundle", "--detector", files / "d.onnx", "--pose", files / "p.onnx").code == 0
    outcome = cli("run", files / "bundle", picture(files / "photo.png"), "-o", files / "new", "--json")
    summary = json.loads(outcome.out)
    assert (summary["people"], summary["skeleton"]) == (2, "coco17")


def test_what_a_recipe_says_is_kept(cli: Cli, files: Path) -> None:
    outcome = cli("add", files / "bundle", "--detector", files / "d.onnx", "--detector-format", "yolox",
                  "--set", "detector.threshold=0.85", "--set", "detector.decoded=false", "--json")  # fmt: skip
    (said,) = json.loads(outcome.out)
    assert said == {
        "role": "detector", "name": "detector.onnx", "about": "yolox, 96 x 96 px, classes: 1",
        "found": "finds 1 of the 2 people in the picture inside this package (IoU 0.98 and 0.22)", "tried": None,
        "size_bytes": (files / "d.onnx").stat().st_size, "licence": {"asset": "detector: d.onnx", **UNKNOWN},
        "replaced": [],
    }  # fmt: skip
    bundle = opened(files)
    assert bundle.entry("detector").recipe == {"format": "yolox", "threshold": 0.85, "decoded": False}
    assert bundle.manifest.licences[-1].model_dump() == {"asset": "detector: d.onnx", **UNKNOWN}
    with open_people_networks(bundle, device="cpu") as networks:
        assert networks.detector is not None
        assert len(networks.detector(np.zeros((60, 80, 3), np.uint8))[0]) == 1


def test_a_role_has_one_file_and_one_licence(cli: Cli, files: Path) -> None:
    assert cli("add", files / "bundle", "--detector", files / "d.onnx", "--licence", "MIT").code == 0
    assert cli("add", files / "bundle", "--pose", files / "p.onnx").code == 0
    yolox(files / "e.onnx", 1)
    outcome = cli("add", files / "bundle", "--detector", files / "e.onnx")
    assert "replaced detector.onnx" in outcome.out.splitlines()
    bundle = opened(files)
    assert [entry.role for entry in bundle.manifest.files] == ["mesh", "faces", "pose", "detector"]
    assert bundle.file("detector").read_bytes() == (files / "e.onnx").read_bytes()
    assert [licence.asset for licence in bundle.manifest.licences] == [
        "stand-in body", "pose: p.onnx", "detector: e.onnx",
    ]  # fmt: skip


def test_a_file_of_the_bundle_itself_gets_another_recipe(cli: Cli, files: Path) -> None:
    assert cli("add", files / "bundle", "--detector", files / "d.onnx").code == 0
    own = files / "bundle" / "detector.onnx"
    assert cli("add", files / "bundle", "--detector", own, "--set", "detector.iou=0.7").code == 0
    assert own.read_bytes() == (files / "d.onnx").read_bytes()
    assert opened(files).entry("detector").recipe == {"format": "yolox", "iou": 0.7}


def test_a_copy_of_the_bundle_inside_the_package(cli: Cli, files: Path) -> None:
    outcome = cli("add", "starter", "--pose", files / "p.onnx", "-o", files / "copy")
    assert outcome.code == 0, outcome.err
    copy = open_bundle(files / "copy")
    assert {entry.role for entry in copy.manifest.files} == {"mesh", "faces", "detector", "pose", *FIT_ROLES}
    assert copy.file("pose").read_bytes() == (files / "p.onnx").read_bytes()
    assert "starter networks" in [licence.asset for licence in copy.manifest.licences]


def test_weights_beside_the_file_are_taken_in(cli: Cli, files: Path) -> None:
    (files / "apart").mkdir()
    apart = files / "apart" / "d.onnx"
    onnx.save(onnx.load(files / "d.onnx"), apart, save_as_external_data=True, location="d.data")
    assert (files / "apart" / "d.data").is_file()
    assert cli("add", files / "bundle", "--detector", apart).code == 0
    shutil.rmtree(files / "apart")
    with open_people_networks(opened(files), device="cpu") as networks:
        assert networks.detector is not None
        assert len(networks.detector(np.zeros((60, 80, 3), np.uint8))[0]) == 2


def test_a_file_of_any_size_keeps_the_size_that_is_said(cli: Cli, files: Path) -> None:
    write_yolox_of_any_size(files / "any.onnx")
    arguments = ("add", files / "bundle", "--detector", files / "any.onnx", "--set", "detector.threshold=1", "--json")
    assert json.loads(cli(*arguments).out)[0]["about"] == "yolox, 640 x 640 px, classes: 1"
    said = json.loads(cli(*arguments, "--set", "detector.size_px=[160, 96]").out)[0]
    assert said["about"] == "yolox, 160 x 96 px, classes: 1"
    with open_people_networks(opened(files), device="cpu") as networks:
        assert networks.detector is not None
        assert networks.detector.size_px == (160, 96)


@pytest.mark.parametrize("suffix", [".engine", ".plan"])
def test_an_engine_keeps_its_suffix(cli: Cli, files: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    assert cli("add", files / "bundle", "--pose", files / "p.onnx").code == 0
    profile = {"input": [[rows, 3, INPUT[1], INPUT[0]] for rows in (1, 1, 4)]}
    engine = files / f"p{suffix}"
    with fake_machine(monkeypatch) as machine:
        header = {"version": machine.trt.__version__, "name": "simcc", "profile": profile, "plugins": []}
        engine.write_bytes(healthy.MAGIC + json.dumps(header).encode() + b"\n" + (files / "p.onnx").read_bytes())
        outcome = cli("add", files / "bundle", "--pose", engine)
        assert outcome.code == 0, outcome.err
        with open_people_networks(opened(files)) as networks:
            assert networks.pose is not None
            assert networks.pose.session.path.name == f"pose{suffix}"
    entry = opened(files).entry("pose")
    assert (entry.name, entry.backend) == (f"pose{suffix}", "tensorrt")


@pytest.fixture
def not_added(cli: Cli, files: Path) -> Callable[..., tuple[str, str]]:
    """`add` in `files`: its cause and remedy, after a look that nothing there has changed."""

    def call(*arguments: object, bundle: str = "bundle") -> tuple[str, str]:
        before = tree(files)
        outcome = cli("add", files / bundle if bundle == "bundle" else bundle, *arguments)
        assert tree(files) == before
        return outcome.mistake

    return call


@pytest.mark.parametrize(
    ("arguments", "cause", "remedy"),
    [
        pytest.param([], "neither a detector nor a pose network is given",
                     "give --detector FILE, --pose FILE or both, --people blazepose, or --features WEIGHTS",
                     id="nothing"),
        pytest.param(["--detector", "{p}/gone.onnx"], "{p}/gone.onnx: no such network file",
                     "check the path", id="missing"),
        pytest.param(["--pose", "{p}/photo.png"], "{p}/photo.png: cannot open '.png': it is a PNG picture",
                     "give a file that ends in .engine, .onnx, .plan", id="no network"),
        pytest.param(["--detector", "{p}/d.onnx", "--detector-format", "ssd"],
                     "{p}/d.onnx: unknown detector format 'ssd'", f"known: {DETECTORS}", id="unknown format"),
        pytest.param(["--detector", "{p}/d.onnx", "--set", "detector.nms=1"],
                     "{p}/d.onnx: recipe: nms: Extra inputs are not permitted",
                     YOLOX_RECIPE, id="unknown setting"),
        pytest.param(["--detector", "{p}/d.onnx", "--set", "detector.iou=2"],
                     "{p}/d.onnx: recipe: iou: Input should be less than or equal to 1",
                     YOLOX_RECIPE, id="wrong setting"),
        pytest.param(["--detector", "{p}/d.onnx", "--set", "iou=0.5"], "--set iou=0.5: not of the form ROLE.KEY=VALUE",
                     "give one such as detector.threshold=0.4", id="no role"),
        pytest.param(["--detector", "{p}/d.onnx", "--set", "mesh.iou=0.5"],
                     "--set mesh.iou=0.5: not of the form ROLE.KEY=VALUE",
                     "give one such as detector.threshold=0.4", id="another role"),
        pytest.param(["--detector", "{p}/d.onnx", "--detector-format", "yolox", "--set", "detector.format=yolox"],
                     "detector.format is given twice", "give it once", id="twice"),
        pytest.param(["--detector", "{p}/d.onnx", "--pose-format", "simcc"], "pose.format is set without --pose",
                     "give the file too: --pose FILE", id="format without its file"),
        pytest.param(["--detector", "{p}/d.onnx", "--redistributable"],
                     "--redistributable is given without --licence", "name the licence that permits it: --licence TEXT",
                     id="no terms"),
        pytest.param(["--detector", "{p}/d.onnx", "-o", "{p}/out"],
                     "{p}/out: already exists and is not a bundle", "choose another -o", id="taken"),
    ],
)  # fmt: skip
def test_refused(not_added: Any, files: Path, arguments: list[str], cause: str, remedy: str) -> None:
    found = not_added(*(argument.format(p=files) for argument in arguments))
    assert found == (cause.format(p=files), remedy)


@pytest.mark.parametrize(
    ("role", "file", "kind", "what", "remedy"),
    [
        ("detector", "bundle/mesh.onnx", "detector", "a mesh network of this project",
         "give a detector or a pose network"),
        ("pose", "bundle/mesh.onnx", "pose network", "a mesh network of this project",
         "give a detector or a pose network"),
        ("detector", "p.onnx", "detector", "a pose network (SimCC)",
         "give it with --pose, and a detector to find the boxes"),
        ("pose", "d.onnx", "pose network", "a detector (yolox)", "give it with --detector"),
    ],
)  # fmt: skip
def test_a_file_of_another_kind(
    not_added: Any, files: Path, role: str, file: str, kind: str, what: str, remedy: str
) -> None:
    cause, said = not_added(f"--{role}", files / file)
    assert cause.startswith(f"{files / file}: this is {what}, which cannot be used as a {kind} here (inputs ")
    assert said == remedy


def test_a_file_of_no_known_format(not_added: Any, files: Path) -> None:
    write_always(files / "x.onnx", "x", SIZE, {"y": np.zeros((3, 5), np.float32)})
    cause, remedy = not_added("--detector", files / "x.onnx")
    assert cause.startswith(f"{files / 'x.onnx'}: not a detector in a known format (inputs ")
    assert cause.endswith(f"; tried {DETECTORS})")
    assert remedy == f"give a file in one of the formats {DETECTORS}, exactly as its exporter writes it"


MISSES = np.array([[2, 50, 20, 70.0]])


def test_boxes_that_all_miss_are_refused(not_added: Any, files: Path) -> None:
    path = write_always(files / "m.onnx", "input", SIZE, mmdeploy_answers(MISSES, np.array([0.9])))
    assert not_added("--detector", path) == (
        f"{path}: read as mmdeploy, 96 x 96 px, pixels as for yolox, class 0 is assumed to be person, "
        "as the file names no classes, but all its boxes "
        "miss the people of the picture inside this package (IoU 0.00 and 0.00)",
        "if it is in another format, name it with --detector-format; else show that it finds people: --try PHOTO",
    )


@pytest.mark.parametrize("tries", [[], ["--try", "{p}/photo.png"]])
def test_numbers_of_another_format_are_refused(not_added: Any, files: Path, tries: list[str]) -> None:
    path = write_always(files / "m.onnx", "input", SIZE, mmdeploy_answers(BOXES[:1], np.array([7.0])))
    cause, remedy = not_added("--detector", path, *(each.format(p=files) for each in tries))
    assert cause.endswith("as the file names no classes, but its scores go from 0 to 7, not from 0 to 1")
    assert remedy == "it must be in another format: give one of those in docs/formats.md"


def test_a_picture_of_ones_own(cli: Cli, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector that misses the drawn people is taken where the user sees that it finds somebody."""
    monkeypatch.chdir(files)
    path = write_always(files / "m.onnx", "input", SIZE, mmdeploy_answers(MISSES - [0, 20, 0, 20], np.array([0.9])))
    outcome = cli("add", "bundle", "--detector", path, "--pose", "p.onnx", "--try", "photo.png")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    at = lines.index("photo.png, drawn into try-photo.jpg:")
    assert re.fullmatch(r"  person 1: box \d+ \d+ \d+ \d+ px, score 0\.90, \d+ of 17 joints.*", lines[at + 1])
    assert "finds 1 box, but all its boxes miss the people of the picture inside this package" in lines[0]
    drawn, photo = read_image(files / "try-photo.jpg"), read_image(files / "photo.png")
    assert drawn.shape == photo.shape
    assert np.abs(drawn.astype(int) - photo).max() > 50
    (said,) = json.loads(cli("add", "bundle", "--detector", path, "--try", "photo.png", "--json").out)
    assert (said["tried"]["picture"], said["tried"]["drawing"]) == ("photo.png", "try-photo.jpg")
    ((person,),) = (said["tried"]["people"],)
    assert (len(person["box_px"]), round(person["score"], 3), len(person["joints"])) == (4, 0.9, 17)


@pytest.mark.parametrize(
    ("tries", "cause", "remedy"),
    [
        ("photo.png", "{p}/photo.png: the detector finds nobody",
         "give a picture with fully visible people, or a lower threshold: --set detector.threshold=0.1"),
        ("gone.png", "{p}/gone.png", ""),
    ],
)  # fmt: skip
def test_nobody_in_a_picture_of_ones_own(not_added: Any, files: Path, tries: str, cause: str, remedy: str) -> None:
    path = write_always(files / "none.onnx", "input", SIZE, mmdeploy_answers(BOXES[:0], np.zeros(0)))
    found = not_added("--detector", path, "--try", files / tries)
    assert found[0].startswith(cause.format(p=files))
    assert found[1].startswith(remedy)


def test_nobody_is_found_by_the_bundles_own_detector(cli: Cli, not_added: Any, files: Path) -> None:
    """Its threshold cannot be set while only a pose network is added."""
    assert cli("add", files / "bundle", "--detector", files / "d.onnx", "--set", "detector.threshold=1").code == 0
    found = not_added("--pose", files / "p.onnx", "--try", files / "photo.png")
    assert found == (f"{files / 'photo.png'}: the detector finds nobody", "give a picture with fully visible people")


def test_a_pose_network_alone_sees_the_whole_picture(cli: Cli, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    (said,) = json.loads(cli("add", "bundle", "--pose", "p.onnx", "--try", "photo.png", "--json").out)
    (person,) = said["tried"]["people"]
    height, width = read_image(files / "photo.png").shape[:2]
    assert person["box_px"] == [-0.5, -0.5, width - 0.5, height - 0.5]


def test_doctor_tries_what_was_added(cli: Cli, files: Path) -> None:
    assert cli("add", files / "bundle", "--detector", files / "d.onnx", "--pose", files / "p.onnx").code == 0
    tried = {finding.subject: finding for finding in examine(files / "bundle") if finding.subject.endswith("picture")}
    assert (tried["detector on a known picture"].state, tried["detector on a known picture"].detail) == (
        "ok",
        FOUND_BOTH,
    )
    pose = tried["pose on a known picture"]
    assert pose.state == "note"  # every joint is the brightest pixel
    assert re.fullmatch(
        r"finds 17\.0 of 17 joints per person .*, off by \d+\.\d% of the box height \(median\): too far; .*",
        pose.detail,
    )


def test_a_file_that_is_no_onnx(not_added: Any, files: Path) -> None:
    (files / "text.onnx").write_text("hello")
    cause, remedy = not_added("--detector", files / "text.onnx")
    assert cause == f"{files / 'text.onnx'}: not an ONNX model: it is plain text"
    assert remedy == "check the file; export it again"


def test_a_network_that_does_not_run(not_added: Any, files: Path) -> None:
    """It takes the eighth of three colours, which its file does not show."""
    model = onnx.load(files / "d.onnx")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([7]), "eighth"))
    model.graph.node[0].input[0] = "colour"
    model.graph.node.insert(0, onnx.helper.make_node("Gather", ["images", "eighth"], ["colour"], axis=1))
    onnx.save(model, files / "d.onnx")
    cause, remedy = not_added("--detector", files / "d.onnx")
    assert cause.startswith(f"{files / 'd.onnx'}: opens but does not run (")
    assert remedy == "check that its exporter supports this engine, and export it again"


def test_if_one_of_two_is_refused_neither_is_added(not_added: Any, files: Path) -> None:
    cause, _ = not_added("--detector", files / "d.onnx", "--pose", files / "d.onnx")
    assert "cannot be used as a pose network here" in cause


def test_the_starter_is_not_changed(not_added: Any, files: Path) -> None:
    assert not_added("--detector", files / "d.onnx", bundle="starter") == (
        "starter: the bundle inside this package cannot be changed", "give -o DIR to write a copy",
    )  # fmt: skip


@pytest.mark.parametrize("role", ["detector", "pose"])
def test_a_full_disk(cli: Cli, files: Path, monkeypatch: pytest.MonkeyPatch, role: str) -> None:
    assert cli("add", files / "bundle", "--detector", files / "d.onnx", "--pose", files / "p.onnx").code == 0
    yolox(files / "d.onnx", 1)
    before = tree(files)
    copy = shutil.copyfile
    monkeypatch.setattr(
        "jotr_deploy.third_party.addition.shutil.copyfile",
        lambda a, b: full_disk() if f".{role}." in str(b) else copy(a, b),
    )
    outcome = cli("add", files / "bundle", "--detector", files / "d.onnx", "--pose", files / "p.onnx")
    assert outcome.mistake == (
        f"{files / 'bundle' / role}.onnx: cannot be written (No space left on device)",
        "choose a writable folder that exists and has free space",
    )
    assert tree(files) == before


def test_a_detector_that_finds_nobody_is_said(cli: Cli, files: Path) -> None:
    answers = mmdeploy_answers(BOXES[:0], np.zeros(0))
    path = write_always(files / "none.onnx", "input", SIZE, answers)
    outcome = cli("add", files / "bundle", "--detector", path)
    assert outcome.code == 0
    assert "finds nobody in the picture inside this package, which is a drawing of 2 people" in outcome.out
