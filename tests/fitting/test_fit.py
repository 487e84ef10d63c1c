"""A fit comes nearer to the truth, leaves alone what it cannot improve, and gives everybody their own result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor
from toy_scene import CHANNELS, SIDE, Box, disturbed, features, joint_error_mm, people, seen, volume

from jotr_deploy.body.vposer import VPoserDecoder
from jotr_deploy.errors import FitError, JotrDeployError
from jotr_deploy.fitting import fit as fitting
from jotr_deploy.fitting.bank import Features
from jotr_deploy.fitting.energy import Scene
from jotr_deploy.fitting.fit import Bodies, FitResult, fit, people_at_once
from jotr_deploy.fitting.hypotheses import mirrored_in_depth
from jotr_deploy.fitting.latent import latent_of
from jotr_deploy.fitting.objectives import Objective
from jotr_deploy.fitting.options import PRESETS, FitOptions, Stage, Weights, preset
from jotr_deploy.fitting.rays import GridCamera
from jotr_deploy.fitting.stiffness import scales

SHORT = (Stage(10, ("root", "translation")), Stage(20, ("root", "body")))
QUICK = FitOptions(stages=SHORT, mirror="none")
DOUBTING = replace(QUICK, least_agreement=0.6)


@cache
def scene(count: int = 3) -> tuple[Bodies, Bodies, Tensor]:
    true = people(count)
    return true, disturbed(true), seen(true, features())


@cache
def whole(objective: Objective = "mixture", box: Box | None = None) -> tuple[Bodies, Bodies, FitResult]:
    """Half the steps of both stages, without any prior: the features alone."""
    true, start, _ = scene()
    stages = (Stage(20, ("root", "translation")), Stage(40, ("root", "body")))
    options = FitOptions(mirror="none", objective=objective, weights=Weights(hinge=0, anchor=0), stages=stages)
    return true, start, fit(seen(true, features(), box=box), start, volume(), features(), options)


def same(one: FitResult, two: FitResult) -> bool:
    pairs = [(getattr(one.bodies, n), getattr(two.bodies, n)) for n in ("pose_rad", "betas", "translation_m")]
    pairs += [(getattr(one, n), getattr(two, n)) for n in ("energy_before", "energy_after", "accepted", "occlusion")]
    return all(torch.equal(a, b) for a, b in pairs)


def exact(bodies: Bodies) -> Bodies:
    return Bodies(bodies.pose_rad.double(), bodies.betas.double(), bodies.translation_m.double())


def fitting_scene(shown: Tensor) -> Scene:
    return Scene(shown, volume(), features(), GridCamera.of_crop(SIDE), DOUBTING)


def vertices_mm(bodies: Bodies) -> Tensor:
    centres = volume()(bodies.pose_rad.double(), bodies.betas.double()).centres_m
    return 1000 * (centres + bodies.translation_m[:, None].double())


def test_the_fit_comes_back_nearer_to_the_pose_that_was_drawn() -> None:
    true, start, found = whole()
    before, _ = joint_error_mm(start, true)
    after, _ = joint_error_mm(found.bodies, true)
    assert found.accepted.all()
    assert (found.energy_after < found.energy_before).all()
    assert float(after.mean() / before.mean()) <= 0.6
    assert (after.mean(1) < before.mean(1)).all()


def test_what_stands_before_the_body_is_found_and_moves_nothing_that_is_seen() -> None:
    """A box over the trunk: its cells are hidden, the others are not, and the joints that are seen come nearer.

    Without a model of what hides it, the body flees from the box.
    """
    box = Box(14, 14, 12)
    true, start, found = whole("mixture", box)
    covered = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    covered[box.row : box.row + box.side, box.column : box.column + box.side] = True
    share_inside, share_outside = (found.occlusion[:, cells].float().mean() for cells in (covered, ~covered))
    assert float(share_inside) > 4 * float(share_outside)
    joints = volume().joints(true.pose_rad.double(), true.betas.double()) + true.translation_m[:, None].double()
    cells = GridCamera.of_crop(SIDE).project(joints)[:, :20].long().clamp(0, SIDE - 1)
    visible = ~covered[cells[..., 1], cells[..., 0]]
    before, after, masked = (
        joint_error_mm(bodies, true)[0] for bodies in (start, found.bodies, whole("masked", box)[2].bodies)
    )
    assert float(after[visible].mean() / before[visible].mean()) <= 0.7
    assert masked[~visible].mean() > 2 * after[~visible].mean()
    assert masked[visible].mean() > 1.5 * after[visible].mean()


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_lowers_the_energy(name: str) -> None:
    _, start, picture = scene()
    options = replace(preset(name), stages=(Stage(4, ("root", "translation")), Stage(6, ("root", "body"))))
    found = fit(picture, start, volume(), features(), options)
    assert found.accepted.all()
    assert (found.energy_after < found.energy_before).all()
    assert found.occlusion.shape == (3, SIDE, SIDE)


def test_the_settings_of_the_presets() -> None:
    """Those of the release, as published, and this project's own."""
    natural, attacked, default = (PRESETS[n] for n in ("release_natural", "release_advocc", "default"))
    assert (natural.objective, natural.rate, natural.mirror) == ("masked", 0.002, "candidate")
    assert (attacked.objective, attacked.rate, attacked.mirror) == ("softmax", 0.02, "fitted")
    assert (default.objective, default.stiffness, default.mirror) == ("mixture", "by_joint", "none")
    for options in (natural, attacked):
        assert (options.rendering, options.q_max, options.per_ray) == ("release", 23.03, 10)
        assert (options.stiffness, options.precision, options.least_agreement) == ("equal", None, -1.0)
        assert [(s.iterations, s.free) for s in options.stages] == [
            (40, ("root", "translation")),
            (80, ("root", "body")),
        ]
    with pytest.raises(JotrDeployError, match="--fit: 'best' is not known"):
        preset("best")


def test_stages_move_what_they_free() -> None:
    _, start, picture = scene()
    for free, moved in ((("translation",), "translation_m"), (("root",), "pose_rad")):
        found = fit(picture, start, volume(), features(), replace(QUICK, stages=(Stage(5, free),))).bodies
        assert torch.equal(found.pose_rad[:, 1:], start.pose_rad[:, 1:])
        assert torch.equal(found.betas, start.betas)
        for name in ("translation_m", "pose_rad"):
            assert torch.equal(getattr(found, name), getattr(start, name)) == (name != moved)


def test_wrists_and_hands_are_kept() -> None:
    _, start, picture = scene()
    pose = start.pose_rad.clone()
    pose[:, 20:] = 0.3
    found = fit(picture, replace(start, pose_rad=pose), volume(), features(), QUICK)
    assert torch.equal(found.bodies.pose_rad[:, 20:], pose[:, 20:])
    assert torch.equal(found.energy_before, fit(picture, start, volume(), features(), QUICK).energy_before)


def test_a_batch_is_its_people_one_by_one() -> None:
    _, start, picture = scene()
    together = fit(picture, start, volume(), features(), QUICK)
    for person in range(3):
        one = slice(person, person + 1)
        alone = fit(picture[one], start[one], volume(), features(), QUICK)
        assert (vertices_mm(together.bodies[one]) - vertices_mm(alone.bodies)).abs().max() < 0.5


def test_the_same_result_every_time_and_in_groups_that_fit_in_the_memory() -> None:
    _, start, picture = scene()
    together = fit(picture, start, volume(), features(), QUICK)
    assert same(together, fit(picture, start, volume(), features(), QUICK))
    groups = fit(picture, start, volume(), features(), QUICK, memory_bytes=1)
    assert (vertices_mm(together.bodies) - vertices_mm(groups.bodies)).abs().max() < 0.5
    assert groups.occlusion.shape == together.occlusion.shape
    assert {name: len(values) for name, values in groups.terms_after.items()} == dict.fromkeys(
        ("features", "joints", "hinge", "shape", "anchor"), 3
    )


def test_fewer_people_at_once_in_less_memory() -> None:
    counts = [people_at_once(64, features(), PRESETS["default"], memory) for memory in (0, 1 << 28, 1 << 30)]
    assert counts[0] == 1
    assert 1 <= counts[1] < counts[2]


@pytest.mark.parametrize("mirror", ["fitted", "candidate"])
def test_a_start_that_is_mirrored_in_depth_is_turned_back(mirror: str) -> None:
    """The truth is bent forward; the start is its mirror image, which looks the same but for the orientation bins."""
    true = people(2)
    true.pose_rad[:, [1, 2], 0] -= 0.9
    true.pose_rad[:, [4, 5], 0] += 0.9
    start = replace(true, pose_rad=mirrored_in_depth(true.pose_rad.double()).float())
    options = replace(QUICK, mirror=mirror, stages=(Stage(2, ("root", "translation")),))
    found = fit(seen(true, features()), start, volume(), features(), options)
    assert found.mirrored.all()
    _, before = joint_error_mm(start, true)
    _, after = joint_error_mm(found.bodies, true)
    assert float(after.mean() / before.mean()) < 0.3
    none = fit(seen(true, features()), start, volume(), features(), replace(options, mirror="none"))
    assert not none.mirrored.any()


def test_joints_pull_towards_where_they_are() -> None:
    """With features that say nothing, the joints alone bring the body back in the image plane."""
    true, start, _ = scene()
    points = volume().joints(true.pose_rad.double(), true.betas.double()) + true.translation_m[:, None].double()
    cells = GridCamera.of_crop(SIDE).project(points)
    joints = torch.cat([cells, torch.ones(3, 30, 1)], -1).float()
    grey = torch.ones(3, CHANNELS, SIDE, SIDE)
    found = fit(grey, start, volume(), features(), QUICK, joints=joints)
    assert (found.terms_after["joints"] < 0.5 * found.terms_before["joints"]).all()


def unchanged(found: FitResult, start: Bodies) -> bool:
    return not found.accepted.any() and all(
        torch.equal(getattr(found.bodies, name), getattr(start, name))
        for name in ("pose_rad", "betas", "translation_m")
    )


def test_what_cannot_be_improved_is_returned_to_the_bit() -> None:
    """Nothing moves where nothing is free to; the energy is told all the same."""
    _, start, picture = scene()
    found = fit(picture, start, volume(), features(), replace(QUICK, stages=()))
    assert unchanged(found, start)
    assert torch.equal(found.energy_before, found.energy_after)
    assert torch.isfinite(found.energy_before).all()


def test_a_start_that_features_contradict_is_left_alone_and_disturbs_nobody() -> None:
    """Somebody before a picture that stands on its head agrees with it little; somebody who is hidden, not at all."""
    _, start, picture = scene()
    clutter = features().clutter[0][:, None, None].expand(-1, SIDE, SIDE)
    shown = torch.stack([picture[0], picture[1].flip(-2), clutter])
    agreement = fitting.Descent(fitting_scene(shown), exact(start), DOUBTING, None, lambda: None).agreement()
    assert agreement[0] > 0.6 > agreement[1]
    assert agreement[2] == -1
    found = fit(shown, start, volume(), features(), DOUBTING)
    assert found.accepted.tolist() == [True, False, False]
    assert torch.equal(found.bodies.pose_rad[1:], start.pose_rad[1:])
    alone = fit(shown[:1], start[:1], volume(), features(), DOUBTING)
    torch.testing.assert_close(found.bodies.pose_rad[:1], alone.bodies.pose_rad, atol=1e-6, rtol=0)
    assert torch.equal(found.energy_before[1:], found.energy_after[1:])


def test_everybody_left_alone() -> None:
    _, start, picture = scene()
    found = fit(picture, start, volume(), features(), replace(DOUBTING, least_agreement=1.0))
    assert unchanged(found, start)


def test_stiff_joints_move_less() -> None:
    """By the same force, the spine moves less than the shoulders; where all are equal, it does not."""
    _, start, picture = scene()
    ratio = []
    for stiffness in ("equal", "by_joint"):
        options = replace(QUICK, stiffness=stiffness, weights=Weights(hinge=0, anchor=0))
        moved = (fit(picture, start, volume(), features(), options).bodies.pose_rad - start.pose_rad).abs()
        ratio.append(float(moved[:, [3, 6, 9]].mean() / moved[:, [16, 17]].mean()))
    assert ratio[1] < 0.3 < ratio[0]


def test_scales_of_the_joints() -> None:
    assert (scales("equal") == 1).all()
    found = scales("by_joint")
    assert found.shape == (20, 3)
    assert (found[1:] < 1).all()
    assert (found[1:] > 0).all()


def test_steps_that_only_raise_the_energy_are_not_taken() -> None:
    """From the truth with a rate that leaps away: the best is the start itself."""
    true, _, picture = scene()
    found = fit(picture, true, volume(), features(), replace(QUICK, rate=3.0, stages=(Stage(3, ("root",)),)))
    assert unchanged(found, true)


@pytest.mark.parametrize("fault", ["energy", "gradient"])
def test_numbers_that_are_not_finite_leave_that_person_alone(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of three meets NaN on the way: it is returned to the bit, the others as ever."""
    _, start, picture = scene()
    expected = fit(picture, start, volume(), features(), QUICK)
    plain, calls = fitting.hinges, [0]

    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, value: Tensor) -> Tensor:
            return value.clone()

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            return gradient * torch.tensor([1.0, float("nan"), 1.0])

    def faulty(pose_rad: Tensor) -> Tensor:
        calls[0] += 1
        if calls[0] != 16:  # in the second stage
            return plain(pose_rad)
        value = plain(pose_rad)
        return value * torch.tensor([1.0, float("nan"), 1.0]) if fault == "energy" else Broken.apply(value)

    monkeypatch.setattr(fitting, "hinges", faulty)
    found = fit(picture, start, volume(), features(), QUICK)
    assert calls[0] > 16
    assert found.accepted.tolist() == [True, False, True]
    assert unchanged(replace(found, accepted=found.accepted[1:2], bodies=found.bodies[slice(1, 2)]), start[slice(1, 2)])
    for person in (0, 2):
        assert torch.equal(found.bodies.pose_rad[person], expected.bodies.pose_rad[person])


def test_a_person_who_walks_through_the_camera_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    _, start, picture = scene()
    monkeypatch.setattr(fitting, "NEAREST_M", 46.0)
    monkeypatch.setattr(fitting, "_check", lambda *_: None)
    found = fit(picture, start, volume(), features(), QUICK)
    assert found.accepted.tolist() == (start.translation_m[:, 2] > 46).tolist()


@pytest.mark.parametrize("limit", [None, 0.5])
def test_a_shape_beyond_its_limit_becomes_the_mean_shape(limit: float | None) -> None:
    _, start, picture = scene()
    betas = start.betas.clamp(-0.4, 0.4)
    betas[1, 3] = 4.0
    options = replace(QUICK, largest_beta=limit)
    found = fit(picture, replace(start, betas=betas), volume(), features(), options)
    assert found.accepted[1]
    assert torch.equal(found.bodies.betas[[0, 2]], betas[[0, 2]])
    assert found.bodies.betas[1].any() == (limit is None)


def decoder(seed: int = 0) -> VPoserDecoder:
    """A pose prior of random weights, near which poses are small turns of every joint."""
    torch.manual_seed(seed)
    made = VPoserDecoder()
    with torch.no_grad():
        made.bodyprior_dec_out.weight *= 0.3
        made.bodyprior_dec_out.bias.copy_(torch.tensor([1.0, 0, 0, 1, 0, 0]).repeat(21))
    return made


def test_a_pose_of_the_prior_is_found_again_by_a_latent_no_longer_than_its_own() -> None:
    prior = decoder()
    latent = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    pose = torch.zeros(3, 24, 3)
    with torch.no_grad():
        pose[:, 1:22] = prior(latent)
        found = latent_of(prior, pose).float()
        torch.testing.assert_close(prior(found), pose[:, 1:22], atol=0.01, rtol=0)
    assert (found.norm(dim=1) < latent.norm(dim=1)).all()
    assert (found.norm(dim=1) > 0.8 * latent.norm(dim=1)).all()
    assert latent_of(prior, pose[:0]).shape == (0, 32)
    assert next(prior.parameters()).dtype == torch.float32  # the caller's own is left as it was


def test_with_a_prior_the_pose_that_is_found_is_one_of_its_own() -> None:
    prior, true = decoder(), people(2)
    latent = 2 * torch.randn(2, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        true.pose_rad[:, 1:22] = prior(latent)
        near = true.pose_rad.clone()
        near[:, 1:22] = prior(latent + 0.6 * torch.randn(2, 32, generator=torch.Generator().manual_seed(3)))
    start = replace(true, pose_rad=near)
    found = fit(seen(true, features()), start, volume(), features(), QUICK, prior=prior)
    assert found.accepted.all()
    assert "anchor" not in found.terms_after
    torch.testing.assert_close(found.terms_before["latent"] > 0, torch.ones(2, dtype=torch.bool))
    free = fit(seen(true, features()), start, volume(), features(), QUICK)
    assert from_prior(prior, found.bodies) < 0.1 * from_prior(prior, free.bodies)


def from_prior(prior: VPoserDecoder, bodies: Bodies) -> float:
    """The largest angle, about, between a pose and the nearest of the prior; wrists and hands left out."""
    with torch.no_grad():
        nearest = prior(latent_of(prior, bodies.pose_rad).float())
    return float((nearest[:, :19] - bodies.pose_rad[:, 1:20]).abs().max())


def test_nobody_is_an_ordinary_result() -> None:
    none, steps = people(0), []
    found = fit(
        torch.zeros(0, CHANNELS, SIDE, SIDE), none, volume(), features(), PRESETS["default"],
        told=lambda done, total: steps.append(done),
    )  # fmt: skip
    assert steps == []  # frames of a film that show nobody cost nothing
    assert found.bodies.pose_rad.shape == (0, 24, 3)
    assert found.accepted.shape == (0,)
    assert found.occlusion.shape == (0, SIDE, SIDE)
    assert found.terms_after["features"].shape == (0,)


Given = dict[str, object]


def spoilt(name: str, value: float) -> Callable[[Given], Given]:
    def spoil(given: Given) -> Given:
        tensor = getattr(given["start"], name).clone()
        tensor[1].view(-1)[2] = value
        return {**given, "start": replace(given["start"], **{name: tensor})}

    return spoil


def with_nan(given: Given) -> Given:
    picture = given["seen"].clone()
    picture[[0, 2], 1, 3, 3] = torch.nan
    return {**given, "seen": picture}


def outside(given: Given) -> Given:
    inside = torch.ones(3, SIDE, SIDE, dtype=torch.bool)
    inside[2] = False
    return {**given, "inside": inside}


BAD: dict[str, tuple[Callable[[Given], Given], str]] = {
    "NaN features": (with_nan, r"features: NaN or infinity of person 0, 2 \(counted from 0\)\ngive finite numbers"),
    "NaN pose": (spoilt("pose_rad", torch.nan), "pose: NaN or infinity of person 1"),
    "infinite shape": (spoilt("betas", torch.inf), "shape: NaN or infinity of person 1"),
    "behind the camera": (spoilt("translation_m", -3.0), "the body is not in front of the camera of person 1"),
    "partly behind it": (spoilt("translation_m", 0.1), "the body is not in front of the camera of person 1"),
    "crop outside": (outside, "the crop lies wholly outside the picture of person 2.*\nleave them out of the fit"),
    "NaN joints": (lambda g: {**g, "joints": torch.full((3, 30, 3), torch.nan)}, "joints: NaN or infinity of person 0"),
    "joints of another set": (lambda g: {**g, "joints": torch.zeros(3, 17, 3)}, r"joints: \(3, 17, 3\), expected"),
    "one person too few": (
        lambda g: {**g, "start": people(2)},
        r"features: \(3, 16, 40, 40\), expected \(2, 16, 40, 40",
    ),
    "no square": (
        lambda g: {**g, "seen": torch.zeros(3, CHANNELS, 30, SIDE)},
        r"features: \(3, 16, 30, 40\), expected",
    ),
    "another bank": (
        lambda g: {**g, "features": Features(features().kernels[:-1], features().clutter)},
        r"the feature bank is \(219, 3, 16\) for 220 kernels",
    ),
    "another extractor": (lambda g: {**g, "seen": torch.zeros(3, 8, SIDE, SIDE)}, "16 channels, the feature map 8"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case: str) -> None:
    _, start, picture = scene()
    change, words = BAD[case]
    given = change({"seen": picture, "start": start, "features": features()})
    with pytest.raises(FitError, match=words):
        fit(volume=volume(), options=QUICK, **given)
