"""People of annotated sets under patches: where their joints are, who is attacked, what cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_network import SIDE, FakeNetwork
from miniature import KNOWN, write_miniature
from numpy.testing import assert_allclose

from jotr_deploy.body.smpl import stand_in
from jotr_deploy.bundle import Bundle, FileEntry, Manifest
from jotr_deploy.config import ModelConfig
from jotr_deploy.datasets.published.annotation import Annotation, Camera, Fit
from jotr_deploy.errors import JotrDeployError
from jotr_deploy.evaluation.mesh_files import OpenFile, OpenFiles
from jotr_deploy.evaluation.occlusion import OcclusionOptions
from jotr_deploy.evaluation.published import protocol as protocols
from jotr_deploy.evaluation.published.protocol import SetOptions, evaluate_set
from jotr_deploy.evaluation.published.set_result import SetEvaluation
from jotr_deploy.evaluation.published.true_bodies import TrueBodies

PATCHES = OcclusionOptions(sizes=(80,), stride=60)  # 4 x 4 places


def attacked(
    name: str,
    root: Path,
    smpl: Path,
    regressor: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: OcclusionOptions | None,
    **more: Any,
) -> SetEvaluation:
    """The evaluation of a network that takes everybody for a point."""
    network: Any = FakeNetwork(np.zeros((400, 30, 3)), np.zeros((400, 6890, 3)))
    network.session = SimpleNamespace(device="cpu")
    file = OpenFile(FileEntry(role="mesh", name="mesh.onnx", sha256="", precision="fp32"), network)

    @contextmanager
    def opened(*_: object) -> Iterator[OpenFiles]:
        yield OpenFiles(file, None, (), {})

    monkeypatch.setattr(protocols, "open_files", opened)
    write_miniature(name, root)
    bundle = Bundle(Path("b"), Manifest.model_construct(model=ModelConfig(), labels=(), files=()))
    return evaluate_set(bundle, SetOptions(name, root, regressor, smpl, seed=0, occlusion=options, **more))


def test_everybody_is_attacked(
    tmp_path: Path, smpl: Path, h36m_regressor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = attacked("3dpw", tmp_path, smpl, h36m_regressor, monkeypatch, PATCHES)
    found = result.occlusion
    assert found is not None
    keys = [person.key for person in KNOWN["3dpw", "test"]]
    assert found.people == len(keys)
    assert [place.person for place in found.worst] == keys
    (row,) = found.sizes[0].files
    assert (found.sizes[0].side_px, found.sizes[0].places_each_way) == (round(80 * SIDE / 224), 4)
    assert row.worst.mpjpe_mm is not None
    assert row.clean.mpjpe_mm is not None
    assert row.worst.mpjpe_mm >= row.clean.mpjpe_mm > 0
    assert row.clean.pve_mm == result.everybody.pve_mm


def test_one_picture_of_so_many(
    tmp_path: Path, smpl: Path, h36m_regressor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = attacked("3dpw", tmp_path, smpl, h36m_regressor, monkeypatch, replace(PATCHES, every=3))
    images = list(dict.fromkeys(person.image for person in KNOWN["3dpw", "test"]))
    keys = [person.key for person in KNOWN["3dpw", "test"] if person.image in images[::3]]
    assert result.occlusion is not None
    assert [place.person for place in result.occlusion.worst] == keys
    assert len(keys) < result.everybody.people
    assert result.occlusion.protocol.attacked.endswith("one picture of 3")


def test_a_set_without_cameras(
    tmp_path: Path, smpl: Path, h36m_regressor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(JotrDeployError) as refused:
        attacked("3doh", tmp_path, smpl, h36m_regressor, monkeypatch, PATCHES)
    assert "has no camera parameters, so joints cannot be projected into its pictures" in refused.value.cause
    assert refused.value.remedy == "leave --occlusion out, or measure the people of another protocol"


def test_where_joints_are_in_the_picture(smpl: Path) -> None:
    camera = Camera((300.0, 200.0), (5.0, 6.0))

    def somebody(z_m: float) -> Annotation:
        fit = Fit(np.zeros((24, 3)), np.zeros(10), np.array([0.5, -0.25, z_m]))
        return Annotation("a", Path("a"), (9, 9), np.zeros(4), np.zeros((30, 3)), fit=fit, camera=camera)

    before, behind = TrueBodies(smpl, ["neutral"]).joints_px([somebody(4.0), somebody(-4.0)])
    joints_m = stand_in().regressor_30() @ stand_in().v_template + np.array([0.5, -0.25, 4.0])
    expected = joints_m[:, :2] / joints_m[:, 2:] * (300, 200) + (5, 6)
    assert_allclose(before, expected, atol=0.05)
    assert np.isnan(behind).all()
    assert TrueBodies(smpl, ["neutral"]).joints_px([]).shape == (0, 30, 2)


def test_joints_of_other_rows_in_the_picture(smpl: Path) -> None:
    """Rows that take a vertex give its place."""
    fit = Fit(np.zeros((24, 3)), np.zeros(10), np.array([0.5, -0.25, 4.0]))
    person = Annotation(
        "a", Path("a"), (9, 9), np.zeros(4), np.zeros((30, 3)), fit=fit, camera=Camera((300.0, 200.0), (5.0, 6.0))
    )
    rows = np.zeros((2, 6890))
    rows[0, 7] = rows[1, 4000] = 1
    found = TrueBodies(smpl, ["neutral"]).joints_px([person], rows)
    vertices_m = stand_in().v_template[[7, 4000]] + np.array([0.5, -0.25, 4.0])
    assert_allclose(found[0], vertices_m[:, :2] / vertices_m[:, 2:] * (300, 200) + (5, 6), atol=0.5)


def test_visible_joints_of_a_set(
    tmp_path: Path, smpl: Path, h36m_regressor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set says of no joint that something hides it: those in the crop are visible."""
    result = attacked("3dpw", tmp_path, smpl, h36m_regressor, monkeypatch, PATCHES, visible_joints=True)
    found = result.visible_joints
    assert found is not None
    people = result.everybody.people
    assert (found.all.people, found.all.joints) == (people, 14 * people)
    assert found.all.mpjpe_mm == result.everybody.mpjpe_mm
    assert 0 < found.visible.joints <= found.all.joints
    assert result.occlusion is not None
    under_attack = result.occlusion.sizes[0].files[0].visible_joints
    assert under_attack is not None
    assert under_attack.clean.visible.joints == found.visible.joints
    assert under_attack.worst.visible.joints < found.visible.joints
    assert str(result.protocol.visible_joints).startswith("in the crop, ")


def test_visible_joints_need_cameras(
    tmp_path: Path, smpl: Path, h36m_regressor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(JotrDeployError) as refused:
        attacked("3doh", tmp_path, smpl, h36m_regressor, monkeypatch, None, visible_joints=True)
    assert refused.value.remedy == "leave --visible-joints out, or measure the people of another protocol"
