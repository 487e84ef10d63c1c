"""Formats of an answer: JSON, the `.npz` of `run`, a GLB, or the picture with the meshes drawn over it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from jotr_deploy.people import LAYOUT, Person
from jotr_deploy.serving.inference_protocol import short_numbers
from jotr_deploy.serving.refusals import Refused
from jotr_deploy.support.aliases import Array
from jotr_deploy.visual.result_files import PeopleFile

JSON, NPZ, GLB, JPEG = "application/json", "application/x-npz", "model/gltf-binary", "image/jpeg"
MEDIA_TYPES = (JSON, NPZ, GLB, JPEG)
VERTICES = "vertices_m"
PERSON_FIELDS = dict(zip((each.name for each in fields(Person) if each.name != "fit"), LAYOUT, strict=True))
"""Field of `People` by the name of the same field of a person, which is the one in JSON."""
NOT_BY_DEFAULT = frozenset({VERTICES, "track_id"})


@dataclass(frozen=True)
class Wanted:
    """Request of a client: the fields and the format of an answer."""

    media_type: str = JSON
    people_fields: tuple[str, ...] = tuple(name for name in PERSON_FIELDS if name not in NOT_BY_DEFAULT)
    vertices: bool = False  # in the .npz

    @classmethod
    def of(cls, accept: str | None, listed: str | None) -> Wanted:
        """The wish of a client.

        Args:
            accept: the header.
            listed: names of fields with commas between them.

        Raises:
            Refused: 406 if no format is known, 400 for an unknown field.
        """
        media_type = _media_type(accept)
        if listed is None:
            return cls(media_type)
        names = tuple(dict.fromkeys(name.strip() for name in listed.split(",") if name.strip()))
        unknown = [name for name in names if name not in PERSON_FIELDS]
        if unknown:
            raise Refused(400, f"fields: {unknown[0]!r:.80} is not known", f"give some of {', '.join(PERSON_FIELDS)}")
        if media_type == NPZ and set(names) - {VERTICES}:
            raise Refused(400, f"fields: a {NPZ} has every field", f"give {VERTICES} alone, or leave it out")
        if media_type in (GLB, JPEG):
            raise Refused(400, f"fields: a {media_type} has none", "leave fields out")
        return cls(media_type, names, VERTICES in names)


def _media_type(accept: str | None) -> str:
    """The supported format that a client prefers."""
    offers = []
    for part in (accept or "*/*").split(","):
        name, *parameters = (each.strip().lower() for each in part.split(";"))
        weight = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        try:
            offers.append((float(weight), name))
        except ValueError:
            continue
    for _, name in sorted(offers, key=lambda offer: -offer[0]):
        if name in MEDIA_TYPES:
            return name
        if name in ("*/*", "application/*"):
            return JSON
    raise Refused(406, "no format of the header Accept is known", f"ask for {', '.join(MEDIA_TYPES)}")


def as_json(recording: PeopleFile, wanted: Wanted, facts: Mapping[str, Any]) -> bytes:
    """People as JSON: `size_px`, `labels`, `camera`, `people` with the fields of `Person`, and `facts`."""
    people = recording.people
    columns = {name: _column(getattr(people, PERSON_FIELDS[name])) for name in wanted.people_fields}
    content = {
        "size_px": list(recording.image_size_px),
        "labels": list(recording.labels),
        "camera": recording.camera[0],
        "people": [{name: column[k] for name, column in columns.items()} for k in range(len(people))],
        **facts,
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _column(values: Array) -> list[Any]:
    """A field of every person, as JSON takes it; a value that is not finite is null."""
    if values.dtype.kind != "f":
        return list(values.tolist())
    numbers: list[Any] = short_numbers(values.reshape(-1))
    if not np.isfinite(values).all():
        numbers = [number if np.isfinite(number) else None for number in numbers]
    array = np.array(numbers, object).reshape(values.shape)
    return list(array.tolist())
