"""The task `pose`: the small 2-D pose network on people of synthetic scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from jotr_deploy.datasets.synthetic.crops import crop
from jotr_deploy.datasets.synthetic.scene import draw_scene
from jotr_deploy.geometry.crop import transform_px
from jotr_deploy.runtime.pose.simcc import DEVIATION_RGB, MEAN_RGB
from jotr_deploy.runtime.pose.top_down import input_from_image
from jotr_deploy.skeletons import SKELETONS, SMPL30_INDEX
from jotr_deploy.training.onnx_files import save_weights
from jotr_deploy.training.tasks import Array
from jotr_deploy.training.tiny_pose import SIZE_PX, SKELETON, SPLIT_RATIO, TinyPose, soft_cross_entropy

SEEN, HIDDEN, AWAY = 1.0, 0.5, 0.0
"""The confidence to be learned of joints that are seen, hidden in the picture, and outside of it or of the input."""
_HIDDEN_WEIGHT = 0.3  # in where a joint is, beside one that is seen
_NAMES = SKELETONS[SKELETON]
_MIRROR = [_NAMES.index({"L": "R", "R": "L"}[name[0]] + name[1:] if "_" in name else name) for name in _NAMES]
_CHOSEN = [SMPL30_INDEX[name] for name in _NAMES]


class Options(BaseModel):
    """The table `[pose]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    box_error: Annotated[float, Field(ge=0, le=0.3)] = 0.06
    """Deviation of each edge of the boxes, of the side they belong to: what a detector is wrong by."""


class PoseTask:
    """See `tasks.Task`."""

    def __init__(self, options: Options, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = TinyPose().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._options, self._seed = options, seed
        self._last: tuple[int, dict[str, Array]] | None = None

    def samples(self, indices: Sequence[int]) -> dict[str, Array]:
        """Sample 2 n is somebody of scene n of the seed, 2 n + 1 the mirror image.

        Returns:
            image (N, H, W, 3) uint8 BGR as the runtime cuts it; joints (N, 17, 2) in its pixels; confidence (N, 17).
        """
        samples = [mirrored(self._scene(n // 2)) if n % 2 else self._scene(n // 2) for n in indices]
        return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}

    def _scene(self, index: int) -> dict[str, Array]:
        """The sample of a scene as it is, kept for its mirror image because drawing costs as much as learning."""
        if self._last is None or self._last[0] != index:
            self._last = index, self._drawn(index)
        return self._last[1]

    def _drawn(self, index: int) -> dict[str, Array]:
        rng = np.random.default_rng((self._seed, index, 3))  # apart from that of the scene
        scene = draw_scene(self._seed, index)
        person = int(rng.integers(len(scene)))
        pixels = scene.camera.project_px(scene.coarse_m[person])
        box_px = self._as_detected(rng, np.concatenate([pixels.min(0), pixels.max(0)]), scene.size_px)
        affine = input_from_image(box_px[None], SIZE_PX)
        # The crop is square: the input is its middle columns.
        side, margin = SIZE_PX[1], (SIZE_PX[1] - SIZE_PX[0]) // 2
        centre, half = (box_px[:2] + box_px[2:]) / 2, side / 2 / affine[0, 0, 0]
        window = crop(scene, person, side, box_px=np.concatenate([centre - half, centre + half]))
        joints_px = window.labels.joints_px[0, _CHOSEN]
        joints = transform_px(affine[0], joints_px.astype(np.float64))
        in_picture = ((joints_px >= -0.5) & (joints_px < np.array(scene.size_px) - 0.5)).all(1)
        there = in_picture & ((joints >= 0) & (joints < SIZE_PX)).all(1)
        seen = there & window.labels.joints_visible[0, _CHOSEN]
        return {
            "image": np.ascontiguousarray(window.image_bgr[:, margin : side - margin]),
            "joints": joints.astype(np.float32),
            "confidence": np.where(seen, SEEN, np.where(there, HIDDEN, AWAY)).astype(np.float32),
        }

    def _as_detected(self, rng: np.random.Generator, box_px: Array, size_px: tuple[int, int]) -> Array:
        """A person's box (4,) clipped to the picture, each edge moved; at least a pixel wide and high."""
        box = np.clip(box_px.reshape(2, 2), -0.5, np.array(size_px) - 0.5)
        box += rng.normal(0, self._options.box_error, (2, 2)) * (box[1] - box[0])
        return np.concatenate([box[0], np.maximum(box[1], box[0] + 1)])

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of both distributions of the joints that are there, and of the confidence of all."""
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

    def save(self, path: Path) -> None:
        """Write what `tiny_pose.export_pose` reads."""
        save_weights(self.model, path)


def mirrored(sample: dict[str, Array]) -> dict[str, Array]:
    """A sample seen in a mirror: left joints have become right ones."""
    joints = sample["joints"][_MIRROR] * np.array((-1, 1), np.float32) + np.array((SIZE_PX[0] - 1, 0), np.float32)
    image = np.ascontiguousarray(sample["image"][:, ::-1])
    return {"image": image, "joints": joints, "confidence": sample["confidence"][_MIRROR]}


def normalised(images_bgr: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 BGR -> (B, 3, H, W) float32 as `runtime.pose.simcc.normalised` gives it, channels last."""
    mean, deviation = (torch.from_numpy(each).to(images_bgr.device) for each in (MEAN_RGB, DEVIATION_RGB))
    return ((images_bgr.flip(-1).float() - mean) / deviation).permute(0, 3, 1, 2)


def make(options: Options, seed: int) -> PoseTask:
    """The task on scenes of `seed`; the start weights are of the same seed."""
    return PoseTask(options, seed)
