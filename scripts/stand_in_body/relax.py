"""Well-shaped triangles on the surface: Delaunay flips, tangential smoothing, projection; then the mirror image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import reverse_cuthill_mckee

from .mesh import Half, wanted_edge_m
from .shape import Array, field

PASSES = 30


def gradient(points: Array) -> Array:
    """(N, 3) gradient of the field."""
    step = 5e-4
    shifts = step * np.vstack([np.eye(3), -np.eye(3)])
    values = field((points[None] + shifts[:, None]).reshape(-1, 3)).reshape(6, -1)
    slope: Array = ((values[:3] - values[3:]) / (2 * step)).T
    return slope


def project(points: Array, seam: Array) -> Array:
    """Move points along the gradient until they lie on the skin; seam points stay in the plane x = 0."""
    moved: Array = points.copy()
    for _ in range(4):
        slope = gradient(moved)
        slope[seam, 0] = 0.0
        step = field(moved) / np.maximum((slope**2).sum(1), 0.05)
        moved -= np.clip(step, -0.004, 0.004)[:, None] * slope
    return moved


def edges_of(faces: Array) -> Array:
    """(E, 2) undirected edges, each once."""
    return np.unique(np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1), axis=0)


def smooth(half: Half) -> Array:
    """Points moved towards the weighted mean of their neighbours within the tangent plane (seam: along the seam)."""
    edges = edges_of(half.faces)
    a, b = np.r_[edges[:, 0], edges[:, 1]], np.r_[edges[:, 1], edges[:, 0]]
    follows = ~half.seam[a] | half.seam[b]
    a, b = a[follows], b[follows]
    wanted = wanted_edge_m(half.points)
    pull = np.linalg.norm(half.points[a] - half.points[b], axis=1) / (wanted[a] + wanted[b])
    mean = np.zeros_like(half.points)
    np.add.at(mean, a, pull[:, None] * half.points[b])
    mean /= np.bincount(a, pull, len(mean))[:, None]
    normal = gradient(half.points)
    normal[half.seam, 0] = 0.0
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    shift = mean - half.points
    shift -= (shift * normal).sum(1, keepdims=True) * normal
    shift[half.fixed > 0] = 0.0
    return half.points + 0.45 * shift  # below a half: two neighbours never pass each other


def _cotangent(apex: Array, a: Array, b: Array) -> float:
    u, v = a - apex, b - apex
    return float(u @ v / (np.linalg.norm(np.cross(u, v)) + 1e-15))


def flip_edges(half: Half) -> int:
    """Flip, in place, every edge whose opposite angles sum to more than pi; returns how many flips were made."""
    points, faces = half.points, half.faces
    owner = {(int(f[i]), int(f[(i + 1) % 3])): n for n, f in enumerate(faces) for i in range(3)}
    valence = np.bincount(edges_of(faces).ravel(), minlength=len(points))
    flips = 0
    for a, b in [edge for edge in owner if edge[0] < edge[1] and edge[::-1] in owner]:
        if (a, b) not in owner or (b, a) not in owner:
            continue
        left, right = owner[a, b], owner[b, a]
        c, d = int(faces[left].sum() - a - b), int(faces[right].sum() - a - b)
        chord = (half.seam[c] and half.seam[d]) or (c, d) in owner or (d, c) in owner
        if chord or min(valence[a] + half.seam[a], valence[b] + half.seam[b]) < 5:
            continue
        if _cotangent(points[c], points[a], points[b]) + _cotangent(points[d], points[a], points[b]) > -1e-3:
            continue
        old = [np.cross(points[q] - points[p], points[r] - points[p]) for p, q, r in ((a, b, c), (b, a, d))]
        new = [np.cross(points[q] - points[p], points[r] - points[p]) for p, q, r in ((c, d, b), (d, c, a))]
        if min(float(n @ o) for n in new for o in old) <= 0:
            continue
        faces[left], faces[right] = (c, d, b), (d, c, a)
        del owner[a, b], owner[b, a]
        owner[c, d], owner[d, c], owner[d, b], owner[a, d] = left, right, left, right
        owner[b, c], owner[c, a] = left, right
        valence[[a, b]] -= 1
        valence[[c, d]] += 1
        flips += 1
    return flips


def face_normals(points: Array, faces: Array) -> Array:
    """(F, 3) unit normals."""
    a, b, c = points[faces[:, 0]], points[faces[:, 1]], points[faces[:, 2]]
    normal: Array = np.cross(b - a, c - a)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-15
    return normal


def relax(half: Half) -> Half:
    """Alternate flips, smoothing and projection; vertices whose faces would turn over stay where they are."""
    points, faces = half.points.copy(), half.faces.copy()
    relaxed = Half(points, faces, half.seam, half.fixed)
    for _ in range(PASSES):
        flip_edges(relaxed)
        moved = project(smooth(relaxed), half.seam)
        moved[half.fixed > 0] = points[half.fixed > 0]
        before = face_normals(points, faces)
        while (turned := (face_normals(moved, faces) * before).sum(1) < 0.3).any():
            stay = np.unique(faces[turned])
            moved[stay] = points[stay]
        points[:] = moved
    flip_edges(relaxed)
    return relaxed


# ---------------------------------------------------------------------------------------------------- the whole
NUMBERED = {"nose": (331, 331), "eye": (2802, 6262), "ear": (3489, 3990), "crown": (412, 412)}  # left, right vertex


@dataclass(frozen=True)
class Body:
    """The whole body: points (V, 3), faces (F, 3), and `mirror` (V,), the number of each vertex's mirror image."""

    points: Array
    faces: Array
    mirror: Array


def complete(half: Half) -> Body:
    """Add the mirror image; neighbours get near numbers (small files), face landmarks the numbers SMPL gives them."""
    edges, count = edges_of(half.faces), len(half.points)
    graph = coo_matrix((np.ones(2 * len(edges)), (edges.ravel(), edges[:, ::-1].ravel())), (count, count)).tocsr()
    order = reverse_cuthill_mckee(graph, symmetric_mode=True)
    order = np.r_[order[~half.seam[order]], order[half.seam[order]]]
    inner = count - int(half.seam.sum())
    left = np.empty(count, np.int64)
    left[order] = np.arange(count)
    right = np.where(half.seam, left, left + count)
    number = np.arange(count + inner)
    for rank, pair in enumerate(NUMBERED.values(), start=1):
        vertex = int(np.flatnonzero(half.fixed == rank)[0])
        for old, new in {(int(left[vertex]), pair[0]), (int(right[vertex]), pair[1])}:
            holder = int(np.flatnonzero(number == new)[0])
            number[[old, holder]] = number[[holder, old]]
    left, right = number[left], number[right]
    points = np.empty((count + inner, 3))
    points[right], points[left] = half.points * [-1, 1, 1], half.points
    mirror = np.empty(count + inner, np.int64)
    mirror[left], mirror[right] = right, left
    rows = half.faces[np.argsort(left[half.faces].min(1), kind="stable")]
    return Body(points, np.vstack([left[rows], right[rows][:, ::-1]]), mirror)
