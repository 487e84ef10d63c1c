"""The detector's task: its samples are what the runtime sees, its losses lead to the boxes, its file is YOLOX's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from jotr_deploy.datasets.synthetic.labels import labels
from jotr_deploy.datasets.synthetic.render import render
from jotr_deploy.datasets.synthetic.scene import draw_scene
from jotr_deploy.geometry.boxes import iou
from jotr_deploy.runtime.detection import open_detector
from jotr_deploy.runtime.detection.letterbox import PAD, boxes_in_image, letterbox
from jotr_deploy.runtime.detection.yolox import cells
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.training.config import TrainConfig, TrainingError, read_config
from jotr_deploy.training.detector import IGNORED, NOBODY, PERSON, Options, covered, decoded, make
from jotr_deploy.training.tasks import make_task
from jotr_deploy.training.tiny_detector import SIZE_PX, STRIDES, TinyDetector, export_detector

CONFIG = Path(__file__).parents[2] / "configs" / "starter" / "detector.toml"
WIDTH, HEIGHT = SIZE_PX
CELL, STRIDE = (torch.from_numpy(each) for each in cells(SIZE_PX, STRIDES))


def tensors(samples: dict) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in samples.items()}


def test_a_sample_is_the_letterboxed_picture_of_its_scene():
    task = make(Options(parts=0), 5)
    sample = {name: value[0] for name, value in task.samples([6]).items()}
    scene = draw_scene(5, 3)
    canvas, scale = letterbox(render(scene).image_bgr, SIZE_PX)
    image = sample["image"].transpose(1, 2, 0)
    assert (image.dtype, image.shape) == (np.uint8, canvas.shape)
    inner = image[2:-2, 2:-2].astype(float)

    def distance(dx: int, dy: int) -> float:
        return float(np.abs(inner - canvas[2 + dy : HEIGHT - 2 + dy, 2 + dx : WIDTH - 2 + dx]).mean())

    assert distance(0, 0) < 6
    assert all(distance(dx, dy) > distance(0, 0) for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)))
    known = labels(scene)
    clipped = np.clip(known.boxes_px, -0.5, (479.5, 359.5, 479.5, 359.5))
    there = sample["kind"][: len(scene)] != NOBODY
    found = boxes_in_image(sample["boxes"][: len(scene)].astype(float), scale, (480, 360))
    np.testing.assert_allclose(found[there], clipped[there], atol=0.6)


def test_samples_depend_on_their_index_alone_and_boxes_on_the_visible_part():
    task = make(Options(parts=0.5), 5)
    together, alone = task.samples([4, 5, 6, 7]), make(Options(parts=0.5), 5).samples([6])
    for name, values in together.items():
        np.testing.assert_array_equal(values[2], alone[name][0])
    boxes, kind = together["boxes"], together["kind"]
    assert set(np.unique(kind)) <= {NOBODY, IGNORED, PERSON}
    assert ((boxes[kind != NOBODY] >= 0) & (boxes[kind != NOBODY] <= (*SIZE_PX, *SIZE_PX))).all()
    assert (boxes[kind == PERSON][:, 2:] > boxes[kind == PERSON][:, :2]).all()


def test_every_second_sample_is_a_mirror_image():
    samples = make(Options(parts=1), 5).samples(range(12))
    for plain, mirror in zip(range(0, 12, 2), range(1, 12, 2), strict=True):
        width = int(samples["width"][plain])
        image, other = samples["image"][plain], samples["image"][mirror]
        np.testing.assert_array_equal(other[..., :width], image[..., :width][..., ::-1])
        assert (image[..., width:] == PAD).all()
        assert (other[..., width:] == PAD).all()
        np.testing.assert_array_equal(samples["kind"][mirror], samples["kind"][plain])
        there = samples["kind"][plain] != NOBODY
        boxes, others = samples["boxes"][plain][there], samples["boxes"][mirror][there]
        np.testing.assert_allclose(
            others, np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
        )
    assert (samples["width"] < WIDTH).any()


def test_raw_rows_decode_as_the_runtime_does(rng):
    rows = torch.from_numpy(rng.normal(0, 1, (1, len(CELL), 6)).astype(np.float32))
    boxes = decoded(rows, CELL, STRIDE)[0]
    np.testing.assert_allclose(
        (boxes[:, :2] + boxes[:, 2:]) / 2, (rows[0, :, :2] + CELL) * STRIDE, rtol=1e-4, atol=1e-3
    )
    np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], rows[0, :, 2:4].exp() * STRIDE, rtol=1e-3, atol=1e-3)


def test_cells_of_somebody_hardly_seen_do_not_count():
    task = make(Options(), 0)
    batch = {
        "image": torch.full((1, 3, SIZE_PX[1], SIZE_PX[0]), PAD, dtype=torch.uint8),
        "boxes": torch.tensor([[[10.0, 10, 110, 210], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]]),
    }

    def objectness(kind: int) -> float:
        return float(task.loss({**batch, "kind": torch.tensor([[kind, 0, 0, 0]])}, 0)[1]["objectness"].detach())

    share = covered((CELL + 0.5) * STRIDE, batch["boxes"], torch.tensor([[True, False, False, False]])).float().mean()
    assert objectness(IGNORED) == pytest.approx(objectness(NOBODY) * (1 - float(share)), rel=0.05)
    assert objectness(PERSON) != pytest.approx(objectness(NOBODY), rel=0.05)


def test_without_anybody_there_is_a_loss_with_gradients():
    task = make(Options(), 0)
    batch = tensors(task.samples([0, 1]))
    batch["kind"][:] = NOBODY
    loss, parts = task.loss(batch, 0)
    loss.backward()
    assert torch.isfinite(loss)
    assert float(parts["box"].detach()) == float(parts["score"].detach()) == 0
    assert all(torch.isfinite(p.grad).all() for p in task.model.parameters() if p.grad is not None)


def test_what_it_has_learned_by_heart_its_file_finds(tmp_path: Path):
    task = make(Options(parts=0), 11)
    samples = task.samples(range(2))
    batch = tensors(samples)
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=5e-3)
    losses = []
    for step in range(80):
        loss, _ = task.loss(batch, step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 4
    task.model.eval()
    task.save(tmp_path / "weights.pt")
    model = export_detector(tmp_path / "weights.pt")
    assert len(model.SerializeToString()) < 2_000_000
    onnx.save(model, tmp_path / "detector.onnx")
    with open_session(tmp_path / "detector.onnx", device="cpu") as session:
        rows = session({"images": batch["image"].numpy().astype(np.float32)})["output"]
        with torch.no_grad():
            raw = task.model(batch["image"].float())
        expected = torch.cat([raw[..., :4], raw[..., 4:].sigmoid()], -1).numpy()
        assert np.abs(rows - expected).max() < 0.1 * np.abs(expected).max()  # its weights are rounded
        detect = open_detector(session, {"format": "yolox"})
        for image, boxes, kind in zip(samples["image"], samples["boxes"], samples["kind"], strict=True):
            found, _ = detect(np.ascontiguousarray(image.transpose(1, 2, 0)))  # of the canvas's size already
            people = boxes[kind == PERSON] - 0.5
            assert (iou(people, found).max(1, initial=0) > 0.5).all()
        assert str(session.inputs["images"]) == f"float32 [batch, 3, {SIZE_PX[1]}, {SIZE_PX[0]}]"
        assert str(session.outputs["output"]) == f"float32 [batch, {len(CELL)}, 6]"


def test_other_weights_are_refused(tmp_path: Path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.pt")
    with pytest.raises(TrainingError) as refusal:
        export_detector(tmp_path / "weights.pt")
    assert refusal.value.cause.startswith(f"{tmp_path / 'weights.pt'}: not the weights of a TinyDetector (")
    assert refusal.value.remedy == "give weights.pt of a run of its task"
    (tmp_path / "weights.pt").write_bytes(b"")
    with pytest.raises(TrainingError, match="not the weights of a TinyDetector"):
        export_detector(tmp_path / "weights.pt")
    with pytest.raises(TrainingError, match="no such file"):
        export_detector(tmp_path / "nothing.pt")


def test_the_configuration_of_the_starter_bundle_makes_the_task():
    task, config = make_task(read_config(CONFIG))
    assert isinstance(config, TrainConfig)
    assert isinstance(task.model, TinyDetector)
    assert config.options == {"parts": 0.3}
