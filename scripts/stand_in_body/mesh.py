"""From the field to a mesh of exactly the wanted size: half a body, simplified, relaxed, mirrored.

Only the half x >= 0 is meshed. It is a disk whose rim, the seam, lies in the plane x = 0, so that the whole
(half + mirror image, glued along the seam) is closed, of genus 0, and exactly symmetric.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
from skimage import measure

from .shape import FINGERTIPS, Array, field

GRID_M = 0.004
GRID_LOW, GRID_HIGH = (0.0, -1.19, -0.15), (0.884, 0.55, 0.21)
EDGE_M = 0.0235  # the longest wanted edge, on the trunk
FINE_REGIONS = [  # centre, radius, wanted edge inside; grows by GRADING outside
    ((0.0, 0.385, 0.10), 0.05, 0.0062),
    ((0.0, 0.42, 0.0), 0.12, 0.0125),
    ((0.075, 0.41, -0.006), 0.03, 0.0070),
    ((0.775, 0.207, -0.04), 0.10, 0.0072),
    ((0.11, -1.14, 0.05), 0.13, 0.0120),
    ((0.0, -0.40, 0.0), 0.04, 0.0130),
    ((0.48, 0.21, -0.035), 0.22, 0.0175),
    ((0.10, -0.90, -0.01), 0.25, 0.0185),
]
GRADING = 0.2


def wanted_edge_m(points: Array) -> Array:
    """(N,) edge length wanted at each point."""
    wanted = np.full(len(points), EDGE_M)
    for centre, radius, edge in FINE_REGIONS:
        beyond = np.maximum(np.linalg.norm(points - np.array(centre), axis=1) - radius, 0)
        wanted = np.minimum(wanted, edge + GRADING * beyond)
    return wanted


@dataclass
class Half:
    """The half body: points (V, 3), faces (F, 3), `seam` marks the rim, `fixed` the vertices that must not move."""

    points: Array
    faces: Array
    seam: Array
    fixed: Array


def extract_half() -> Half:
    """The dense mesh of the left half; nose, eye, ear, crown (in this order) and fingertips are fixed."""
    axes = [np.arange(low, high, GRID_M) for low, high in zip(GRID_LOW, GRID_HIGH, strict=True)]
    plane = np.stack(np.meshgrid(*axes[1:], indexing="ij"), axis=-1).reshape(-1, 2)
    values = [field(np.c_[np.full(len(plane), x), plane]) for x in axes[0]]
    volume = np.array(values).reshape([len(a) for a in axes])
    extract: Any = measure.marching_cubes  # has no type hints
    points, faces, _, _ = extract(volume, 0.0, spacing=(GRID_M,) * 3, gradient_direction="descent")
    points = points.astype(np.float64) + GRID_LOW
    seam = points[:, 0] < 1e-9
    head, eye = points[:, 1] > 0.36, np.array([0.032, 0.421, 0.1005])
    landmarks = [
        np.argmax(np.where(seam & head, points[:, 2], -9)),
        np.argmin(np.linalg.norm(points - eye, axis=1)),
        np.argmax(np.where(head, points[:, 0], -9)),
        np.argmax(np.where(seam, points[:, 1], -9)),
    ]
    landmarks += [np.argmin(np.linalg.norm(points - tip, axis=1)) for tip in FINGERTIPS]
    fixed = np.zeros(len(points), np.int64)
    fixed[landmarks] = np.arange(len(landmarks)) + 1
    return Half(points, faces.astype(np.int64), seam, fixed)


# ---------------------------------------------------------------------------------------------------- simplify
class Collapser:
    """Removes vertices by collapsing the edge that is shortest in proportion to the wanted length."""

    def __init__(self, half: Half) -> None:
        self.points, self.seam, self.fixed = half.points.copy(), half.seam, half.fixed
        self.wanted = wanted_edge_m(half.points)
        self.faces = [tuple(face) for face in half.faces.tolist()]
        self.faces_of: list[set[int]] = [set() for _ in self.points]
        for index, face in enumerate(self.faces):
            for vertex in face:
                self.faces_of[vertex].add(index)
        self.age = [0] * len(self.points)
        self.heap: list[tuple[float, int, int, int, int]] = []
        for a, b in {(min(e), max(e)) for f in self.faces for e in zip(f, f[1:] + f[:1], strict=True)}:
            self._push(a, b)
        heapq.heapify(self.heap)

    def _push(self, a: int, b: int, sift: bool = False) -> None:
        offset = self.points[a] - self.points[b]
        cost = float(offset @ offset) ** 0.5 / (self.wanted[a] + self.wanted[b])
        entry = (cost, a, b, self.age[a], self.age[b])
        heapq.heappush(self.heap, entry) if sift else self.heap.append(entry)

    def _neighbours(self, vertex: int) -> set[int]:
        return {v for index in self.faces_of[vertex] for v in self.faces[index]} - {vertex}

    def _allowed(self, keep: int, gone: int) -> bool:
        """The link condition, no new chord between seam vertices, no valence below 4."""
        around_keep, around_gone = self._neighbours(keep), self._neighbours(gone)
        shared = around_keep & around_gone
        wings = self.faces_of[keep] & self.faces_of[gone]
        rim_edge = self.seam[keep] and self.seam[gone]
        if len(wings) != (1 if rim_edge else 2) or len(shared) != len(wings):
            return False
        if self.seam[keep] and any(self.seam[v] for v in around_gone - shared - {keep}) and not rim_edge:
            return False
        if rim_edge and any(self.seam[v] and v not in around_gone for v in shared):
            return False
        return all(len(self._neighbours(v)) > 4 or self.seam[v] for v in shared)

    def _position(self, keep: int, gone: int) -> Array:
        stays = self.fixed[keep] or self.seam[keep] != self.seam[gone]
        position: Array = self.points[keep] if stays else (self.points[keep] + self.points[gone]) / 2
        return position

    def _folds(self, vertex: int, other: int, position: Array) -> bool:
        for index in self.faces_of[vertex] - self.faces_of[other]:
            a, b, c = (self.points[v] for v in self.faces[index])
            p, q, r = (position if v == vertex else self.points[v] for v in self.faces[index])
            if np.dot(_cross(b - a, c - a), _cross(q - p, r - p)) <= 0:
                return True
        return False

    def collapse_one(self, seam_only: bool) -> int:
        """Collapse the cheapest allowed edge; returns how many vertices the whole, mirrored body lost (1 or 2)."""
        while True:
            _, a, b, age_a, age_b = heapq.heappop(self.heap)
            if self.age[a] != age_a or self.age[b] != age_b:
                continue
            keep, gone = (b, a) if (self.seam[b], self.fixed[b]) > (self.seam[a], self.fixed[a]) else (a, b)
            if self.fixed[gone] or (seam_only and not self.seam[gone]) or not self._allowed(keep, gone):
                continue
            position = self._position(keep, gone)
            if self._folds(keep, gone, position) or self._folds(gone, keep, position):
                continue
            self._apply(keep, gone, position)
            return 1 if self.seam[gone] else 2

    def _apply(self, keep: int, gone: int, position: Array) -> None:
        for index in list(self.faces_of[gone]):
            if keep in self.faces[index]:
                for vertex in self.faces[index]:
                    self.faces_of[vertex].discard(index)
                continue
            self.faces[index] = tuple(keep if v == gone else v for v in self.faces[index])
            self.faces_of[keep].add(index)
        self.faces_of[gone].clear()
        self.points[keep] = position
        self.wanted[keep] = (self.wanted[keep] + self.wanted[gone]) / 2
        self.age[gone] += 1
        self.age[keep] += 1
        for vertex in sorted(self._neighbours(keep)):
            self._push(keep, vertex, sift=True)

    def result(self) -> Half:
        alive = np.array([bool(faces) for faces in self.faces_of])
        used = sorted({index for faces in self.faces_of for index in faces})
        renumber = np.cumsum(alive) - 1
        faces = renumber[np.array([self.faces[index] for index in used])]
        return Half(self.points[alive], faces, self.seam[alive], self.fixed[alive])


def _cross(a: Array, b: Array) -> Array:
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def simplify(half: Half, vertices: int) -> Half:
    """Collapse edges until the mirrored whole has exactly this many vertices."""
    surplus = 2 * len(half.points) - int(half.seam.sum()) - vertices
    collapser = Collapser(half)
    while surplus > 0:
        surplus -= collapser.collapse_one(seam_only=surplus == 1)
    return collapser.result()
