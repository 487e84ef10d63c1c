"""Skinning without PyTorch: equal to the recorded one and to PyTorch's, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_case import body, load, standin
from numpy.testing import assert_allclose, assert_array_equal

from jotr_deploy.body.lbs import SkinnedBody
from jotr_deploy.body.numpy_skinning import PosedBody
from jotr_deploy.body.smpl import BodyModel, stand_in

SEED = "jotr-golden-A/"


def test_the_recorded_skinning() -> None:
    recorded = load("geometry")
    pose, betas, trans = (recorded[f"smpl/{name}"] for name in ("pose", "beta", "trans"))
    vertices = PosedBody(body(SEED))(pose.reshape(-1, 24, 3), betas) + trans[:, None]
    assert_allclose(vertices[:, standin.MESH_IDS], recorded["smpl/verts_512"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("model", [body(SEED), stand_in()], ids=["with pose directions", "stand-in"])
@pytest.mark.parametrize("people", [0, 1, 3])
def test_equals_pytorch(model: BodyModel, people: int, rng: np.random.Generator) -> None:
    pose, betas = rng.normal(0, 0.6, (people, 24, 3)), rng.normal(size=(people, 10))
    found = PosedBody(model)(pose, betas)
    assert found.shape == (people, 6890, 3)
    with torch.inference_mode():
        expected, _ = SkinnedBody(model)(torch.tensor(pose, dtype=torch.float32), torch.tensor(betas).float())
    assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_by_hand() -> None:
    """Nothing bent is the template; a turned root turns it about the root joint."""
    model = stand_in()
    posed, rest = PosedBody(model), np.zeros((1, 24, 3))
    assert_allclose(posed(rest, np.zeros((1, 10)))[0], model.v_template, atol=1e-6)
    turned = rest.copy()
    turned[0, 0, 1] = np.pi  # about y: x and z change sign about the root joint
    root_m = model.J_regressor[0] @ model.v_template
    expected = (model.v_template - root_m) * (-1, 1, -1) + root_m
    assert_allclose(posed(turned, np.zeros((1, 10)))[0], expected, atol=1e-5)


def test_people_do_not_depend_on_each_other(rng: np.random.Generator) -> None:
    posed = PosedBody(stand_in())
    pose, betas = rng.normal(0, 0.6, (3, 24, 3)), rng.normal(size=(3, 10))
    assert_array_equal(posed(pose, betas)[1:2], posed(pose[1:2], betas[1:2]))
