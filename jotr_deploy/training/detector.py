"""The task `detector`: the small detector on synthetic scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from jotr_deploy.datasets.synthetic.labels import bodies, labels_in
from jotr_deploy.datasets.synthetic.render import shade
from jotr_deploy.datasets.synthetic.scene import draw_scene
from jotr_deploy.datasets.synthetic.trace import trace
from jotr_deploy.datasets.synthetic.viewpoint import View
from jotr_deploy.runtime.detection.letterbox import PAD, fitted_size_px
from jotr_deploy.runtime.detection.yolox import cells
from jotr_deploy.training.assign import assign, iou
from jotr_deploy.training.onnx_files import save_weights
from jotr_deploy.training.tasks import Array
from jotr_deploy.training.tiny_detector import SIZE_PX, STRIDES, TinyDetector

MOST_PEOPLE = 4
LEAST_VISIBLE = 0.2
"""Of a silhouette, for its person to count; whether somebody who shows less is found does not matter."""
PERSON, IGNORED, NOBODY = 1, -1, 0
_BOX_WEIGHT = 5.0
_LARGEST_LOG = 8.0  # of a size in strides, before exp
_LEAST_PART = 0.5  # of a side of the scene, when a part of it is the picture


class Options(BaseModel):
    """The table `[detector]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    parts: Annotated[float, Field(ge=0, le=1)] = 0.3
    """How many of the pictures are parts of scenes, of other shapes and with people cut off."""


class DetectorTask:
    """See `tasks.Task`."""

    def __init__(self, options: Options, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = TinyDetector().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._options, self._seed = options, seed
        cell, stride = (torch.from_numpy(each) for each in cells(SIZE_PX, STRIDES))
        self._cell, self._stride = cell, stride
        self._last: tuple[int, dict[str, Array]] | None = None

    def samples(self, indices: Sequence[int]) -> dict[str, Array]:
        """Sample 2 n is scene n of the seed, 2 n + 1 its mirror image.

        Returns:
            image (N, 3, H, W) uint8 BGR as the runtime letterboxes it; boxes (N, G, 4) on it; kind (N, G); width (N,)
            of the picture on it.
        """
        samples = [mirrored(self._scene(n // 2)) if n % 2 else self._scene(n // 2) for n in indices]
        return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}

    def _scene(self, index: int) -> dict[str, Array]:
        """The sample of a scene as it is, kept for its mirror image because drawing costs as much as learning."""
        if self._last is None or self._last[0] != index:
            self._last = index, self._drawn(index)
        return self._last[1]

    def _drawn(self, index: int) -> dict[str, Array]:
        rng = np.random.default_rng((self._seed, index, 2))  # apart from that of the scene
        scene = draw_scene(self._seed, index)
        first, size = self._part(rng, scene.size_px)
        scale = min(SIZE_PX[0] / size[0], SIZE_PX[1] / size[1])
        fitted = fitted_size_px(size, SIZE_PX)
        # The canvas counts from the edge of the picture, a view from the centre of its first pixel.
        x_px, y_px = first + 0.5 / scale - 0.5
        view = View(x_px, y_px, 1 / scale, fitted)
        traced = trace(scene, view)
        image = np.full((SIZE_PX[1], SIZE_PX[0], 3), PAD, np.uint8)
        image[: fitted[1], : fitted[0]] = shade(scene, view, traced)
        everybody = np.arange(len(scene))
        known = labels_in(scene, everybody, bodies(scene, everybody), view, traced)
        edges = (known.boxes_px.reshape(-1, 2, 2) + 0.5 - first) * scale
        boxes, kind = np.zeros((MOST_PEOPLE, 4), np.float32), np.full(MOST_PEOPLE, NOBODY, np.int8)
        boxes[: len(scene)] = np.clip(edges, 0, fitted).reshape(-1, 4)
        kind[: len(scene)] = np.where(known.visible_fraction < LEAST_VISIBLE, IGNORED, PERSON)
        kind[(boxes[:, 2:] - boxes[:, :2]).min(1) < 1] = NOBODY
        return {"image": image.transpose(2, 0, 1), "boxes": boxes, "kind": kind, "width": np.array(fitted[0])}

    def _part(self, rng: np.random.Generator, size_px: tuple[int, int]) -> tuple[Array, tuple[int, int]]:
        """The first corner (2,) and the size of what of a scene is the picture, in whole pixels."""
        if rng.random() >= self._options.parts:
            return np.zeros(2), size_px
        width, height = (int(rng.integers(int(_LEAST_PART * side), side + 1)) for side in size_px)
        first = rng.integers(0, (size_px[0] - width + 1, size_px[1] - height + 1))
        return first.astype(np.float64), (width, height)

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """YOLOX's losses: boxes by generalised IoU, objectness, and a person's score towards the IoU."""
        rows = self.model(batch["image"].float().contiguous(memory_format=torch.channels_last)).float()
        cell, stride = self._cell.to(rows.device), self._stride.to(rows.device)
        boxes = decoded(rows, cell, stride)
        centre = (cell + 0.5) * stride
        log_score = F.logsigmoid(rows[..., 4:].detach()).mean(-1)
        people, others = batch["kind"] == PERSON, batch["kind"] == IGNORED
        found = assign(boxes.detach(), log_score, batch["boxes"], people, centre, stride[:, 0])
        positive, count = found.positive, found.positive.sum().clamp(min=1)
        true = batch["boxes"].gather(1, found.person[..., None].expand(-1, -1, 4))
        counted = positive | ~covered(centre, batch["boxes"], others)
        box = (1 - iou(boxes[positive], true[positive])[1]).sum() / count
        objectness = F.binary_cross_entropy_with_logits(
            rows[..., 4], positive.float(), counted.float(), reduction="sum"
        )
        score = F.binary_cross_entropy_with_logits(rows[..., 5][positive], found.iou[positive], reduction="sum")
        parts = {"box": box, "objectness": objectness / count, "score": score / count}
        parts["iou"] = found.iou.sum() / count
        return _BOX_WEIGHT * box + parts["objectness"] + parts["score"], parts

    def save(self, path: Path) -> None:
        """Write what `tiny_detector.export_detector` reads."""
        save_weights(self.model, path)


def mirrored(sample: dict[str, Array]) -> dict[str, Array]:
    """A sample whose picture, at the left of the canvas, is mirrored; rows without anybody stay zero."""
    width, image, boxes = int(sample["width"]), sample["image"].copy(), sample["boxes"].copy()
    image[..., :width] = image[..., :width][..., ::-1]
    boxes[:, [0, 2]] = np.where(boxes.any(1, keepdims=True), width - boxes[:, [2, 0]], 0)
    return {**sample, "image": image, "boxes": boxes}


def decoded(rows: Tensor, cell: Tensor, stride: Tensor) -> Tensor:
    """Raw rows (B, A, 6) of cells (A, 2) with strides (A, 1) -> corners (B, A, 4) on the canvas."""
    centre, size = (rows[..., :2] + cell) * stride, rows[..., 2:4].clamp(max=_LARGEST_LOG).exp() * stride
    return torch.cat([centre - size / 2, centre + size / 2], -1)


def covered(points: Tensor, boxes: Tensor, which: Tensor) -> Tensor:
    """(B, A) bool: whether a point (A, 2) lies in one of the boxes (B, G, 4) of which `which` (B, G) says so."""
    inside = (points >= boxes[:, :, None, :2]) & (points <= boxes[:, :, None, 2:])
    return (inside.all(-1) & which[..., None]).any(1)


def make(options: Options, seed: int) -> DetectorTask:
    """The task on scenes of `seed`; the start weights are of the same seed."""
    return DetectorTask(options, seed)
