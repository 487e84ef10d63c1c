"""People without stored meshes: vertices and faces are computed with the bundle on first access."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from jotr_deploy.body.exported import NETWORK, ExportedBody
from jotr_deploy.bundle import Bundle, open_bundle, starter_path
from jotr_deploy.errors import BundleError, JotrDeployError, first_line
from jotr_deploy.people import LAYOUT, People, Person, is_number, scalar, several, taken
from jotr_deploy.support.aliases import Array

MeshesOf = Callable[[Array, Array], Array]
"""Pose (N, 24, 3) and shape (N, 10) to vertices (N, 6890, 3)."""

_REMEDY = (
    "name the bundle it was made with (view: --bundle DIR; Python: read_people(path, bundle)), "
    "or run again with --vertices"
)


class PutOff:
    """Base class for values with attributes that are computed on first access and then kept."""

    def put_off(self, **makers: Callable[[], Any]) -> None:
        """Drop these attributes, so that they are computed on next access."""
        for name in makers:
            vars(self).pop(name, None)
        vars(self)["_makers"] = makers

    def __getattr__(self, name: str) -> Any:  # only where there is no such attribute
        make = vars(self).get("_makers", {}).get(name)
        if make is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        vars(self)[name] = made = make()
        return made

    def __repr__(self) -> str:
        """Text of the values present, so that printing computes nothing."""
        known = (f"{name}={value!r}" for name, value in vars(self).items() if name[0] != "_")
        return f"{type(self).__name__}({', '.join(known)})"


class PosedPeople(PutOff, People):
    """People whose `vertices_m` are computed from pose and shape; other attributes need no body.

    A selection of people is of this type too, and computes only its own meshes.
    """

    @classmethod
    def of(cls, arrays: Mapping[str, Any], meshes_of: MeshesOf) -> PosedPeople:
        """People from all fields but `vertices_m`, checked as those of any `People`."""
        people = cls(**arrays, vertices_m=_no_mesh(len(arrays["boxes_px"])))
        vars(people)["_meshes_of"] = meshes_of
        pose_rad, betas = people.pose_rad, people.betas
        people.put_off(vertices_m=lambda: meshes_of(pose_rad, betas))
        return people

    def __getitem__(self, index: Any) -> Any:
        """Some of the people, as `People` gives them."""
        if "vertices_m" in vars(self):
            return super().__getitem__(index)
        chosen = index if is_number(index) else several(index)
        arrays = {f.name: taken(getattr(self, f.name), chosen) for f in fields(self) if f.name != "vertices_m"}
        if not is_number(index):
            return PosedPeople.of(arrays, self._meshes_of)
        arrays["vertices_m"] = _no_mesh(1)[0]
        person = _PosedPerson(*(scalar(arrays[f.name]) for f in fields(self)))
        pose_rad, betas, meshes_of = person.pose_rad[None], person.betas[None], self._meshes_of
        person.put_off(vertices_m=lambda: meshes_of(pose_rad, betas)[0])
        return person


class _PosedPerson(PutOff, Person):
    """One of `PosedPeople`."""


def _no_mesh(count: int) -> Array:
    """(count, 6890, 3) that takes no memory."""
    return np.broadcast_to(np.float32(0), (count, *LAYOUT["vertices_m"][0]))


class BundleMeshes:
    """Body of the bundle that made a result, opened on first use."""

    def __init__(self, result: Path, sha256: str, hint: str, bundle: Bundle | Path | None = None) -> None:
        """Record where the body may be, without opening anything.

        Args:
            result: the file, for messages.
            sha256: of the `mesh.onnx` that made it.
            hint: path that the bundle had; empty if unknown.
            bundle: named by the user.

        Raises:
            BundleError: the path that the user names is not a bundle, or another one.
        """
        self._result, self._sha256 = result, sha256
        self._hint = hint if hint.isprintable() else ""  # a message is one line
        self._lock = Lock()  # a page calls from several threads
        if bundle is not None:
            self._bundle = self._checked(bundle if isinstance(bundle, Bundle) else open_bundle(bundle))

    def __call__(self, pose_rad: Array, betas: Array) -> Array:
        """Vertices (N, 6890, 3) float32, metres, relative to the pelvis.

        Raises:
            BundleError: the bundle is not there, another one, or has no body.
        """
        if not len(pose_rad):
            return np.array(_no_mesh(0))
        with self._lock:
            return self._body.vertices_m(pose_rad, betas)

    def faces(self) -> Array:
        """(F, 3) int32; (0, 3) where the bundle has none.

        Raises:
            BundleError: the bundle is not there, or another one.
        """
        with self._lock:
            if not self._bundle.has("faces"):
                return np.zeros((0, 3), np.int32)
            path = self._bundle.file("faces")
            try:
                return np.load(path, allow_pickle=False).astype(np.int32).reshape(-1, 3)
            except (OSError, ValueError, EOFError) as error:
                raise BundleError(f"{path}: not triangles ({first_line(error)})", "export the bundle again") from error

    @cached_property
    def _body(self) -> ExportedBody:
        return ExportedBody(self._bundle)

    @cached_property
    def _bundle(self) -> Bundle:
        """Bundle at the hint, else that of this package, if it made the result."""
        if not self._hint:
            raise BundleError(f"{self._result}: holds no vertices and does not say which bundle made it", _REMEDY)
        try:
            return self._checked(open_bundle(Path(self._hint)))
        except JotrDeployError as error:
            try:
                return self._checked(open_bundle(starter_path()))
            except JotrDeployError:
                cause = f"{self._result}: holds no vertices, and its bundle cannot be used ({error.cause})"
                raise BundleError(cause, _REMEDY) from error

    def _checked(self, bundle: Bundle) -> Bundle:
        if bundle.entry("mesh", NETWORK).sha256 == self._sha256:
            return bundle
        if not bundle.has("faces"):
            raise BundleError(f"{bundle.path}: exported with --no-body, it makes no meshes", _REMEDY)
        raise BundleError(
            f"{bundle.path}: another network than the one that made {self._result} (its {NETWORK} has another sha256)",
            _REMEDY,
        )
