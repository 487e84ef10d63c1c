"""The joints without the mesh are those of the mesh."""

from __future__ import annotations

import pytest
import torch
from golden_case import body as golden_body

from jotr_deploy.body.joint_regression import JointsBody
from jotr_deploy.body.lbs import SkinnedBody
from jotr_deploy.body.smpl import BodyModel, stand_in


@pytest.mark.parametrize(
    ("body", "poses"),
    [(stand_in(), True), (golden_body("jotr-golden-A/"), True), (stand_in(), False)],
    ids=["no pose directions", "pose directions", "rest pose"],
)
def test_equal_to_the_whole_body(body: BodyModel, poses: bool) -> None:
    plain = SkinnedBody(body)
    random = torch.Generator().manual_seed(0)
    pose = torch.randn(5, 24, 3, generator=random) * poses
    betas = 2 * torch.randn(5, 10, generator=random)
    expected = plain(pose, betas)[1]
    torch.testing.assert_close(JointsBody(plain)(pose, betas), expected, atol=1e-5, rtol=0)
    assert expected.abs().max() > 0.5


def test_gradients_are_those_of_the_whole_body() -> None:
    plain = SkinnedBody(golden_body("jotr-golden-A/"))
    random = torch.Generator().manual_seed(1)
    inputs = (torch.randn(2, 24, 3, generator=random), torch.randn(2, 10, generator=random))
    weight = torch.randn(2, 30, 3, generator=random)
    inputs = tuple(value.requires_grad_() for value in inputs)
    expected = torch.autograd.grad((plain(*inputs)[1] * weight).sum(), inputs)
    found = torch.autograd.grad((JointsBody(plain)(*inputs) * weight).sum(), inputs)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_nobody() -> None:
    assert JointsBody(SkinnedBody(stand_in()))(torch.zeros(0, 24, 3), torch.zeros(0, 10)).shape == (0, 30, 3)
