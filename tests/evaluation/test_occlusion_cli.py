"""`eval --occlusion` through the command line, on scenes without a renderer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from fake_scenes import fake_scene
from outcome import Outcome

from jotr_deploy.bundle import open_bundle, write_manifest
from jotr_deploy.evaluation import protocols

Cli = Callable[..., Outcome]

SMALL = ("--scenes", 4, "--device", "cpu", "--threads", 1)
PATCHES = ("--occlusion", "80,120", "--stride", 90)


@pytest.fixture(autouse=True)
def _fake_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "held_out", fake_scene)


def keys(scenes: int = 4) -> list[str]:
    return [
        f"{index}/{person}" for index in range(scenes) for person in np.flatnonzero(fake_scene(1000, index).counted)
    ]


def test_the_table(cli: Cli, tiny_bundle: Path) -> None:
    outcome = cli("eval", tiny_bundle, *SMALL, *PATCHES)
    assert outcome.code == 0, outcome.err
    lines = [" ".join(line.split()) for line in outcome.out.splitlines() if line.strip()]
    title = f"Under a patch of so many px of a crop of 224, {len(keys())} people, millimetres"
    assert title in " ".join(outcome.out.split())
    assert "file patch clean mean worst worse PA-MPJPE PVE" in lines
    assert [line.split()[:2] for line in lines if line.startswith("mesh.onnx ")][1:] == [
        ["mesh.onnx", "80"], ["mesh.onnx", "120"],
    ]  # fmt: skip
    assert lines[-1] == (
        f"done {tiny_bundle} (measured; nothing was written). Next: jotr-deploy eval {tiny_bundle} "
        "--seed 1000 --scenes 4 --occlusion 80,120 --stride 90 --json > eval.json"
    )


def test_equal_options_give_equal_bytes(cli: Cli, tiny_bundle: Path) -> None:
    first, again = (cli("eval", tiny_bundle, *SMALL, *PATCHES, "--json") for _ in range(2))
    assert first.code == 0, first.err
    assert first.out == again.out
    found = json.loads(first.out)["occlusion"]
    assert (found["seed"], found["people"], found["reference"]) == (1000, len(keys()), None)
    assert [place["person"] for place in found["worst"]] == keys() * 2
    assert {place["texture"].split()[0] for place in found["worst"]} <= {"noise", "stripes", "blobs"}
    kept = json.loads(cli("eval", tiny_bundle, *SMALL, *PATCHES, "--keep-joints", "--json").out)["occlusion"]
    assert kept["protocol"]["joints_under_a_patch"] == "given to the network as without the patch"
    assert kept["sizes"][1]["files"][0]["worst"] != found["sizes"][1]["files"][0]["worst"]
    # An attack does not change what else is measured.
    plain = json.loads(cli("eval", tiny_bundle, *SMALL, "--json").out)
    assert plain["errors"] == json.loads(first.out)["errors"]


def test_files_and_drift(cli: Cli, tiny_bundle: Path, tmp_path: Path) -> None:
    two, output = tmp_path / "two", tmp_path / "attack"
    shutil.copytree(tiny_bundle, two)
    opened = open_bundle(two)
    mesh = opened.entry("mesh")
    shutil.copy(two / mesh.name, two / "copy.onnx")
    files = (*opened.manifest.files, mesh.model_copy(update={"name": "copy.onnx", "precision": "fp16"}))
    write_manifest(two, opened.manifest.model_copy(update={"files": files}))
    outcome = cli("eval", two, *SMALL, "--occlusion", 120, "--stride", 90, "--drift", "-o", output)
    assert outcome.code == 0, outcome.err
    names = ["occlusion.json", "occlusion_120_mesh.onnx.png", "occlusion_120_copy.onnx.png"]
    assert outcome.out.splitlines()[-1] == f"done {output} ({', '.join(names)}). Next: open {output / names[1]}"
    assert sorted(path.name for path in output.iterdir()) == sorted(names)
    assert cv2.imread(str(output / names[1])).shape[2] == 3
    first, copy = json.loads((output / "occlusion.json").read_text())["sizes"][0]["files"]
    assert copy["worst"] == copy["at_reference_worst"] == first["worst"]
    assert (copy["worst_change_mm"], copy["interval_mm"]) == (0, [0, 0])
    assert "at those" in outcome.out


def test_textures_of_a_folder(cli: Cli, tiny_bundle: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "dots.png"), np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8))
    (tmp_path / "broken.png").write_bytes(b"")
    outcome = cli("eval", tiny_bundle, *SMALL, *PATCHES, "--textures", tmp_path, "--json")
    found = json.loads(outcome.out)["occlusion"]
    assert {place["texture"] for place in found["worst"]} == {"dots.png"}
    assert found["skipped_textures"] == [f"{tmp_path / 'broken.png'}: an empty file, not a supported picture"]
    assert "skipped" in cli("eval", tiny_bundle, *SMALL, *PATCHES, "--textures", tmp_path).out


def test_one_picture_of_so_many(cli: Cli, tiny_bundle: Path) -> None:
    found = json.loads(cli("eval", tiny_bundle, *SMALL, *PATCHES, "--every", 3, "--json").out)["occlusion"]
    assert [place["person"] for place in found["worst"]] == [key for key in keys() if key[0] in "03"] * 2


def test_nobody(cli: Cli, tiny_bundle: Path) -> None:
    outcome = cli("eval", tiny_bundle, "--scenes", 1, "--device", "cpu", "--threads", 1, *PATCHES)
    assert outcome.code == 0
    assert "mesh.onnx 80 - - - - - -" in " ".join(outcome.out.split())


@pytest.mark.parametrize(
    ("arguments", "cause", "remedy"),
    [
        (("--occlusion", "big"), "--occlusion big: not a list of patch sides", "give one such as 40,80"),
        (("--occlusion", "40,40"), "--occlusion 40,40: a side is given twice", "give every side once, such as 40,80"),
        (("--occlusion", "300"), "--occlusion 300: not from 1 to 224", "give pixels of a crop of 224"),
        (("--occlusion", "40", "--stride", "0"), "--stride 0: not from 1 to 224", "give pixels of a crop of 224"),
        (
            ("--occlusion", "40", "--textures", "/no/such"),
            "/no/such: not a folder of textures",
            "give --textures a folder with pictures",
        ),
        *(
            (option, f"{option[0]} needs --occlusion",
             f"add --occlusion 40,80, or leave {option[0]} out")
            for option in (("--stride", "10"), ("--textures", "a"), ("--every", "2"), ("--keep-joints",))
        ),
        (
            ("-o", "a"),
            "--output needs --occlusion",
            "add --occlusion 40,80, or leave --output out",
        ),
    ],
)  # fmt: skip
def test_refusals(cli: Cli, tiny_bundle: Path, arguments: tuple[str, ...], cause: str, remedy: str) -> None:
    assert cli("eval", tiny_bundle, *SMALL, *arguments).mistake == (cause, remedy)
