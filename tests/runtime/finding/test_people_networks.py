"""The detector and the pose network of a bundle, and `run` with them: from pixels alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from canned import on_canvas, write_simcc, write_yolox, yolox_rows
from pictures import person, picture, video, write

from jotr_deploy.bundle import Bundle, FileEntry, open_bundle, replace_file, sha256_of, starter_path
from jotr_deploy.errors import BundleError, SessionError
from jotr_deploy.geometry.crop import square_box
from jotr_deploy.runtime.finding import fetched_networks
from jotr_deploy.runtime.finding.people_networks import networks_by, open_people_networks
from jotr_deploy.runtime.run import RunOptions, run
from jotr_deploy.skeletons import SKELETONS, SMPL30_INDEX
from jotr_deploy.third_party.blazepose_wheel import SOURCES, _describe
from jotr_deploy.visual.result_files import read_people

BOXES_PX = np.array([[8, 4, 30, 50], [40, 10, 70, 55.0]])
CANVAS, INPUT = (96, 96), (48, 64)


def with_detector(bundle: Bundle, boxes_px: np.ndarray = BOXES_PX, recipe: dict | None = None) -> Bundle:
    """It finds the same boxes in every picture of 80 x 60 px."""

    def make(path: Path) -> FileEntry:
        rows = yolox_rows(on_canvas(boxes_px, (80, 60), CANVAS), np.array([0.9, 0.7])[: len(boxes_px)], CANVAS)
        write_yolox(path, rows, CANVAS)
        return FileEntry(role="detector", name="", sha256="", recipe={"format": "yolox"} if recipe is None else recipe)

    return replace_file(bundle, "detector.onnx", make)


def with_pose(bundle: Bundle, **recipe: object) -> Bundle:
    """Every joint is the brightest pixel of its box."""

    def make(path: Path) -> FileEntry:
        write_simcc(path, INPUT)
        return FileEntry(role="pose", name="", sha256="", recipe={"format": "simcc", "threshold": 0.3, **recipe})

    return replace_file(bundle, "pose.onnx", make)


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Bundle:
    return open_bundle(Path(shutil.copytree(tiny_bundle, tmp_path / "bundle")))


def bright() -> np.ndarray:
    image = np.zeros((60, 80, 3), np.uint8)
    image[20, 15], image[30, 60] = 255, 255
    return image


@pytest.mark.parametrize(
    ("has", "roles", "opened"),
    [
        ((), ("detector", "pose"), (False, False)),
        (("detector",), ("detector", "pose"), (True, False)),
        (("pose",), ("detector", "pose"), (False, True)),
        (("detector", "pose"), ("detector", "pose"), (True, True)),
        (("detector", "pose"), ("pose",), (False, True)),
        (("detector", "pose"), (), (False, False)),
    ],
)
def test_what_a_bundle_has_and_is_wanted_is_opened(bundle, has, roles, opened):
    for role, add in (("detector", with_detector), ("pose", with_pose)):
        assert not bundle.has(role)
        bundle = add(bundle) if role in has else bundle
    with open_people_networks(open_bundle(bundle.path), roles, "cpu") as networks:
        assert (networks.detector is not None, networks.pose is not None) == opened
        kept = [network.session for network in (networks.detector, networks.pose) if network is not None]
    for session in kept:
        with pytest.raises(SessionError, match="closed"):
            session({})


def with_files(bundle: Bundle, formats: tuple[str, str]) -> Bundle:
    """Files that nobody opens, said to be of these formats."""
    for role, name in zip(("detector", "pose"), formats, strict=True):

        def make(path: Path, role: str = role, name: str = name) -> FileEntry:
            path.write_bytes(role.encode())
            return FileEntry(role=role, name="", sha256="", recipe={"format": name})

        bundle = replace_file(bundle, f"{role}.onnx", make)
    return bundle


@pytest.mark.parametrize("fetched_before", [False, True])
@pytest.mark.parametrize(
    ("which", "people", "without", "with_fetched"),
    [
        ("starter", "auto", "own", "fetched"),
        ("starter", "detector", "own", "own"),
        ("starter", "hog", "own", "own"),
        ("starter", "blazepose", "refused", "fetched"),
        ("none", "auto", "nothing", "nothing"),
        ("none", "blazepose", "refused", "fetched"),
        ("others", "auto", "own", "own"),
        ("others", "blazepose", "refused", "fetched"),
        ("half", "blazepose", "refused", "fetched"),
        ("blazepose", "auto", "own", "own"),
        ("blazepose", "blazepose", "own", "own"),
        ("blazepose", "detector", "own", "own"),
    ],
)
def test_whose_networks_find_people(
    bundle, tmp_path, monkeypatch, which, people, without, with_fetched, fetched_before
):
    if fetched_before:
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
        fetched_networks.people_folder().mkdir(parents=True)
        for name in SOURCES:
            (fetched_networks.people_folder() / name).write_bytes(name.encode())
        _describe(fetched_networks.people_folder(), dict.fromkeys(SOURCES, b""))
    formats = {"others": ("yolox", "simcc"), "half": ("yolox", "blazepose"), "blazepose": ("blazepose", "blazepose")}
    if which == "starter":
        bundle = open_bundle(starter_path())
    elif which in formats:
        bundle = with_files(bundle, formats[which])
    expected = with_fetched if fetched_before else without
    if expected == "refused":
        with pytest.raises(BundleError, match="BlazePose's networks have not been fetched"):
            networks_by(people, bundle)
        return
    folder = fetched_networks.people_folder() if expected == "fetched" else bundle.path
    roles = () if expected == "nothing" else ("detector", "pose")
    found = networks_by(people, bundle)
    assert [(file.role, file.path.parent) for file in found] == [(role, folder) for role in roles]
    assert all(file.sha256 == sha256_of(file.path) for file in found)


def test_from_pixels_alone(bundle, tmp_path):
    bundle = with_pose(with_detector(bundle))
    photo = picture(tmp_path / "photo.png", bright())
    summary = run(bundle, str(photo), tmp_path / "out", RunOptions(save_2d=True))
    assert (summary.people, summary.skeleton) == (2, "coco17")
    assert json.loads((tmp_path / "out" / "photo.json").read_text())["skeleton"] == "coco17"
    people = read_people(tmp_path / "out" / "photo.npz").people
    np.testing.assert_allclose(people.scores, [0.9, 0.7], rtol=1e-5)
    coco17 = [SMPL30_INDEX[name] for name in SKELETONS["coco17"]]
    np.testing.assert_allclose(people.keypoints_px[0, coco17, :2], [[15, 20]] * 17, atol=0.51)
    np.testing.assert_allclose(people.keypoints_px[1, coco17, :2], [[60, 30]] * 17, atol=0.51)
    # All joints in one place have no extent: the detector's boxes stay.
    np.testing.assert_allclose(people.boxes_px, square_box(BOXES_PX, 1.1), atol=1e-2)
    again = run(bundle, str(photo), tmp_path / "again", RunOptions(keypoints=tmp_path / "out" / "photo_2d.npz"))
    assert again.skeleton is None
    repeated = read_people(tmp_path / "again" / "photo.npz").people
    np.testing.assert_array_equal(repeated.vertices_m, people.vertices_m)


def test_a_detector_alone(bundle, tmp_path):
    clip = video(tmp_path / "clip.mp4", 2)
    summary = run(with_detector(bundle), str(clip), tmp_path / "out", RunOptions())
    assert (summary.people_per_frame, summary.skeleton) == ([2, 2], None)
    assert not read_people(tmp_path / "out" / "clip.npz").people.joints_used.any()


def test_nobody_is_found(bundle, tmp_path):
    bundle = with_pose(with_detector(bundle, BOXES_PX[:0]))
    summary = run(bundle, str(picture(tmp_path / "photo.png")), tmp_path / "out", RunOptions())
    assert (summary.frames, summary.people) == (1, 0)


@pytest.mark.parametrize("given", ["boxes", "keypoints"])
def test_what_is_given_comes_before_what_is_found(bundle, tmp_path, given):
    content = {"boxes": [[5, 5, 40, 50]], "keypoints": [person("photo.png", 1)]}[given]
    options = RunOptions(**{given: write(tmp_path / "given.json", content)})
    photo = picture(tmp_path / "photo.png", bright())
    with_networks = with_pose(with_detector(bundle))
    summary = run(with_networks, str(photo), tmp_path / "out", options)
    assert summary.people == 1
    assert summary.skeleton == ("coco17" if given == "boxes" else None)


@pytest.mark.parametrize(
    ("recipe", "cause"),
    [({"format": "ssd"}, "unknown detector format 'ssd'"), ({"nms": 1}, "recipe: nms: Extra inputs are not permitted")],
)
def test_a_recipe_that_is_not_known_names_the_file(bundle, tmp_path, recipe, cause):
    bundle = with_detector(bundle, recipe=recipe)
    with pytest.raises(BundleError) as refusal:
        run(bundle, str(picture(tmp_path / "photo.png")), tmp_path / "out", RunOptions())
    assert refusal.value.cause == f"{bundle.path / 'detector.onnx'}: {cause}"
    assert not (tmp_path / "out").exists()


def test_a_mesh_network_is_no_detector(bundle, tmp_path):
    def make(path: Path) -> FileEntry:
        shutil.copy(bundle.file("mesh"), path)
        return FileEntry(role="detector", name="", sha256="")

    with pytest.raises(SessionError, match=r"not a detector in a known format|cannot be used as a detector"):
        run(
            replace_file(bundle, "detector.onnx", make),
            str(picture(tmp_path / "photo.png")), tmp_path / "out", RunOptions(),
        )  # fmt: skip
