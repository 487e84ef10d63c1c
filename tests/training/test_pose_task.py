"""The pose network's task: its samples are what the runtime cuts, its losses lead to joints and confidences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from jotr_deploy.datasets.synthetic.places import Places
from jotr_deploy.datasets.synthetic.render import render
from jotr_deploy.datasets.synthetic.scene import draw_scene
from jotr_deploy.geometry.crop import transform_px
from jotr_deploy.runtime.finding.pose import open_pose_network, top_down_network
from jotr_deploy.runtime.finding.pose.top_down import cut, input_from_image
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.training import pose_samples
from jotr_deploy.training.found_joints import FoundJoints
from jotr_deploy.training.onnx_files import save_weights
from jotr_deploy.training.pose_samples import AWAY, HIDDEN, SEEN, as_detected, draw_person, mirrored, vary
from jotr_deploy.training.run_config import TrainingError, read_config
from jotr_deploy.training.tasks import make_task
from jotr_deploy.training.tasks.pose_task import Options, make, normalised
from jotr_deploy.training.tiny_pose import (
    SIZE_PX,
    SPLIT_RATIO,
    SPREAD_BINS,
    THRESHOLD,
    TinyPose,
    export_pose,
    soft_cross_entropy,
)

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[2] / "configs" / "starter" / "pose.toml"
WIDTH, HEIGHT = SIZE_PX


def tensors(samples: dict) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in samples.items()}


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_input_is_what_the_runtime_cuts_from_the_picture(number, monkeypatch):
    monkeypatch.setattr(pose_samples, "_TURNED", 0.0)
    person = draw_person(5, number)
    whole = render(draw_scene(5, number)).image_bgr
    for seed in range(6):
        rng = np.random.default_rng(seed)
        sample = vary(rng, person, 0.06, SIZE_PX)
        box_px = as_detected(np.random.default_rng(seed), person.box_px, 0.06)
        affine = input_from_image(box_px[None], SIZE_PX)[0]
        shown = cut(whole, affine, SIZE_PX)
        joints = transform_px(affine, person.joints_px)
        plain = {"image": shown, "joints": joints.astype(np.float32), "confidence": sample["confidence"]}
        if not np.allclose(plain["joints"], sample["joints"], atol=1e-3):
            plain = mirrored({**plain, "confidence": mirrored(sample)["confidence"]})
        np.testing.assert_allclose(sample["joints"], plain["joints"], atol=1e-3)
        inner = sample["image"][2:-2, 2:-2].astype(float).mean(2)

        def likeness(dx: int, dy: int, inner=inner, shown=plain["image"]) -> float:
            moved = shown[2 + dy : HEIGHT - 2 + dy, 2 + dx : WIDTH - 2 + dx].astype(float).mean(2)
            return float(np.corrcoef(inner.ravel(), moved.ravel())[0, 1])

        assert likeness(0, 0) > 0.9
        assert all(likeness(dx, dy) < likeness(0, 0) for dx, dy in ((2, 0), (-2, 0), (0, 2), (0, -2)))


def test_a_turned_input_shows_the_joints_where_they_are_said_to_be():
    """A white spot drawn at a joint is found at the joint of the sample."""
    person = draw_person(5, 1)
    (x, y), image = transform_px(person.drawn_from_picture, person.joints_px)[0], np.zeros_like(person.image_bgr)
    image[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3] = 255
    for seed in range(8):
        sample = vary(np.random.default_rng(seed), replace(person, image_bgr=image), 0.0, SIZE_PX)
        weight = sample["image"].astype(float).sum(2)
        rows, columns = np.mgrid[:HEIGHT, :WIDTH]
        middle = (columns * weight).sum() / weight.sum(), (rows * weight).sum() / weight.sum()
        np.testing.assert_allclose(middle, sample["joints"][0], atol=0.6)


def test_samples_depend_on_their_index_alone_and_joints_on_what_is_there():
    together, alone = make(Options(), 5).samples(range(8)), make(Options(), 5).samples([6])
    for name, values in together.items():
        np.testing.assert_array_equal(values[6], alone[name][0])
    confidence, joints = together["confidence"], together["joints"]
    assert set(np.unique(confidence)) <= {AWAY, HIDDEN, SEEN}
    there = joints[confidence > AWAY]
    assert ((there > -1) & (there < SIZE_PX)).all()  # what a mirror puts at -0.9 was inside


def test_a_mirror_twice_is_none(rng):
    sample = {
        "image": rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8),
        "joints": rng.uniform(0, 90, (17, 2)).astype(np.float32),
        "confidence": rng.choice([AWAY, HIDDEN, SEEN], 17).astype(np.float32),
    }
    once = mirrored(sample)
    np.testing.assert_allclose(once["joints"][1], [WIDTH - 1 - sample["joints"][2, 0], sample["joints"][2, 1]])
    for name, value in mirrored(once).items():
        np.testing.assert_allclose(value, sample[name], atol=1e-4)


def test_colours_are_those_of_the_runtime(rng):
    images = rng.integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8)
    expected = top_down_network.normalised(images)
    np.testing.assert_allclose(normalised(torch.from_numpy(images)), expected, rtol=1e-5, atol=1e-6)


def test_the_cross_entropy_is_least_for_the_distribution_itself():
    bins, centre = torch.arange(192.0), torch.tensor([40.3])
    logits = -(((bins - centre) / SPREAD_BINS) ** 2) / 2
    best = soft_cross_entropy(logits[None], centre)
    assert best.item() == pytest.approx(np.log(SPREAD_BINS * np.sqrt(2 * np.pi * np.e)), rel=1e-3)
    for other in (torch.zeros(192), logits * 2, logits.roll(3)):
        assert soft_cross_entropy(other[None], centre) > best


def test_the_network_moves_with_the_picture():
    """A shift by a whole number of its coarsest cells shifts the distributions, away from the border."""
    torch.manual_seed(0)
    network = TinyPose().eval()
    images = torch.zeros(2, 3, HEIGHT, WIDTH)
    spot = torch.randn(3, 8, 8)
    images[0, :, 56:64, 40:48] = spot
    images[1, :, 56:64, 56:64] = spot
    with torch.no_grad():
        x, y, _ = network(images)
    inside = slice(2 * 32, 2 * 56)
    moved = slice(2 * 48, 2 * 72)
    torch.testing.assert_close(x[0, :, inside].softmax(-1), x[1, :, moved].softmax(-1), atol=1e-3, rtol=1e-2)
    torch.testing.assert_close(y[0].softmax(-1), y[1].softmax(-1), atol=1e-3, rtol=1e-2)


def test_joints_that_are_away_do_not_count_in_where():
    task = make(Options(), 0)
    batch = tensors(task.samples([0, 1, 2]))
    before = task.loss(batch, 0)[1]
    batch["joints"][batch["confidence"] == AWAY] = -1000
    after = task.loss(batch, 0)[1]
    torch.testing.assert_close(before["where"], after["where"])
    batch["confidence"][:] = AWAY
    loss, parts = task.loss(batch, 0)
    loss.backward()
    assert float(parts["where"].detach()) == 0
    assert torch.isfinite(loss)


def test_what_it_has_learned_by_heart_its_file_finds(tmp_path: Path):
    task = make(Options(), 11)
    samples = task.samples(range(4))
    batch = tensors(samples)
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=4e-3)
    for step in range(80):
        loss, _ = task.loss(batch, step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    task.model.eval()
    task.save(tmp_path / "weights.pt")
    model = export_pose(tmp_path / "weights.pt")
    assert len(model.SerializeToString()) < 2_000_000
    onnx.save(model, tmp_path / "pose.onnx")
    with open_session(tmp_path / "pose.onnx", device="cpu") as session:
        assert str(session.inputs["input"]) == f"float32 [batch, 3, {HEIGHT}, {WIDTH}]"
        assert str(session.outputs["simcc_x"]) == f"float32 [batch, 17, {SPLIT_RATIO * WIDTH}]"
        estimate = open_pose_network(session, {"format": "simcc", "threshold": 0.0})
        everything = np.array([[0, 0, WIDTH / 1.25, HEIGHT / 1.25]]) + np.tile(0.1 * np.array(SIZE_PX), 2)
        found = np.concatenate([estimate(image, everything) for image in samples["image"]])
    kind = samples["confidence"]
    error_px = np.linalg.norm(found[..., :2] - samples["joints"], axis=-1)
    assert np.median(error_px[kind == SEEN]) < 2
    assert found[..., 2][kind == SEEN].mean() > 0.6
    assert found[..., 2][kind == AWAY].mean() < 0.3
    assert found[..., 2].max() <= 1


def test_training_finds_what_the_runtime_finds(tmp_path: Path):
    torch.manual_seed(0)
    network, weights, file = TinyPose(), tmp_path / "weights.pt", tmp_path / "pose.onnx"
    with torch.no_grad():
        network.votes.weight.mul_(30)  # heights above the threshold, and some below
    save_weights(network, weights)
    onnx.save(export_pose(weights), file)
    image = render(draw_scene(5, 0)).image_bgr
    box_px = np.array([100.0, 60, 220, 300])
    with open_session(file, device="cpu") as session:
        (expected,) = open_pose_network(session, {"threshold": THRESHOLD})(image, box_px[None])
    found = FoundJoints(weights)(image, box_px)
    assert 0 < (found[:, 2] > 0).sum() < 17
    np.testing.assert_array_equal(found[:, 2] > 0, expected[:, 2] > 0)
    assert np.mean(np.abs(found[:, :2] - expected[:, :2]).max(-1) < 1e-3) > 0.8  # weights of the file are float16


def test_other_weights_are_refused(tmp_path: Path):
    (tmp_path / "weights.pt").write_text("hello")
    with pytest.raises(TrainingError) as refusal:
        export_pose(tmp_path / "weights.pt")
    assert refusal.value.cause.startswith(f"{tmp_path / 'weights.pt'}: not the weights of a TinyPose: it is plain text")


def test_the_configuration_of_the_starter_bundle_makes_the_task():
    task, config = make_task(read_config(CONFIG))
    assert isinstance(task.model, TinyPose)
    assert config.options == {"uses": 8, "box_error": 0.06, "outdoors": 0.0, "empty": 0.0}


def test_starting_from_the_weights_of_a_run(tmp_path):
    first = make(Options(), 1)
    first.save(tmp_path / "weights.pt")
    started, other = make(Options(start=tmp_path / "weights.pt"), 2), make(Options(), 2)
    for name, value in first.model.state_dict().items():
        assert torch.equal(started.model.state_dict()[name], value), name
    assert not torch.equal(next(other.model.parameters()), next(first.model.parameters()))
    with pytest.raises(TrainingError, match="no such file"):
        make(Options(start=tmp_path / "nothing.pt"), 2)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_places_leave_the_person_and_change_what_is_around(number):
    here, outside = draw_person(5, number), draw_person(5, number, Places(outdoors=1.0))
    np.testing.assert_array_equal(draw_person(5, number, Places()).image_bgr, here.image_bgr)
    for name in ("box_px", "joints_px", "there", "seen", "drawn_from_picture"):
        np.testing.assert_array_equal(getattr(outside, name), getattr(here, name))
    assert (outside.image_bgr != here.image_bgr).any(-1).mean() > 0.2


def test_a_box_with_nobody_in_it_shows_the_place_and_no_joint():
    empty = draw_person(5, 1, Places(empty=1.0))
    here = draw_person(5, 1)
    assert not empty.there.any()
    assert not empty.seen.any()
    sample = vary(np.random.default_rng(0), empty, 0.06, SIZE_PX)
    assert (sample["confidence"] == AWAY).all()
    # The room is the same where nobody is: in the corners of the drawn square.
    gap = np.abs(empty.image_bgr.astype(int) - here.image_bgr).max(-1)
    assert np.median(gap) < 24
    assert gap.max() > 48
