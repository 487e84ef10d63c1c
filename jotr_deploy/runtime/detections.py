"""The people of one image before their meshes are recovered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, overload

import numpy as np

from jotr_deploy.people import is_number, scalar, several
from jotr_deploy.skeletons import SMPL30
from jotr_deploy.support.aliases import Array

_LAYOUT: dict[str, tuple[tuple[int, ...], type]] = {
    "boxes_px": ((4,), np.float32),
    "keypoints_px": ((len(SMPL30), 3), np.float32),
    "scores": ((), np.float32),
    "track_ids": ((), np.int64),
}


@dataclass(frozen=True, eq=False)
class Detections:
    """People located in one image: parallel arrays over N people; N may be 0."""

    boxes_px: Array  # (N, 4) x0 y0 x1 y1; square crop boxes once a people source has filled them
    keypoints_px: Array  # (N, 30, 3) 30-joint set: x, y in the image, confidence in 0..1; absent joints are zero
    scores: Array  # (N,) confidence in 0..1, 1 where the source gives none
    track_ids: Array  # (N,) int64, -1 where untracked

    def __post_init__(self) -> None:
        count = len(self.boxes_px)
        for name, (shape, dtype) in _LAYOUT.items():
            array: Array = np.asarray(getattr(self, name), dtype)
            if array.shape != (count, *shape):
                raise ValueError(f"Detections.{name} is {array.shape}, expected {(count, *shape)}")
            object.__setattr__(self, name, array)

    @classmethod
    def none(cls) -> Detections:
        """No people: every array keeps its rank, with N = 0."""
        return cls(**{name: np.zeros((0, *shape), dtype) for name, (shape, dtype) in _LAYOUT.items()})

    @classmethod
    def from_boxes(cls, boxes_px: Array, scores: Array | None = None) -> Detections:
        """People known only by their boxes: no joints, no track."""
        count = len(boxes_px)
        return cls(
            boxes_px,
            np.zeros((count, len(SMPL30), 3)),
            np.ones(count) if scores is None else scores,
            np.full(count, -1),
        )

    def __len__(self) -> int:
        return len(self.boxes_px)

    def __iter__(self) -> Iterator[Detection]:
        return (self[k] for k in range(len(self)))

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Detection: ...
    @overload
    def __getitem__(self, index: slice | Array | Sequence[int] | Sequence[bool]) -> Detections: ...
    def __getitem__(self, index: Any) -> Detection | Detections:
        """One person by index, or several by a slice, a mask or indices, in that order.

        Raises:
            IndexError: an index beyond the last person, or a mask of another length.
        """
        if is_number(index):
            return Detection(*(scalar(getattr(self, f.name)[index]) for f in fields(self)))
        chosen = several(index)
        return Detections(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})


@dataclass(frozen=True, eq=False)
class Detection:
    """One of `Detections`: the same values under the same names in the singular."""

    box_px: Array  # (4,) x0 y0 x1 y1
    keypoints_px: Array  # (30, 3) x, y in the image, confidence in 0..1; absent joints are zero
    score: float  # confidence in 0..1
    track_id: int  # -1 where untracked


def box_text(box_px: Array) -> str:
    """A box formatted for messages."""
    return "(" + ", ".join(f"{value:g}" for value in box_px) + ")"


def absent_is_zero(keypoints_px: Array) -> Array:
    """Zero all joints (N, J, 3) whose confidence is zero; changes and returns the array."""
    keypoints_px[..., 2] = np.clip(keypoints_px[..., 2], 0, 1)
    keypoints_px[keypoints_px[..., 2] == 0] = 0
    return keypoints_px
