"""The detector's task: its samples are what the runtime sees, its losses lead to the boxes, its file is YOLOX's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from jotr_deploy.datasets.synthetic.labels import labels
from jotr_deploy.datasets.synthetic.places import Places
from jotr_deploy.datasets.synthetic.scene import draw_scene
from jotr_deploy.geometry.boxes import iou, mirrored
from jotr_deploy.runtime.finding.detection import open_detector
from jotr_deploy.runtime.finding.detection.letterbox import PAD, boxes_in_image, letterbox
from jotr_deploy.runtime.finding.detection.yolox import cells
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.training.detector_samples import IGNORED, NOBODY, PERSON, draw_picture, vary
from jotr_deploy.training.run_config import TrainConfig, TrainingError, read_config
from jotr_deploy.training.tasks import make_task
from jotr_deploy.training.tasks.detector_task import Options, covered, decoded, make
from jotr_deploy.training.tiny_detector import SIZE_PX, STRIDES, TinyDetector, export_detector

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[2] / "configs" / "starter" / "detector.toml"
WIDTH, HEIGHT = SIZE_PX
CELL, STRIDE = (torch.from_numpy(each) for each in cells(SIZE_PX, STRIDES))


def tensors(samples: dict) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in samples.items()}


def test_a_whole_picture_is_letterboxed_as_the_runtime_does():
    whole = draw_picture(5, 3)
    known = labels(draw_scene(5, 3))
    rng = np.random.default_rng(1)
    samples = [vary(rng, whole, 0.0, SIZE_PX) for _ in range(8)]
    canvas, scale = letterbox(whole.image_bgr, SIZE_PX)
    clipped = np.clip(known.boxes_px, -0.5, (479.5, 359.5, 479.5, 359.5))
    mirrors = 0
    for sample in samples:
        found = boxes_in_image(sample["boxes"][: len(clipped)].astype(float), scale, (480, 360))
        there = sample["kind"][: len(clipped)] != NOBODY
        mirrors += not np.allclose(found[there], clipped[there], atol=0.01)
        expected = mirrored(clipped, 480) if mirrors and not np.allclose(found[there], clipped[there]) else clipped
        np.testing.assert_allclose(found[there], expected[there], atol=0.01)
        grey = [image.astype(float).mean(2) for image in (sample["image"].transpose(1, 2, 0), canvas)]
        shown = grey[0][:240, ::-1] if expected is not clipped else grey[0][:240]
        assert np.corrcoef(shown.ravel(), grey[1][:240].ravel())[0, 1] > 0.95
        assert (sample["image"][:, 240:] == PAD).all()
    assert 0 < mirrors < 8


def test_somebody_of_whom_a_part_shows_too_little_is_ignored():
    whole = replace(draw_picture(5, 3), boxes_px=np.array([[0.0, 0, 99, 199], [300, 0, 399, 199]], np.float32))
    person = np.full(whole.person.shape, -1, np.int8)
    person[0:200, 0:100], person[0:200, 300:330] = 0, 1
    whole = replace(whole, person=person, silhouette_px=np.array([20000.0, 60000.0]))
    sample = vary(np.random.default_rng(0), whole, 0.0, SIZE_PX)
    assert list(sample["kind"]) == [PERSON, IGNORED, NOBODY, NOBODY]
    seen = [vary(np.random.default_rng(seed), whole, 1.0, SIZE_PX)["kind"][0] for seed in range(40)]
    assert set(seen) == {PERSON, IGNORED, NOBODY}


def test_outdoor_and_empty_pictures_are_options():
    here, outside = draw_picture(5, 3), draw_picture(5, 3, Places(outdoors=1.0))
    np.testing.assert_array_equal(draw_picture(5, 3, Places()).image_bgr, here.image_bgr)
    assert outside.image_bgr.shape != here.image_bgr.shape or (outside.image_bgr != here.image_bgr).any()
    assert (outside.person >= 0).any()
    for places in (Places(empty=1.0), Places(outdoors=1.0, empty=1.0)):
        nobody = draw_picture(5, 3, places)
        assert len(nobody.boxes_px) == 0
        assert (nobody.person < 0).all()
        sample = vary(np.random.default_rng(0), nobody, 0.5, SIZE_PX)
        assert (sample["kind"] == NOBODY).all()


def test_worn_pictures_keep_their_size_and_their_boxes():
    whole = draw_picture(5, 3)
    worn = [vary(np.random.default_rng(seed), whole, 0.0, SIZE_PX, worn=1.0) for seed in range(8)]
    boxes = [vary(np.random.default_rng(seed), whole, 0.0, SIZE_PX)["boxes"] for seed in range(8)]
    np.testing.assert_array_equal(np.stack([each["boxes"] for each in worn]), np.stack(boxes))
    assert {each["image"].shape for each in worn} == {(3, HEIGHT, WIDTH)}
    assert all((each["image"][:, 240:] == PAD).all() for each in worn)


@pytest.mark.parametrize("boxes", [np.zeros((0, 4)), np.array([[10.0, 0, 20, 5]])])
def test_a_mirror_twice_is_none(boxes):
    np.testing.assert_allclose(mirrored(mirrored(boxes, 50), 50), boxes)
    np.testing.assert_allclose(mirrored(boxes, 50)[:, 0], 49 - boxes[:, 2])


def test_samples_depend_on_their_index_alone_and_boxes_on_the_visible_part():
    task = make(Options(parts=0.5), 5)
    together, alone = task.samples([4, 5, 6, 7]), make(Options(parts=0.5), 5).samples([6])
    for name, values in together.items():
        np.testing.assert_array_equal(values[2], alone[name][0])
    boxes, kind = together["boxes"], together["kind"]
    assert set(np.unique(kind)) <= {NOBODY, IGNORED, PERSON}
    assert ((boxes[kind != NOBODY] >= 0) & (boxes[kind != NOBODY] <= (*SIZE_PX, *SIZE_PX))).all()
    assert (boxes[kind == PERSON][:, 2:] > boxes[kind == PERSON][:, :2]).all()


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


def apart(samples: dict) -> bool:
    """People of one picture who are not taken for one."""
    people = samples["boxes"][0][samples["kind"][0] == PERSON]
    return bool((iou(people, people) - np.eye(len(people))).max(initial=0) < 0.1)


def test_what_it_has_learned_by_heart_its_file_finds(tmp_path: Path):
    task = make(Options(parts=0), 11)
    samples = task.samples([n for n in range(8) if apart(task.samples([n]))][:2])
    batch = tensors(samples)
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=120)
    losses = []
    for step in range(120):
        loss, _ = task.loss(batch, step)
        loss.backward()
        optimizer.step()
        schedule.step()
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
    assert refusal.value.cause.startswith(
        f"{tmp_path / 'weights.pt'}: a PyTorch archive, but damaged or not the weights of a TinyDetector ("
    )
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
    assert config.options == {"uses": 8, "parts": 0.6, "outdoors": 0.0, "empty": 0.0, "worn": 0.0}


def test_starting_from_the_weights_of_a_run(tmp_path):
    first = make(Options(), 1)
    first.save(tmp_path / "weights.pt")
    started, other = make(Options(start=tmp_path / "weights.pt"), 2), make(Options(), 2)
    for name, value in first.model.state_dict().items():
        assert torch.equal(started.model.state_dict()[name], value), name
    assert not torch.equal(next(other.model.parameters()), next(first.model.parameters()))
    with pytest.raises(TrainingError, match="no such file"):
        make(Options(start=tmp_path / "nothing.pt"), 2)
