"""The one result type: every person recovered in one frame."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, overload

import numpy as np

from jotr_deploy.support.aliases import Array

# field -> (shape after N, dtype); the only place that defines the layout of a person.
LAYOUT: dict[str, tuple[tuple[int, ...], type]] = {
    "boxes_px": ((4,), np.float32),
    "scores": ((), np.float32),
    "track_ids": ((), np.int64),
    "keypoints_px": ((30, 3), np.float32),
    "joints_used": ((), np.int64),
    "joints_img": ((15, 3), np.float32),
    "pose_rad": ((24, 3), np.float32),
    "betas": ((10,), np.float32),
    "cam": ((3,), np.float32),
    "translation_m": ((3,), np.float32),
    "focal_px": ((), np.float32),
    "principal_px": ((2,), np.float32),
    "joints_m": ((30, 3), np.float32),
    "vertices_m": ((6890, 3), np.float32),
    "aligned": ((), np.bool_),
    "joint_error": ((2,), np.float32),
}
LATER = frozenset({"aligned", "joint_error"})
"""Fields that a result may lack, as results of earlier versions do; they default to zero."""


@dataclass(frozen=True, eq=False)
class PersonFit:
    """Outcome of a fit for one person; see `PeopleFit`."""

    tried: bool
    outside: bool
    accepted: bool
    mirrored: bool
    warm: bool
    energy_before: float
    energy_after: float
    terms_before: dict[str, float]
    terms_after: dict[str, float]
    occlusion: Array  # (S, S) bool

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON: None for NaN, and the map as the base64 text of its bits, row by row."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "occlusion"}
        bits = base64.b64encode(np.packbits(self.occlusion).tobytes()).decode("ascii")
        return {**_finite(values), "occlusion": {"size": list(self.occlusion.shape), "bits": bits}}


@dataclass(frozen=True, eq=False)
class PeopleFit:
    """Outcome of a fit for each of N people (docs/fitting.md); parallel arrays, of rank as below also for N = 0."""

    tried: Array  # (N,) bool; the others have no cell of their crop in the picture, or are not in front of the camera
    outside: Array  # (N,) bool, no cell of the crop lies in the picture
    accepted: Array  # (N,) bool, the fit lowered the energy; the others are as the mesh stage gave them, to the bit
    mirrored: Array  # (N,) bool, it did so from the start mirrored in depth
    warm: Array  # (N,) bool, it did so from the pose and place of the frame before
    energy_before: Array  # (N,) float64, NaN of those not tried, as the next three
    energy_after: Array  # (N,) of the person returned
    terms_before: dict[str, Array]  # (N,) each, without its weight
    terms_after: dict[str, Array]
    occlusion: Array  # (N, S, S) bool, cells of the crop where something hides the body

    def __len__(self) -> int:
        return len(self.tried)

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> PersonFit: ...
    @overload
    def __getitem__(self, index: slice | Array | Sequence[int] | Sequence[bool]) -> PeopleFit: ...
    def __getitem__(self, index: Any) -> PersonFit | PeopleFit:
        """One person's fit or those of several, as `People` selects them."""
        one = is_number(index)
        chosen = index if one else several(index)

        def of(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: of(each) for name, each in value.items()}
            return scalar(value[chosen]) if one else value[chosen]

        values = (of(getattr(self, f.name)) for f in fields(self))
        return PersonFit(*values) if one else PeopleFit(*values)

    @classmethod
    def concatenate(cls, parts: Sequence[PeopleFit]) -> PeopleFit:
        """Fits of several results, in order; at least one."""

        def joined(values: list[Any]) -> Any:
            if isinstance(values[0], dict):
                return {name: joined([each[name] for each in values]) for name in values[0]}
            return np.concatenate(values)

        return cls(*(joined([getattr(part, f.name) for part in parts]) for f in fields(cls)))


@dataclass(frozen=True, eq=False)
class People:
    """Every person recovered in one frame: parallel arrays over N people.

    N may be 0; every array keeps its rank. Image pixels have their origin at the centre of the top left pixel, x right,
    y down. The camera frame has the same x and y, with z into the scene. All people of a picture share one pinhole
    camera, or each has a camera of their own (see `docs/cameras.md`).
    """

    boxes_px: Array  # (N, 4) square crop box in the image, x0 y0 x1 y1
    scores: Array  # (N,) confidence of the detection, 1 where the source gives none
    track_ids: Array  # (N,) int64, -1 where untracked
    keypoints_px: Array  # (N, 30, 3) joints given to the network: x, y in the image, confidence; absent joints are zero
    joints_used: Array  # (N,) int64, how many of them the network was given
    joints_img: Array  # (N, 15, 3) refined joints of the 15-joint set, x y z in 0..1 of the crop volume
    pose_rad: Array  # (N, 24, 3) SMPL axis-angle, root first
    betas: Array  # (N, 10) SMPL shape
    cam: Array  # (N, 3) raw output of the camera head
    translation_m: Array  # (N, 3) pelvis in the camera: vertices_m + translation_m is the mesh there
    focal_px: Array  # (N,) focal length of the camera
    principal_px: Array  # (N, 2) principal point of the camera, in the image
    joints_m: Array  # (N, 30, 3) 30-joint set, relative to the pelvis
    vertices_m: Array  # (N, 6890, 3) mesh, relative to the pelvis
    aligned: Array = None  # type: ignore[assignment]  # (N,) bool, moved onto the given joints
    # (N, 2) mean distance between measured and given joints, as recovered and after alignment, as a fraction of the
    # crop's side; 0 where it was not measured
    joint_error: Array = None  # type: ignore[assignment]
    fit: PeopleFit | None = None  # of the same people; None where no fit was asked for

    def __post_init__(self) -> None:
        count = len(self.boxes_px)
        for name, (shape, dtype) in LAYOUT.items():
            given = getattr(self, name)
            missing = given is None and name in LATER
            array: Array = np.zeros((count, *shape), dtype) if missing else np.asarray(given, dtype)
            if array.shape != (count, *shape):
                raise ValueError(f"People.{name} is {array.shape}, expected {(count, *shape)}")
            object.__setattr__(self, name, array)
        if self.fit is not None and len(self.fit) != count:
            raise ValueError(f"People.fit is of {len(self.fit)} people, expected {count}")

    @classmethod
    def none(cls) -> People:
        """No people: every array keeps its rank, with N = 0."""
        nothing: dict[str, Any] = {name: np.zeros((0, *shape), dtype) for name, (shape, dtype) in LAYOUT.items()}
        return cls(**nothing)

    @classmethod
    def concatenate(cls, parts: Sequence[People]) -> People:
        """All people of several results, in order; an empty sequence gives no people.

        Their fits are kept if all of them have one.
        """
        if not parts:
            return cls.none()
        fits = [part.fit for part in parts if part.fit is not None]
        fit = PeopleFit.concatenate(fits) if len(fits) == len(parts) else None
        return cls(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in LAYOUT}, fit=fit)

    def __len__(self) -> int:
        return len(self.boxes_px)

    def __iter__(self) -> Iterator[Person]:
        return (self[k] for k in range(len(self)))

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Person: ...
    @overload
    def __getitem__(self, index: slice | Array | Sequence[int] | Sequence[bool]) -> People: ...
    def __getitem__(self, index: Any) -> Person | People:
        """One person by index, or several by a slice, a mask or indices, in that order.

        Raises:
            IndexError: an index beyond the last person, or a mask of another length.
        """
        if is_number(index):
            return Person(*(scalar(taken(getattr(self, f.name), index)) for f in fields(self)))
        chosen = several(index)
        return People(**{f.name: taken(getattr(self, f.name), chosen) for f in fields(self)})

    @property
    def vertices_camera_m(self) -> Array:
        """(N, 6890, 3) meshes in metres, each in the person's own camera frame."""
        return self.vertices_m + self.translation_m[:, None]

    @property
    def joints_camera_m(self) -> Array:
        """(N, 30, 3) joints of the 30-joint set in metres, each in the person's own camera frame."""
        return self.joints_m + self.translation_m[:, None]


@dataclass(frozen=True, eq=False)
class Person:
    """One of `People`: the same values under the same names in the singular."""

    box_px: Array  # (4,) square crop box in the image, x0 y0 x1 y1
    score: float  # confidence of the detection
    track_id: int  # -1 where untracked
    keypoints_px: Array  # (30, 3) joints given to the network: x, y in the image, confidence
    joints_used: int  # how many of them the network was given
    joints_img: Array  # (15, 3) refined joints, x y z in 0..1 of the crop volume
    pose_rad: Array  # (24, 3) SMPL axis-angle, root first
    betas: Array  # (10,) SMPL shape
    cam: Array  # (3,) raw output of the camera head
    translation_m: Array  # (3,) pelvis in the camera frame
    focal_px: float  # focal length of the camera
    principal_px: Array  # (2,) principal point of the camera, in the image
    joints_m: Array  # (30, 3) relative to the pelvis
    vertices_m: Array  # (6890, 3) mesh, relative to the pelvis
    aligned: bool  # moved onto the given joints
    joint_error: Array  # (2,) mean distance from the given joints, as a fraction of the crop's side: before and after
    fit: PersonFit | None = None  # None where no fit was asked for

    @property
    def vertices_camera_m(self) -> Array:
        """(6890, 3) mesh in the camera frame, metres."""
        return self.vertices_m + self.translation_m

    @property
    def joints_camera_m(self) -> Array:
        """(30, 3) joints in the camera frame, metres."""
        return self.joints_m + self.translation_m


def is_number(index: object) -> bool:
    """True for an index that selects a single person."""
    return isinstance(index, (int, np.integer)) and not isinstance(index, bool)


def several(index: Any) -> slice | Array:
    """An index that selects any number of people, as NumPy takes it; an empty list selects nobody.

    Raises:
        TypeError: not an index.
    """
    if isinstance(index, slice):
        return index
    chosen = np.asarray(index)
    if chosen.ndim != 1 or (len(chosen) and chosen.dtype.kind not in "bui"):
        raise TypeError(f"people are selected by an index, a slice, a mask or indices, not by {type(index).__name__}")
    return chosen if len(chosen) else chosen.astype(np.int64)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return value if math.isfinite(value) else None


def taken(value: Any, index: Any) -> Any:
    """Value at an index; None where there is none."""
    return None if value is None else value[index]


def scalar(value: Any) -> Any:
    """A row unchanged, a single number as a Python scalar."""
    return value.item() if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0 else value
