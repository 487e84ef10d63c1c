"""The pose network's task: its samples are what the runtime cuts, its losses lead to joints and confidences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from jotr_deploy.datasets.synthetic.render import render
from jotr_deploy.datasets.synthetic.scene import draw_scene
from jotr_deploy.runtime.pose import open_pose_network, simcc
from jotr_deploy.runtime.pose.top_down import cut, input_from_image
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.training.config import TrainingError, read_config
from jotr_deploy.training.pose import AWAY, HIDDEN, SEEN, Options, make, normalised
from jotr_deploy.training.tasks import make_task
from jotr_deploy.training.tiny_pose import (
    SIZE_PX,
    SPLIT_RATIO,
    SPREAD_BINS,
    TinyPose,
    export_pose,
    soft_cross_entropy,
)

CONFIG = Path(__file__).parents[2] / "configs" / "starter" / "pose.toml"
WIDTH, HEIGHT = SIZE_PX


def tensors(samples: dict) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in samples.items()}


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_sample_is_what_the_runtime_cuts_from_the_picture(index):
    task, boxes = make(Options(), 5), []
    plain = task._as_detected
    task._as_detected = lambda *given: boxes.append(plain(*given)) or boxes[-1]  # type: ignore[method-assign]
    sample = {name: value[0] for name, value in task.samples([2 * index]).items()}
    affine = input_from_image(boxes[0][None], SIZE_PX)[0]
    shown = cut(render(draw_scene(5, index)).image_bgr, affine, SIZE_PX)
    assert (sample["image"].dtype, sample["image"].shape) == (np.uint8, shown.shape)
    inner = sample["image"][2:-2, 2:-2].astype(float)

    def distance(dx: int, dy: int) -> float:
        return float(np.abs(inner - shown[2 + dy : HEIGHT - 2 + dy, 2 + dx : WIDTH - 2 + dx]).mean())

    assert distance(0, 0) < 12
    assert all(distance(dx, dy) > distance(0, 0) for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)))


def test_samples_depend_on_their_index_alone_and_joints_on_what_is_there():
    together, alone = make(Options(), 5).samples(range(8)), make(Options(), 5).samples([6])
    for name, values in together.items():
        np.testing.assert_array_equal(values[6], alone[name][0])
    confidence, joints = together["confidence"], together["joints"]
    assert set(np.unique(confidence)) <= {AWAY, HIDDEN, SEEN}
    there = joints[::2][confidence[::2] > AWAY]
    assert ((there >= 0) & (there < SIZE_PX)).all()


def test_every_second_sample_is_a_mirror_image():
    samples = make(Options(), 5).samples([6, 7])
    np.testing.assert_array_equal(samples["image"][1], samples["image"][0][:, ::-1])
    for left, right in ((1, 2), (5, 6), (15, 16), (0, 0)):
        x, y = samples["joints"][0, left]
        np.testing.assert_allclose(samples["joints"][1, right], [WIDTH - 1 - x, y], atol=1e-4)
        assert samples["confidence"][0, left] == samples["confidence"][1, right]


def test_colours_are_those_of_the_runtime(rng):
    images = rng.integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8)
    np.testing.assert_allclose(normalised(torch.from_numpy(images)), simcc.normalised(images), rtol=1e-5, atol=1e-6)


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


def test_other_weights_are_refused(tmp_path: Path):
    (tmp_path / "weights.pt").write_text("hello")
    with pytest.raises(TrainingError) as refusal:
        export_pose(tmp_path / "weights.pt")
    assert refusal.value.cause.startswith(f"{tmp_path / 'weights.pt'}: not the weights of a TinyPose (")


def test_the_configuration_of_the_starter_bundle_makes_the_task():
    task, config = make_task(read_config(CONFIG))
    assert isinstance(task.model, TinyPose)
    assert config.options == {"box_error": 0.06}
