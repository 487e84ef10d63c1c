"""Each term of the energy says what its formula says."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from toy_scene import SIDE, disturbed, features, people, seen, volume

from jotr_deploy.fitting.bank import Features
from jotr_deploy.fitting.energy import Scene, hinges, robust, total
from jotr_deploy.fitting.fit import Bodies
from jotr_deploy.fitting.kernel_selection import select
from jotr_deploy.fitting.objectives import Objective, cell_loss, hidden
from jotr_deploy.fitting.options import PRESETS, FitOptions, Weights
from jotr_deploy.fitting.rays import GridCamera
from jotr_deploy.fitting.rendering import slot_weights
from jotr_deploy.skeletons import MEASURED_IN_SMPL30, SMPL30_INDEX

OBJECTIVES = ("masked", "softmax", "hardmax", "mixture")


def by_hand(objective: str, s: float, c: float, m: bool) -> float:
    if objective == "masked":
        return 1 - (s if m else c)
    if objective == "hardmax":
        return 1 - (max(s, c) if m else c)
    if objective == "mixture":
        return -math.log((math.exp(10 * s) + math.exp(10 * c)) / 2) / 10 if m else -c
    s, c = (1 + s) / 2, (1 + c) / 2
    share = math.exp(s / 0.1) / (math.exp(s / 0.1) + math.exp(c / 0.1))
    return 1 - (share * s + (1 - share) * c)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(("s", "c"), [(0.8, 0.1), (-0.3, 0.6), (0.0, 0.0), (1.0, 1.0)])
@pytest.mark.parametrize("m", [True, False])
def test_the_loss_of_a_cell(objective: Objective, s: float, c: float, m: bool) -> None:
    found = cell_loss(objective, *(torch.tensor([x], dtype=torch.float64) for x in (s, c)), torch.tensor([m]))
    assert float(found) == pytest.approx(by_hand(objective, s, c, m), abs=1e-12)


def test_hidden_is_body_that_clutter_explains_better() -> None:
    s, c = torch.tensor([0.5, 0.5, 0.1, 0.1]), torch.tensor([0.1, 0.5, 0.5, 0.5])
    assert hidden(s, c, torch.tensor([True, True, True, False])).tolist() == [False, False, True, False]


def scene(options: FitOptions, **given: torch.Tensor) -> Scene:
    camera = GridCamera.of_crop(SIDE)
    return Scene(seen(people(2), features()), volume(), features(), camera, options, **given)


@pytest.mark.parametrize("bins", [1, 2, 3, 4])
def test_scores_agree_with_the_gram_matrix_of_the_features(bins: int) -> None:
    """`s = sum W S / sqrt(W G W)`: the same cosine without ever drawing a feature."""
    look, bodies, options = features(bins), disturbed(people(2)), PRESETS["default"]
    made = Scene(seen(people(2), look), volume(), look, GridCamera.of_crop(SIDE), options)
    posed = volume()(bodies.pose_rad.double(), bodies.betas.double())
    place = bodies.translation_m.double()
    found = made.render(posed, place)
    picked = select(posed.centres_m + place[:, None], posed.precision, volume().lowest_precision, made.camera,
                    options.reach())  # fmt: skip
    drawn = slot_weights(posed.centres_m + place[:, None], posed.precision, picked, 1.0, "peak")
    mean = (made._bins(posed.limb_directions)[..., None] * look.kernels).sum(2).double()
    slots = mean.flatten(0, 1)[picked.kernels]
    f = made.seen.flatten(0, 1)[picked.people * made.camera.cells + picked.cells]
    above = (drawn * (slots @ f[..., None])[..., 0]).sum(1)
    gram = slots @ slots.mT
    below = (drawn[:, None] @ gram @ drawn[..., None])[:, 0, 0].sqrt()
    torch.testing.assert_close(found.body, above / below, atol=1e-5, rtol=0)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_cells_without_body_count_as_clutter(objective: Objective) -> None:
    """The mean over every cell, though only those of the body are drawn."""
    options = replace(PRESETS["default"], objective=objective)
    made, bodies = scene(options), people(2)
    found = made.render(volume()(bodies.pose_rad.double(), bodies.betas.double()), bodies.translation_m.double())
    body, mask = torch.zeros(2, SIDE * SIDE).double(), torch.zeros(2, SIDE * SIDE, dtype=torch.bool)
    body[found.selection.people, found.selection.cells] = found.body
    mask[found.selection.people, found.selection.cells] = found.selection.mask
    every = cell_loss(objective, body, made.clutter, mask).mean(1)
    torch.testing.assert_close(made.explained(found), every)


def test_the_truth_explains_the_picture_better_than_a_start_beside_it() -> None:
    made, true = scene(PRESETS["default"]), people(2)
    energies = []
    for bodies in (true, disturbed(true)):
        posed = volume()(bodies.pose_rad.double(), bodies.betas.double())
        energies.append(made.explained(made.render(posed, bodies.translation_m.double())))
    assert (energies[0] < energies[1]).all()


def margins(bins: int) -> torch.Tensor:
    """(8,) how much better the truth explains the picture than the limb mirrored in depth: elbows and knees."""
    look, rest = features(bins), torch.zeros(8, 24, 3)
    rest[:, 0, 0] = math.pi
    pitched = rest.clone()
    for case, (joint, axis) in enumerate([(18, 1), (19, 1), (4, 0), (5, 0)]):
        pitched[2 * case, joint, axis], pitched[2 * case + 1, joint, axis] = 0.8, -0.8
    other = 2 * rest - pitched
    true = Bodies(pitched, torch.zeros(8, 10), torch.tensor([0.0, -0.3, 45.0]).expand(8, 3))
    made = Scene(seen(true, look, noise=0.2), volume(), look, GridCamera.of_crop(SIDE), PRESETS["default"])
    energies = []
    for pose in (other, pitched):
        posed = volume()(pose.double(), true.betas.double())
        energies.append(made.explained(made.render(posed, true.translation_m.double())))
    return energies[0] - energies[1]


def test_orientation_bins_tell_which_way_a_limb_points_in_depth() -> None:
    """Both ways look alike from far away; what is left for one bin is which kernels are in front."""
    assert (margins(3) > 0).all()
    assert margins(3).mean() > 1.5 * margins(1).mean()


def test_cells_outside_the_picture_do_not_count() -> None:
    bodies = people(2)
    inside = torch.ones(2, SIDE, SIDE, dtype=torch.bool)
    inside[:, :, :18] = False
    torn = seen(people(2), features())
    torn[:, :, :, :18] = torch.randn(torn[:, :, :, :18].shape, generator=torch.Generator().manual_seed(1))
    values = []
    for picture in (seen(people(2), features()), torn):
        made = Scene(picture, volume(), features(), GridCamera.of_crop(SIDE), PRESETS["default"], inside)
        posed = volume()(bodies.pose_rad.double(), bodies.betas.double())
        found = made.render(posed, bodies.translation_m.double())
        values.append((made.explained(found), made.occlusion(found)))
    torch.testing.assert_close(values[0][0], values[1][0])
    assert not values[1][1][:, :, :18].any()


def test_the_nearest_of_several_clutter_vectors_counts() -> None:
    look = features()
    more = Features(look.kernels, torch.cat([-look.clutter, look.clutter]))
    picture = seen(people(1), look)
    one, two = (Scene(picture, volume(), f, GridCamera.of_crop(SIDE), PRESETS["default"]).clutter for f in (look, more))
    assert bool((one < 0).any() and (one > 0).any())
    torch.testing.assert_close(two, one.abs())


@pytest.mark.parametrize(("cells", "error"), [(0.0, 0.0), (1.0, 10000 / 10001), (100.0, 5000.0), (1e9, 10000.0)])
def test_far_joints_stop_counting(cells: float, error: float) -> None:
    assert float(robust(torch.tensor(cells, dtype=torch.float64))) == pytest.approx(error)


def given_joints(bodies_joints: torch.Tensor, confidence: float = 1.0) -> torch.Tensor:
    return torch.cat([bodies_joints, torch.full((*bodies_joints.shape[:2], 1), confidence)], -1)


def test_joints_count_by_their_confidence() -> None:
    bodies = people(2)
    pose, betas, place = (v.double() for v in (bodies.pose_rad, bodies.betas, bodies.translation_m))
    placed = GridCamera.of_crop(SIDE).project(volume().joints(pose, betas) + place[:, None])
    off = placed + torch.tensor([1.0, 0.0])
    for confidence in (1.0, 0.5):
        made = scene(PRESETS["default"], joints=given_joints(off, confidence))
        expected = torch.full((2,), 17 * confidence * 10000 / 10001).double()
        torch.testing.assert_close(made.joint_error(pose, betas, place), expected, atol=1e-6, rtol=0)
    assert not scene(PRESETS["default"]).joint_error(pose, betas, place).any()


@pytest.mark.parametrize(
    ("kept", "counts"),
    [
        (("Nose", "L_Eye", "R_Eye", "L_Ear", "R_Ear", "L_Hip", "R_Hip"), True),
        (("Nose", "L_Eye", "R_Eye", "L_Ear", "L_Hip", "R_Hip"), False),  # six
        (("L_Shoulder", "R_Shoulder", "L_Hip", "R_Hip", "L_Knee", "R_Knee", "L_Ankle", "R_Ankle"), False),  # no face
        (("Nose", "Pelvis", "Neck", "Torso", "Chest", "Spine", "L_Hip", "R_Hip"), False),  # not measured
        ((), False),
    ],
)
def test_too_few_joints_or_no_face_count_for_nothing(kept: tuple[str, ...], counts: bool) -> None:
    joints = torch.zeros(2, 30, 3)
    for name in kept:
        joints[:, SMPL30_INDEX[name], 2] = 0.21
    bodies = people(2)
    made = scene(PRESETS["default"], joints=joints)
    found = made.joint_error(bodies.pose_rad.double(), bodies.betas.double(), bodies.translation_m.double())
    assert (found > 0).tolist() == [counts, counts]


def test_seventeen_joints_are_measured() -> None:
    assert len(MEASURED_IN_SMPL30) == 17


def test_hinges_reward_turns_about_their_axis_either_way() -> None:
    pose = torch.zeros(4, 24, 3, dtype=torch.float64)
    pose[1, [18, 19], 1] = torch.tensor([1.2, -1.2]).double()
    pose[1, [4, 5], 0] = 1.2
    pose[2, [18, 19, 4, 5], 2] = 1.2
    pose[3] = 1e-9
    pose.requires_grad_()
    value = hinges(pose)
    torch.testing.assert_close(value.detach(), torch.tensor([4, 4 * math.exp(-2), 4, 4]).double(), atol=1e-3, rtol=0)
    value.sum().backward()
    assert torch.isfinite(pose.grad).all()


def test_the_energy_is_the_weighted_sum() -> None:
    terms = {"features": torch.tensor([1.0, 2.0]), "hinge": torch.tensor([3.0, 4.0])}
    assert total(terms, Weights(features=1, hinge=0.5)).tolist() == [2.5, 4.0]
