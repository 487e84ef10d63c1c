"""People of a set as a few large arrays: they take less memory than separate objects, and processes can share them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from jotr_deploy.datasets.published.annotation import Annotation, Camera, Fit, Gender
from jotr_deploy.datasets.published.pictures import SIZE_NOT_SAID, size_of_picture
from jotr_deploy.support.aliases import Array

_BLOCK = 4096


class Annotations(Sequence[Annotation]):
    """People of a set by number, each made on access; numbers are float32."""

    def __init__(self, people: Iterable[Annotation] = ()) -> None:
        self._texts: list[tuple[str, Path, str, str, Gender]] = []
        self._whole = _Column(np.int64)
        self._box, self._joints_px = _Column(), _Column()
        self._joints_m, self._known = _Column(), _Column(np.bool_)
        self._fit, self._camera_from_fit, self._camera = _Column(), _Column(), _Column()
        self._found: list[Array | None] = []
        columns = [column for column in vars(self).values() if isinstance(column, _Column)]
        for person in people:
            self._append(person)
        for column in columns:
            column.finish()

    def _append(self, person: Annotation) -> None:
        fit, camera, found = person.fit, person.camera, person.found_px
        gender: Gender = fit.gender if fit else "neutral"
        self._texts.append((person.key, person.image, person.sequence, person.found_skeleton, gender))
        self._whole.append((*person.size_px, person.frame))
        self._box.append(person.box_px)
        self._joints_px.append(person.joints_px)
        self._joints_m.append(person.joints_m)
        self._known.append(person.joints_m_known)
        self._fit.append(np.concatenate([fit.pose_rad.ravel(), fit.betas, fit.trans_m]) if fit else None)
        self._camera_from_fit.append(fit.camera_from_fit if fit else None)
        self._camera.append((*camera.focal_px, *camera.principal_px) if camera else None)
        self._found.append(None if found is None else np.asarray(found, np.float32))

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, number: int) -> Annotation: ...
    @overload
    def __getitem__(self, number: slice) -> list[Annotation]: ...
    def __getitem__(self, number: int | slice) -> Annotation | list[Annotation]:
        if isinstance(number, slice):
            return [self[index] for index in range(*number.indices(len(self)))]
        key, image, sequence, found_skeleton, gender = self._texts[number]
        width, height, frame = self._whole.at(number).tolist()
        size_px = (width, height)
        return Annotation(
            key=key,
            image=image,
            size_px=size_of_picture(image) if size_px == SIZE_NOT_SAID else size_px,
            box_px=self._box.at(number),
            joints_px=self._joints_px.at(number),
            joints_m=self._joints_m.get(number),
            joints_m_known=self._known.get(number),
            fit=self._fit_at(number, gender),
            camera=_camera(self._camera.get(number)),
            found_px=self._found[number],
            found_skeleton=found_skeleton,
            sequence=sequence,
            frame=frame,
        )

    def _fit_at(self, number: int, gender: Gender) -> Fit | None:
        row = self._fit.get(number)
        if row is None:
            return None
        return Fit(row[:72].reshape(24, 3), row[72:82], row[82:], gender, self._camera_from_fit.get(number))


def _camera(row: Array | None) -> Camera | None:
    return None if row is None else Camera((float(row[0]), float(row[1])), (float(row[2]), float(row[3])))


class _Column:
    """Column of values that all or some people have: one array, and the row of every person in it, or -1."""

    def __init__(self, dtype: Any = np.float32) -> None:
        self.dtype = dtype
        self.rows: Array | list[int] = []
        self.values: Array = np.zeros(0, self.dtype)
        self._blocks: list[Array] = []
        self._recent: list[Any] = []
        self._count = 0

    def append(self, value: Any) -> None:
        assert isinstance(self.rows, list)
        self.rows.append(-1 if value is None else self._count)
        if value is not None:
            self._count += 1
            self._recent.append(value)
            if len(self._recent) == _BLOCK:
                self._close()

    def _close(self) -> None:
        self._blocks.append(np.asarray(self._recent, self.dtype))
        self._recent = []

    def finish(self) -> None:
        """Finish the column after the last person."""
        if self._recent:
            self._close()
        if self._blocks:
            self.values = np.concatenate(self._blocks)
        self.values.flags.writeable = False
        self.rows, self._blocks = np.asarray(self.rows, np.int32), []

    def get(self, number: int) -> Array | None:
        row = self.rows[number]
        return None if row < 0 else self.values[row]

    def at(self, number: int) -> Array:
        return self.values[self.rows[number]]
