"""The task `pose`: the small 2-D pose network on people of synthetic scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from jotr_deploy.datasets.synthetic.places import Places
from jotr_deploy.runtime.finding.pose.top_down_network import DEVIATION_RGB, MEAN_RGB
from jotr_deploy.support.aliases import Array
from jotr_deploy.training.held_out import Figure, HeldOut, drawn_count
from jotr_deploy.training.onnx_files import load_weights, save_weights
from jotr_deploy.training.pose_samples import AWAY, SEEN, draw_person, upright, vary
from jotr_deploy.training.reuse import Reused
from jotr_deploy.training.run_config import Evaluation
from jotr_deploy.training.tiny_pose import SIZE_PX, SPLIT_RATIO, THRESHOLD, Heights, TinyPose, soft_cross_entropy

KEPT = 2048
"""Number of drawn people in use at a time."""
FIGURES: Mapping[str, Figure] = {
    "error_px": Figure("error of visible joints", "px of the input"),
    "within_5_px": Figure("visible joints within 5 px", "%", higher=True),
    "known": Figure("visible joints found", "%", higher=True),
}
_HIDDEN_WEIGHT = 0.3  # in where a joint is, beside one that is seen


class Options(BaseModel):
    """The table `[pose]`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    start: Path | None = None
    """Weights of a run of this task to start from; random ones without it."""
    uses: Annotated[int, Field(ge=1, le=64)] = 8
    """Times that a drawn person is trained on."""
    box_error: Annotated[float, Field(ge=0, le=0.3)] = 0.06
    """Error of a detector's boxes: standard deviation of each edge as a share of its side."""
    outdoors: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of people before an outdoor backdrop."""
    empty: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of boxes in scenes without people, where no joint is to be found."""


class PoseTask:
    """The task `pose`; see `tasks.Task`."""

    def __init__(self, options: Options, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = TinyPose().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if options.start is not None:
            load_weights(self.model, options.start)
        self._options, self._seed = options, seed
        draw = partial(draw_person, seed, places=Places(options.outdoors, options.empty))
        self._people = Reused(draw, options.uses, KEPT // options.uses)

    def samples(self, indices: Sequence[int]) -> dict[str, Array]:
        """Samples of `pose_samples.vary`."""
        samples = [self._sample(index) for index in indices]
        return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}

    def _sample(self, index: int) -> dict[str, Array]:
        rng = np.random.default_rng((self._seed, index, 4))
        return vary(rng, self._people(index)[0], self._options.box_error, SIZE_PX)

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of both distributions for joints that are present, and of the confidence for all."""
        x, y, seen = (each.float() for each in self.model(normalised(batch["image"])))
        confidence = batch["confidence"]
        weight = torch.where(confidence == SEEN, 1.0, _HIDDEN_WEIGHT) * (confidence > AWAY)
        bins = batch["joints"] * SPLIT_RATIO
        where = soft_cross_entropy(x, bins[..., 0]) + soft_cross_entropy(y, bins[..., 1])
        where = (where * weight).sum() / weight.sum().clamp(min=1)
        known = F.binary_cross_entropy_with_logits(seen, confidence)
        with torch.no_grad():
            found = torch.stack([x.argmax(-1), y.argmax(-1)], -1) / SPLIT_RATIO
            error = (found - batch["joints"]).norm(dim=-1)[confidence == SEEN].mean()
        return where + known, {"where": where, "seen": known, "error_px": error}

    def held_out(self, wanted: Evaluation) -> HeldOut:
        """Error of visible joints of other people, upright in boxes with a detector's errors."""
        samples = partial(people_in_boxes, wanted.seed, self._options.box_error)
        return HeldOut(FIGURES, drawn_count(wanted, self._seed), samples, self._measure, _figures)

    def _measure(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        heights = Heights(self.model)(normalised(batch["image"]))
        x, y = (each.float() for each in heights)
        found = torch.stack([x.argmax(-1), y.argmax(-1)], -1) / SPLIT_RATIO
        known = torch.minimum(x.amax(-1), y.amax(-1)) > THRESHOLD
        error_px = (found - batch["joints"]).norm(dim=-1)
        return {"error_px": error_px, "known": known, "seen": batch["confidence"] == SEEN}

    def save(self, path: Path) -> None:
        """Write the weights that `tiny_pose.export_pose` reads."""
        save_weights(self.model, path)


def people_in_boxes(seed: int, box_error: float, indices: Sequence[int]) -> dict[str, Array]:
    """Samples of `pose_samples.upright`, each of another person."""
    samples = [
        upright(np.random.default_rng((seed, index, 9)), draw_person(seed, index), box_error, SIZE_PX)
        for index in indices
    ]
    return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}


def _figures(rows: dict[str, Array]) -> dict[str, float]:
    """Over the joints that are seen, whether the network knows them or not."""
    seen, error_px = rows["seen"], rows["error_px"]
    if not seen.any():
        return dict.fromkeys(FIGURES, float("nan"))
    return {
        "error_px": float(error_px[seen].mean(dtype=np.float64)),
        "within_5_px": 100 * float((error_px[seen] <= 5).mean()),
        "known": 100 * float(rows["known"][seen].mean()),
    }


def normalised(images_bgr: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 BGR -> (B, 3, H, W) float32 as `top_down_network.normalised` gives it, channels last."""
    mean, deviation = (torch.from_numpy(each).to(images_bgr.device) for each in (MEAN_RGB, DEVIATION_RGB))
    return ((images_bgr.flip(-1).float() - mean) / deviation).permute(0, 3, 1, 2)


def make(options: Options, seed: int) -> PoseTask:
    """Task on scenes of `seed`, which also seeds the initial weights."""
    return PoseTask(options, seed)
