"""Kernels: vertices of a body, evenly spread, each the centre of a Gaussian (docs/fitting.md section 1)."""

from __future__ import annotations

import hashlib
import heapq
import math
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from jotr_deploy.body.faces import VERTICES
from jotr_deploy.body.smpl import BodyModel
from jotr_deploy.errors import FitError
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.read_errors import read_errors
from jotr_deploy.support.writing import written_aside

KERNELS = 858
"""Number of kernels in the published volume: the template decimated by about eight."""
LIMBS: tuple[str, ...] = (
    *("torso", "L_thigh", "R_thigh", "L_calf", "R_calf", "L_upper_arm", "R_upper_arm", "L_forearm", "R_forearm"),
)
LIMB_OF_JOINT: tuple[int, ...] = (0, 1, 2, 0, 3, 4, 0, 3, 4, 0, 3, 4, 0, 0, 0, 0, 5, 6, 7, 8, 7, 8, 7, 8)
"""The limb, an index of `LIMBS`, that each of SMPL's 24 joints moves; the head belongs to the torso."""
LIMB_BONES: tuple[tuple[int, int], ...] = (
    *((0, 12), (1, 4), (2, 5), (4, 7), (5, 8), (16, 18), (17, 19), (18, 20), (19, 21)),
)
"""The proximal and the distal joint of each limb: its direction points from the first to the second."""
VERSION = 1
_REMEDY = "make them again from the body of this bundle: fitting.kernels.decimate"


@dataclass(frozen=True, eq=False)
class Kernels:
    """Vertices that carry a Gaussian, and the body that they belong to."""

    indices: Array  # (K,) int64 vertices of the body, ascending
    edges: Array  # (E, 2) int64 pairs of kernels that are neighbours, the lower first
    limbs: Array  # (K,) int64 the limb of each, an index of LIMBS
    body: str  # fingerprint of the body that they were taken from

    def __len__(self) -> int:
        return len(self.indices)

    def neighbours(self) -> Array:
        """(K, K) bool, true where two kernels share an edge."""
        adjacent = np.zeros((len(self), len(self)), bool)
        adjacent[self.edges[:, 0], self.edges[:, 1]] = True
        return adjacent | adjacent.T


def fingerprint(body: BodyModel) -> str:
    """Hash of everything that kernels depend on: rest vertices, skinning weights and faces of a body."""
    digest = hashlib.sha256()
    for array in (body.v_template, body.weights, body.faces):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def decimate(body: BodyModel, count: int = KERNELS) -> Kernels:
    """Choose `count` vertices of a body by farthest-point sampling; deterministic.

    Two kernels are neighbours if an edge of the mesh connects the vertices nearest to one, along the mesh, with those
    nearest to the other.

    Raises:
        FitError: fewer kernels than limbs, or more than vertices.
    """
    if not len(LIMBS) <= count <= VERTICES:
        raise FitError(f"{count} kernels cannot be chosen", f"give {len(LIMBS)} to {VERTICES}")
    indices = _farthest_points(body.v_template, count)
    owner = _nearest_along_edges(body, indices)
    sides = np.sort(owner[body.faces[:, [[0, 1], [1, 2], [2, 0]]]].reshape(-1, 2), 1)
    edges = np.unique(sides[sides[:, 0] != sides[:, 1]], axis=0)
    limbs = np.asarray(LIMB_OF_JOINT)[body.weights[indices].argmax(1)]
    return Kernels(indices, edges, limbs, fingerprint(body))


def _farthest_points(points: Array, count: int) -> Array:
    """Indices of `count` of the points (P, 3), ascending, starting with the one farthest from their mean."""
    points = points.astype(np.float64)
    nearest = np.linalg.norm(points - points.mean(0), axis=1)
    chosen = np.empty(count, np.int64)
    for number in range(count):
        chosen[number] = nearest.argmax()
        distance = np.linalg.norm(points - points[chosen[number]], axis=1)
        nearest = distance if number == 0 else np.minimum(nearest, distance)
    return np.sort(chosen)


def _nearest_along_edges(body: BodyModel, indices: Array) -> Array:
    """(V,) position in `indices` of the vertex nearest to each, by shortest path along the edges of the mesh."""
    around: list[list[tuple[int, float]]] = [[] for _ in range(VERTICES)]
    for one, two in ((0, 1), (1, 2), (2, 0)):
        starts, ends = body.faces[:, one].tolist(), body.faces[:, two].tolist()
        lengths = np.linalg.norm(body.v_template[starts] - body.v_template[ends], axis=1).tolist()
        for start, end, length in zip(starts, ends, lengths, strict=True):
            around[start].append((end, length))
            around[end].append((start, length))
    owner = np.zeros(VERTICES, np.int64)
    distance = [math.inf] * VERTICES
    queue = [(0.0, vertex, place) for place, vertex in enumerate(indices.tolist())]
    while queue:
        walked, vertex, place = heapq.heappop(queue)
        if walked >= distance[vertex]:
            continue
        distance[vertex], owner[vertex] = walked, place
        for other, length in around[vertex]:
            if walked + length < distance[other]:
                heapq.heappush(queue, (walked + length, other, place))
    return owner


def mean_edge_m(kernels: Kernels, body: BodyModel) -> float:
    """Mean distance of neighbouring kernels on the body at rest, metres."""
    first, second = kernels.edges.T
    centres = body.v_template[kernels.indices].astype(np.float64)
    return float(np.linalg.norm(centres[first] - centres[second], axis=1).mean())


def save_kernels(kernels: Kernels, path: Path) -> None:
    """Write kernels as an `.npz`; `load_kernels` reads it."""
    with written_aside(path) as aside, aside.open("wb") as file:
        np.savez(file, version=VERSION, **{field.name: getattr(kernels, field.name) for field in fields(kernels)})


def load_kernels(path: Path) -> Kernels:
    """Read what `save_kernels` wrote.

    Raises:
        FitError: no such file, another kind of file or version, or indices outside the body.
    """
    names = [field.name for field in fields(Kernels)]
    with (
        read_errors(path, FitError, "a file of kernels", _REMEDY, ("a NumPy archive (.npz)",)),
        np.load(path, allow_pickle=False) as archive,
    ):
        version = int(archive["version"])
        if version != VERSION:
            raise FitError(f"{path}: kernels of version {version}, this program reads {VERSION}", _REMEDY)
        found = {name: archive[name] for name in names}
        kernels = Kernels(**{**found, "body": str(found["body"])})
        count = len(kernels.indices)
        shapes = kernels.indices.ndim == 1 and kernels.edges.shape[1:] == (2,) and kernels.limbs.shape == (count,)
        limits = ((kernels.indices, VERTICES), (kernels.edges, count), (kernels.limbs, len(LIMBS)))
        if not shapes or any(a.dtype.kind != "i" or (a < 0).any() or (a >= limit).any() for a, limit in limits):
            raise FitError(f"{path}: its kernels are no vertices of a body", _REMEDY)
    return kernels
