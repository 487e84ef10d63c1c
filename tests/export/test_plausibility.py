"""A network whose weights, body, regressor or pose prior is the wrong one is told by the people it recovers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from jotr_deploy.bundle import open_bundle, starter_path
from jotr_deploy.export.plausibility import Plausibility, plausibility
from jotr_deploy.runtime.sessions import open_session

pytestmark = pytest.mark.slow

Change = Callable[[Any], Any]
WELL = Plausibility(0.02, 1.7, 1.55, 0.2, 0.3, 40.0)


STARTER_PATH = starter_path()


def tried(path: Path, bundle: Path = STARTER_PATH) -> Plausibility:
    """Find out about a network with the configuration of this bundle."""
    with open_session(path, device="cpu") as session:
        return plausibility(session, open_bundle(bundle).manifest.model)


def changed(folder: Path, changes: dict[str, Change]) -> Path:
    """The starter's network with some of its weights changed, by the beginnings of their names."""
    model = onnx.load(starter_path() / "mesh.onnx")
    left = set(changes)
    for tensor in model.graph.initializer:
        for name, change in changes.items():
            if tensor.name.startswith(name):
                values = numpy_helper.to_array(tensor)
                tensor.CopyFrom(
                    numpy_helper.from_array(np.ascontiguousarray(change(values), values.dtype), tensor.name)
                )
                left.discard(name)
    assert not left
    onnx.save(model, folder / "mesh.onnx")
    return folder / "mesh.onnx"


def shuffled(values: Any, axis: int) -> Any:
    return np.random.default_rng(0).permuted(values, axis=axis)


def mixed(rows: slice = slice(None), axis: int = 0) -> Change:
    """Whole rows or columns in another order."""

    def change(values: Any) -> Any:
        order = np.arange(values.shape[axis])
        order[rows] = np.random.default_rng(0).permutation(order[rows])
        return np.take(values, order, axis)

    return change


def test_the_starter_passes() -> None:
    found = tried(starter_path() / "mesh.onnx")
    assert found.notes(stand_in=True) == found.notes(stand_in=False) == []
    assert found.joints_share < 0.03
    assert found.pose_mm is not None
    assert found.pose_mm < 60


def test_a_network_with_random_weights_looks_untrained(tiny_bundle: Path) -> None:
    (note,) = tried(tiny_bundle / "mesh.onnx", tiny_bundle).notes(stand_in=True)
    assert note.startswith("the network looks untrained: in the picture inside this package its joints are ")


@pytest.mark.parametrize("stand_in", [True, False])
@pytest.mark.parametrize(
    ("changes", "begins"),
    [
        pytest.param({"vposer.bodyprior_dec_fc1.weight": mixed(axis=1)},
                     "pose prior or body looks like the wrong one: ", id="another pose prior"),
        pytest.param({"vposer.bodyprior_dec_out.weight": lambda w: shuffled(w, 0)}, "", id="a pose prior of noise"),
        pytest.param({"body.regressor_30": mixed(slice(0, 24), 1)}, "body or regressor looks like the wrong one: ",
                     id="joints in another order"),
        pytest.param({"body.regressor_30": mixed()}, "body or regressor looks like the wrong one: ",
                     id="regressor of another mesh"),
        pytest.param({"body.regressor_30": lambda r: np.c_[r[:, :29], r[:, 7]]}, "", id="another extra regressor"),
        pytest.param({"body.template": lambda v: 100 * v}, "the body looks like the wrong one: ", id="centimetres"),
        pytest.param({"body.template": lambda v: mixed()(v.reshape(-1, 3)).ravel()}, "",
                     id="vertices in another order"),
        pytest.param({"body.template": lambda v: v.reshape(-1, 3)[:, [0, 2, 1]].ravel()},
                     "pose prior or body looks like the wrong one: ", id="z up"),
    ],
)  # fmt: skip
def test_a_wrong_part_is_told_from_an_untrained_network(
    tmp_path: Path, changes: dict[str, Change], begins: str, stand_in: bool
) -> None:
    (note,) = tried(changed(tmp_path, changes)).notes(stand_in)
    assert note.startswith(begins)
    assert "looks like the wrong one: the network finds the joints in the picture inside this package, but" in note
    assert "give --" in note


@pytest.mark.parametrize(
    ("values", "begins"),
    [
        ({"joints_share": np.nan}, "the network looks untrained"),
        ({"joints_share": 0.5, "mesh_m": 100.0}, "the network looks untrained"),
        ({"mesh_m": 0.0}, "the body looks"),
        ({"tall_m": np.inf}, "body or regressor looks"),
        ({"head_m": 1.6}, "the extra regressor looks"),
        ({"trunk_rad": 1.6}, "body or pose prior looks"),
        ({"pose_mm": np.nan}, "pose prior or body looks"),
    ],
)  # fmt: skip
def test_the_gravest_fault_is_said(values: dict[str, float], begins: str) -> None:
    (note,) = replace(WELL, **values).notes(stand_in=True)
    assert note.startswith(begins)


def test_without_a_body_only_the_weights_are_judged() -> None:
    assert Plausibility(0.02).notes(stand_in=False) == []
    assert len(Plausibility(0.5).notes(stand_in=False)) == 1
