"""Every rewrite is the same function: each against the plain network, on the published weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from golden_case import case, network
from tiny import TINY

from jotr_deploy.engines.verify import difference, random_crops
from jotr_deploy.export.fused import (
    flatten_body,
    fold_decoder,
    fold_encoders,
    fold_norms,
    fuse,
    merge_heads,
    merge_lifting,
)
from jotr_deploy.model.initialise import initialise
from jotr_deploy.model.jotr import JOTR
from jotr_deploy.support.precisions import LIMITS, Precision

pytestmark = pytest.mark.slow

SEED = "jotr-golden-A/"


@pytest.mark.parametrize(
    "rewrite", [fold_norms, merge_lifting, fold_encoders, fold_decoder, merge_heads, flatten_body, fuse]
)
def test_a_rewrite_changes_nothing(rewrite: Callable[[JOTR], JOTR]) -> None:
    plain = network(SEED)
    rewritten = rewrite(plain)
    inputs, _, _ = case("case_002")  # joints outside the crop, a black image, a person without joints
    feeds = (inputs["img"], inputs["joints"][..., :2], inputs["joints_mask"][..., 0])
    with torch.inference_mode():
        expected, found = plain(*feeds), rewritten(*feeds)
    for name in expected._fields:
        gap = difference(name, getattr(expected, name).numpy(), getattr(found, name).numpy())
        assert gap.max() <= LIMITS[Precision.FP32][name][1], name


def test_the_plain_network_is_left_alone() -> None:
    plain = network(SEED)
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    fuse(plain)
    assert plain.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in plain.state_dict().items())


def test_gradients_reach_the_plain_weights_as_if_nothing_had_been_fused() -> None:
    plain = JOTR(TINY, None).eval()
    initialise(plain, 0).requires_grad_(True)
    feeds = [torch.from_numpy(feed) for feed in random_crops(TINY, 2).values()]
    found = {}
    for name, form in (("plain", plain), ("fused", fuse(plain))):
        plain.zero_grad()
        sum((value**2).sum() for value in form(*feeds)).backward()  # type: ignore[union-attr]
        found[name] = {key: weight.grad for key, weight in plain.named_parameters()}
    for key, expected in found["plain"].items():
        assert found["fused"][key] is not None, key
        torch.testing.assert_close(
            found["fused"][key], expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()), msg=key
        )


def test_the_last_sampling_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    fused = fuse(network(SEED))
    calls = []
    sample = fused.fusion.decoder.sample
    monkeypatch.setattr(fused.fusion.decoder, "sample", lambda *args: calls.append(1) or sample(*args))
    inputs, _, _ = case("case_000")
    with torch.inference_mode():
        fused(inputs["img"], inputs["joints"][..., :2], inputs["joints_mask"][..., 0])
    assert len(calls) == 3
