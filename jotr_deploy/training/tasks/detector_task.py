"""The task `detector`: the small detector on synthetic scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from jotr_deploy.datasets.synthetic.places import Places
from jotr_deploy.runtime.finding.detection.yolox import cells
from jotr_deploy.support.aliases import Array
from jotr_deploy.training.assign import assign, iou
from jotr_deploy.training.detector_samples import IGNORED, PERSON, Picture, draw_picture, unvaried, vary
from jotr_deploy.training.found_boxes import FIGURES, detection_figures, judged
from jotr_deploy.training.held_out import HeldOut, drawn_count
from jotr_deploy.training.onnx_files import load_weights, save_weights
from jotr_deploy.training.reuse import Reused
from jotr_deploy.training.run_config import Evaluation
from jotr_deploy.training.tiny_detector import SIZE_PX, STRIDES, TinyDetector

KEPT = 512
"""Number of drawn pictures in use at a time."""
_BOX_WEIGHT = 5.0
_LARGEST_LOG = 8.0  # of a size in strides, before exp


class Options(BaseModel):
    """The table `[detector]`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    start: Path | None = None
    """Weights of a run of this task to start from; random ones without it."""
    uses: Annotated[int, Field(ge=1, le=64)] = 8
    """Times that a drawn picture is trained on."""
    parts: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Share of the pictures that are parts of scenes, of other aspect ratios and with people cut off."""
    outdoors: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the scenes with an outdoor backdrop, a third of them upright."""
    empty: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the scenes without people."""
    worn: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the pictures that are blurred, sharpened, coarsely sampled or compressed."""


class DetectorTask:
    """The task `detector`; see `tasks.Task`."""

    def __init__(self, options: Options, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = TinyDetector().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if options.start is not None:
            load_weights(self.model, options.start)
        self._options, self._seed = options, seed
        cell, stride = (torch.from_numpy(each) for each in cells(SIZE_PX, STRIDES))
        self._cell, self._stride = cell, stride
        draw = partial(draw_picture, seed, places=Places(options.outdoors, options.empty))
        self._pictures = Reused(draw, options.uses, KEPT // options.uses)

    def samples(self, indices: Sequence[int]) -> dict[str, Array]:
        """Samples of `detector_samples.vary`."""
        samples = [self._sample(index) for index in indices]
        return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}

    def _sample(self, index: int) -> dict[str, Array]:
        rng = np.random.default_rng((self._seed, index, 2))  # apart from that of the scene
        return vary(rng, self._pictures(index)[0], self._options.parts, SIZE_PX, self._options.worn)

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

    def held_out(self, wanted: Evaluation) -> HeldOut:
        """Average precision, recall and false people on whole pictures of other scenes."""
        samples = partial(whole_pictures, partial(draw_picture, wanted.seed))
        return HeldOut(FIGURES, drawn_count(wanted, self._seed), samples, self._measure, detection_figures)

    def _measure(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        rows = self.model(batch["image"].float().contiguous(memory_format=torch.channels_last)).float()
        boxes = decoded(rows, self._cell.to(rows.device), self._stride.to(rows.device))
        boxes = torch.minimum(boxes.clamp(min=0), batch["extent"].repeat(1, 2)[:, None])  # as the runtime clips them
        scores = rows[..., 4:].sigmoid().prod(-1)
        people = zip(*(each.cpu().numpy() for each in (boxes, scores, batch["boxes"], batch["kind"])), strict=True)
        found = [judged(*one) for one in people]
        return {name: torch.from_numpy(np.stack([one[name] for one in found])) for name in found[0]}

    def save(self, path: Path) -> None:
        """Write the weights that `tiny_detector.export_detector` reads."""
        save_weights(self.model, path)


def whole_pictures(draw: Callable[[int], Picture], indices: Sequence[int]) -> dict[str, Array]:
    """Samples of `detector_samples.unvaried`."""
    samples = [unvaried(draw(index), SIZE_PX) for index in indices]
    return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}


def decoded(rows: Tensor, cell: Tensor, stride: Tensor) -> Tensor:
    """Raw rows (B, A, 6) of cells (A, 2) with strides (A, 1) -> corners (B, A, 4) on the canvas."""
    centre, size = (rows[..., :2] + cell) * stride, rows[..., 2:4].clamp(max=_LARGEST_LOG).exp() * stride
    return torch.cat([centre - size / 2, centre + size / 2], -1)


def covered(points: Tensor, boxes: Tensor, which: Tensor) -> Tensor:
    """(B, A) bool, true for points (A, 2) inside one of the boxes (B, G, 4) selected by `which` (B, G)."""
    inside = (points >= boxes[:, :, None, :2]) & (points <= boxes[:, :, None, 2:])
    return (inside.all(-1) & which[..., None]).any(1)


def make(options: Options, seed: int) -> DetectorTask:
    """Task on scenes of `seed`, which also seeds the initial weights."""
    return DetectorTask(options, seed)
