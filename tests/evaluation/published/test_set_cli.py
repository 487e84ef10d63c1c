"""`eval` on data sets through the command line: a real bundle, sets in miniature."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from miniature import KNOWN, write_miniature
from outcome import Outcome

from jotr_deploy.bundle import open_bundle, write_manifest
from jotr_deploy.evaluation.published.paper_rows import PUBLISHED
from jotr_deploy.support.choices import SPLITS

Cli = Callable[..., Outcome]


@pytest.fixture
def options(tmp_path: Path, smpl: Path, h36m_regressor: Path) -> list[Any]:
    write_miniature("3dpw", tmp_path)
    return ["--protocol", "3dpw", "--root", tmp_path, "--h36m-regressor", h36m_regressor, "--smpl", smpl,
            "--device", "cpu", "--threads", 1]  # fmt: skip


def test_the_table(cli: Cli, tiny_bundle: Path, options: list[Any], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    outcome = cli("eval", tiny_bundle, *options)
    assert outcome.code == 0, outcome.err
    lines = [line.rstrip() for line in outcome.out.splitlines() if line.strip()]
    assert lines[0] == "mesh.onnx on cpu, 3dpw, mm; accel. in mm/frame^2"
    assert lines[1].split() == ["network", "n", "MPJPE", "PA-MPJPE", "PVE", "accel."]
    assert lines[3].split()[:2] == ["mesh.onnx", "7"]
    assert lines[4].strip() == "the paper, Table 2:"
    rows = {line.split()[0]: line.split()[1:] for line in lines[5:18]}
    assert (rows["JOTR"], rows["EFT"]) == (["-", "76.4", "48.7", "92.6", "-"], ["-", "-", "54.2", "-", "-"])
    assert "By sequence" in lines
    assert [line.split()[1] for line in lines if line.startswith((" downtown_walking_00", " outdoors_"))] == ["6", "1"]
    assert "note stand-in body" in lines
    for said in (
        "data set", "people", "joint set", "regressor", "alignment", "truth", "box", "joints given", "confidence",
        "pictures", "acceleration", "published",
    ):  # fmt: skip
        assert any(line.startswith(f"{said} ") for line in lines), said
    text = " ".join(outcome.out.split())
    assert "width and height times 1.2" in text
    assert "longer side times 1.1" in text
    assert "joints above 0.05" in text
    assert "gender, pose, shape and place: female 3, male 4" in text
    assert "warning the meshes of the bundle are of the stand-in body, the true ones of SMPL: " in text
    assert all(len(line) <= 80 for line in outcome.out.splitlines() if not line.startswith(("done", "warning")))
    _, regressor, smpl = options[3], options[5], options[7]
    assert lines[-1] == (
        f"done {tiny_bundle} (measured; nothing was written). Next: jotr-deploy eval {tiny_bundle} --protocol 3dpw "
        f"--root {tmp_path} --h36m-regressor {regressor} --smpl {smpl} --json > eval.json"
    )


def test_json_is_the_same_to_the_byte(cli: Cli, tiny_bundle: Path, options: list[Any]) -> None:
    first, again = (cli("eval", tiny_bundle, *options, "--json") for _ in range(2))
    assert first.code == 0, first.err
    assert first.out == again.out
    found = json.loads(first.out)
    assert found["everybody"]["people"] == 7
    assert found["everybody"]["mpjpe_mm"] > found["everybody"]["pa_mpjpe_mm"] > 0
    assert list(found["sequences"]) == ["downtown_walking_00", "outdoors_fencing_01"]
    assert found["published"]["table"] == "Table 2"
    assert found["published"]["rows"][-1] == {
        "method": "JOTR", "mpjpe_mm": 76.4, "pa_mpjpe_mm": 48.7, "pve_mm": 92.6,
    }  # fmt: skip
    assert (found["left_out"], found["not_finite"], found["drift"]) == ({}, 0, None)
    assert found["protocol"]["pictures"] == "as stored, EXIF rotation ignored"


@pytest.mark.parametrize("protocol", SPLITS)
def test_every_protocol(
    cli: Cli, tiny_bundle: Path, tmp_path: Path, smpl: Path, h36m_regressor: Path, protocol: str
) -> None:
    write_miniature(protocol, tmp_path)
    files = ("--root", tmp_path, "--h36m-regressor", h36m_regressor, "--smpl", smpl)
    outcome = cli("eval", tiny_bundle, "--protocol", protocol, *files, "--device", "cpu", "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["everybody"]["people"] == len(KNOWN[protocol, SPLITS[protocol]])
    assert found["protocol"]["protocol"] == protocol


def test_drift(cli: Cli, tiny_bundle: Path, tmp_path: Path, options: list[Any]) -> None:
    two = tmp_path / "two"
    shutil.copytree(tiny_bundle, two)
    opened = open_bundle(two)
    shutil.copy(two / "mesh.onnx", two / "mesh.copy.onnx")
    copy = opened.entry("mesh").model_copy(update={"name": "mesh.copy.onnx", "precision": "fp16"})
    write_manifest(two, opened.manifest.model_copy(update={"files": (*opened.manifest.files, copy)}))
    (row,) = json.loads(cli("eval", two, *options, "--drift", "--json").out)["drift"]["files"]
    assert (row["name"], row["mean_mm"], row["mpjpe_change_mm"]) == ("mesh.copy.onnx", 0, 0)
    outcome = cli("eval", two, *options, "--drift", "--file", "mesh.copy.onnx")
    assert "mesh.copy.onnx on cpu, 3dpw, mm; " in outcome.out
    assert "Joints from those of mesh.onnx, change of MPJPE, mm, 7 people" in " ".join(outcome.out.split())


def test_who_is_not_evaluated_is_named(cli: Cli, tiny_bundle: Path, tmp_path: Path, options: list[Any]) -> None:
    path = tmp_path / "3DPW/annotations/3DPW_latest_test.json"
    content = json.loads(path.read_text())
    for person in content["annotations"][:6]:
        person["openpose_result"] = np.zeros((18, 3)).tolist()
    path.write_text(json.dumps(content))
    outcome = cli("eval", tiny_bundle, *options)
    said = "not evaluated 6 of the set, no crop box from the joints found: 1, 2, 3, 4, 5 and 1 more"
    assert said in " ".join(outcome.out.split())
    found = json.loads(cli("eval", tiny_bundle, *options, "--json").out)
    assert found["left_out"] == {"no crop box from the joints found": ["1", "2", "3", "4", "5", "6"]}
    assert found["protocol"]["people"].startswith("1 of 7; ")


def test_nobody_is_a_result(cli: Cli, tiny_bundle: Path, tmp_path: Path, options: list[Any]) -> None:
    path = tmp_path / "3DPW/annotations/3DPW_latest_test.json"
    path.write_text(json.dumps({"images": [], "annotations": []}))
    outcome = cli("eval", tiny_bundle, *options)
    assert outcome.code == 0, outcome.err
    row = next(line for line in outcome.out.splitlines() if line.startswith(" mesh.onnx"))
    assert row.split() == ["mesh.onnx", "0", "-", "-", "-", "-"]


PICTURE = "3DPW/imageFiles/downtown_walking_00/image_00013.jpg"


def _no_picture(root: Path) -> str:
    (root / PICTURE).unlink()
    return f"{root / PICTURE}: no such picture; 1 of 4 pictures of the set are missing"


def _scaled_picture(root: Path) -> str:
    cv2.imwrite(str(root / PICTURE), np.zeros((50, 60, 3), np.uint8))
    return f"{root / PICTURE}: 60 x 50 px, the annotations are for 120 x 100 px"


def _damaged_picture(root: Path) -> str:
    (root / PICTURE).write_bytes(b"no picture")
    return f"{root / PICTURE}: no image that can be decoded"


def _no_file(root: Path) -> str:
    (root / "3DPW/annotations/3DPW_latest_test.json").unlink()
    return f"{root}: 3DPW (test) is not complete, missing: 3DPW/annotations/3DPW_latest_test.json"


def _cut_file(root: Path) -> str:
    path = root / "3DPW/annotations/3DPW_latest_test.json"
    path.write_text(path.read_text()[:500])
    return f"{path}: the JSON ends too early: the file is truncated"


@pytest.mark.parametrize("damage", [_no_picture, _scaled_picture, _damaged_picture, _no_file, _cut_file])
def test_damaged_sets(
    cli: Cli, tiny_bundle: Path, tmp_path: Path, options: list[Any], damage: Callable[[Path], str]
) -> None:
    expected = damage(tmp_path)
    assert cli("eval", tiny_bundle, *options).mistake[0] == expected


def test_files_of_the_user(cli: Cli, tiny_bundle: Path, tmp_path: Path, smpl: Path, options: list[Any]) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "SMPL_NEUTRAL.npz").symlink_to(smpl / "SMPL_NEUTRAL.npz")
    assert cli("eval", tiny_bundle, *options, "--smpl", other).mistake == (
        f"{other}: no female SMPL file in this folder (looked for SMPL_FEMALE.pkl and its like)",
        "get SMPL from https://smpl.is.tue.mpg.de and put its neutral, male and female files into one folder",
    )
    np.save(tmp_path / "rows.npy", np.zeros((24, 6890)))
    assert cli("eval", tiny_bundle, *options, "--h36m-regressor", tmp_path / "rows.npy").mistake == (
        f"{tmp_path}/rows.npy: the regressor is float64 (24, 6890), expected floats (17, 6890)",
        "give the published J_regressor_h36m_correct.npy, (17, 6890)",
    )


@pytest.mark.parametrize(
    ("arguments", "cause", "remedy"),
    [
        (
            ("--protocol", "3dpw-oc"),
            "--protocol 3dpw-oc needs --root",
            "give the folder that holds the data sets, laid out as in docs/datasets.md",
        ),
        (
            ("--protocol", "3doh", "--root", "a", "--smpl", "b"),
            "--protocol 3doh needs --h36m-regressor",
            "give the published J_regressor_h36m_correct.npy, (17, 6890)",
        ),
        (
            ("--protocol", "3dpw", "--root", "a", "--h36m-regressor", "b"),
            "--protocol 3dpw needs --smpl",
            "get SMPL from https://smpl.is.tue.mpg.de and give the folder of its neutral, male and female files",
        ),
        (("--protocol", "3dpw", "--pixels"), "--protocol 3dpw does not use --pixels", "leave one of them out"),
        (("--protocol", "3dpw", "--scenes", 9), "--protocol 3dpw does not use --scenes", "leave one of them out"),
        (("--root", "a"), "--protocol synthetic does not use --root", "leave one of them out"),
        (("--smpl", "a"), "--protocol synthetic does not use --smpl", "leave one of them out"),
    ],
)
def test_options(cli: Cli, tiny_bundle: Path, arguments: tuple[Any, ...], cause: str, remedy: str) -> None:
    assert cli("eval", tiny_bundle, *arguments).mistake == (cause, remedy)


def test_a_set_without_a_published_row(
    cli: Cli, tiny_bundle: Path, options: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(PUBLISHED, "3dpw")
    outcome = cli("eval", tiny_bundle, *options)
    assert outcome.code == 0, outcome.err
    text = " ".join(outcome.out.split())
    assert "the paper," not in text
    assert "7 of 7 " in text
    assert "arXiv 2307.16377 has no row for this set" in text
    found = json.loads(cli("eval", tiny_bundle, *options, "--json").out)
    assert (found["published"], found["everybody"]["people"]) == (None, 7)
