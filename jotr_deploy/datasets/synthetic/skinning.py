"""The stand-in body posed in NumPy, many people at once, and a coarse mesh of it for pictures of small people."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from jotr_deploy.body.smpl import PARENTS, BodyModel, stand_in
from jotr_deploy.geometry.rotations import matrix_from_axis_angle
from jotr_deploy.support.aliases import Array

_BLOCK = 512  # vertices


@dataclass(frozen=True)
class Mesh:
    """Some or all vertices of the stand-in body, with triangles between them."""

    vertex: Array  # (V,) int64, which of the body's 6890 vertices
    template_m: Array  # (V, 3) float32 at rest: y up, x to the person's left, z forward
    directions: Array  # (10, 3 * V) float32 metres per unit of shape, all x, then y, then z
    weights: Array  # (24, V) float32
    faces: Array  # (F, 3) int64, counter-clockwise from outside
    fans: Array  # (3 * F,) int64 the face of every corner, ordered by the corner's vertex
    fan_starts: Array  # (V,) int64 where in `fans` those of each vertex begin


@cache
def body() -> BodyModel:
    """The stand-in body, read once a process."""
    return stand_in()


@cache
def full_mesh() -> Mesh:
    """All 6890 vertices."""
    return _part(np.arange(len(body().v_template)), body().faces.astype(np.int64))


@cache
def coarse_mesh() -> Mesh:
    """About a quarter of the vertices; where the full mesh has small triangles, this one has smaller ones too."""
    return _part(*coarsened(body().v_template, body().faces))


@cache
def regressor_30() -> Array:
    """(30, 6890) float32 joints of a posed mesh."""
    return body().regressor_30()


@cache
def joint_mesh() -> tuple[Mesh, Array]:
    """Vertices whose means are the 30 joints, without faces, and the regressor (30, V) from them alone."""
    vertex = np.flatnonzero(regressor_30().any(0))
    return _part(vertex, np.zeros((0, 3), np.int64)), np.ascontiguousarray(regressor_30()[:, vertex])


@cache
def _rest_joints() -> tuple[Array, Array]:
    """Skinning joints (24, 3) of the template, and their shape directions (10, 72); float64."""
    regressor = body().J_regressor.astype(np.float64)
    directions = np.einsum("jv,vck->kjc", regressor, body().shapedirs.astype(np.float64))
    return regressor @ body().v_template, directions.reshape(len(directions), -1)


def _part(vertex: Array, faces: Array) -> Mesh:
    whole = body()
    directions = np.ascontiguousarray(whole.shapedirs[vertex].transpose(2, 1, 0).reshape(-1, 3 * len(vertex)))
    weights = np.ascontiguousarray(whole.weights[vertex].T)
    corner = faces.ravel()
    order = np.argsort(corner, kind="stable")
    starts = np.searchsorted(corner[order], np.arange(len(vertex)))
    return Mesh(vertex, whole.v_template[vertex], directions, weights, faces, order // 3, starts)


def joint_motions(pose_rad: Array, betas: Array) -> Array:
    """Rigid motion of every joint, which carries the parts attached to it.

    Args:
        pose_rad: (P, 24, 3) axis-angle, root first.
        betas: (P, 10).

    Returns:
        (P, 24, 12) float32, a flat (3, 4) a joint: rotation, and the shift that leaves the root joint where it rests.
    """
    template, directions = _rest_joints()
    rest = template + (np.asarray(betas, np.float64) @ directions).reshape(-1, 24, 3)
    turned = matrix_from_axis_angle(pose_rad)
    rotation, joints = turned.copy(), rest.copy()
    for joint in range(1, len(PARENTS)):
        parent = PARENTS[joint]
        bone = (rest[:, joint] - rest[:, parent])[..., None]
        joints[:, joint] = joints[:, parent] + (rotation[:, parent] @ bone)[..., 0]
        rotation[:, joint] = rotation[:, parent] @ turned[:, joint]
    shift = joints[..., None] - rotation @ rest[..., None]
    return np.concatenate([rotation, shift], -1).reshape(-1, 24, 12).astype(np.float32)


def skin(mesh: Mesh, motions: Array, betas: Array) -> Array:
    """Linear blend skinning; the stand-in body has no pose blend shapes.

    Args:
        mesh: vertices to pose.
        motions: (P, 24, 12) of `joint_motions`.
        betas: (P, 10).

    Returns:
        (P, V, 3) float32 metres, in the frame that the root rotation leads to, the root joint at its place at rest.
    """
    count = len(motions)
    out = np.empty((count, len(mesh.vertex), 3), np.float32)
    for person in range(count):  # one by one: the cache holds one, and a person's numbers must not depend on the others
        x, y, z = mesh.template_m.T + (np.asarray(betas[person], np.float32) @ mesh.directions).reshape(3, -1)
        blended = _product(motions[person].T, mesh.weights).reshape(3, 4, -1)
        for axis, (by_x, by_y, by_z, moved) in enumerate(blended):
            out[person, :, axis] = by_x * x + by_y * y + by_z * z + moved
    return out


def _product(left: Array, right: Array) -> Array:
    """Matrix product by blocks of columns: larger products use several threads, whose number affects the last bits."""
    return np.concatenate([left @ right[:, at : at + _BLOCK] for at in range(0, right.shape[1], _BLOCK)], 1)


def normals(mesh: Mesh, vertices_m: Array) -> Array:
    """(V, 3) vertices of a posed mesh -> (V, 3) float32 unit normals, outwards."""
    x, y, z = vertices_m.T[:, mesh.faces.T]
    (ux, vx), (uy, vy), (uz, vz) = ((c[1] - c[0], c[2] - c[0]) for c in (x, y, z))
    of_face = np.stack([uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx])
    sums = np.add.reduceat(of_face.take(mesh.fans, 1), mesh.fan_starts, 1)
    return (sums / np.sqrt((sums**2).sum(0))).T


def coarsened(vertices: Array, faces: Array) -> tuple[Array, Array]:
    """A coarser closed mesh on some of the vertices of a closed mesh.

    No two kept vertices are neighbours and every other vertex has a kept neighbour, the nearest of which it becomes.
    The triangles whose corners become three different vertices form a closed mesh again.

    Args:
        vertices: (V, 3).
        faces: (F, 3).

    Returns:
        The kept vertices (K,), ascending, and the faces (F', 3) as positions in that list. A function of the input.
    """
    corner = np.asarray(faces, np.int64)
    a, b = corner[:, [0, 1, 2]].ravel(), corner[:, [1, 2, 0]].ravel()
    a, b = np.concatenate([a, b]), np.concatenate([b, a])
    kept = _independent(len(vertices), a, b)
    to_kept = np.flatnonzero(kept[b] & ~kept[a])
    a, b = a[to_kept], b[to_kept]
    farthest_first = np.argsort(-np.linalg.norm(vertices[a] - vertices[b], axis=1), kind="stable")
    becomes = np.arange(len(vertices))
    becomes[a[farthest_first]] = b[farthest_first]  # the last assignment, the nearest, stays
    mapped = becomes[corner]
    whole = (mapped != np.roll(mapped, 1, axis=1)).all(1)
    vertex = np.flatnonzero(kept)
    return vertex, np.searchsorted(vertex, mapped[whole])


def _independent(count: int, a: Array, b: Array) -> Array:
    """(count,) bool: a largest set of vertices without neighbours among each other; edges lead from a to b."""
    rank = np.random.default_rng(0).permutation(count)
    kept, open_ = np.zeros(count, bool), np.ones(count, bool)
    while open_.any():
        best = np.full(count, -1)
        np.maximum.at(best, a, np.where(open_[b], rank[b], -1))
        new = open_ & (rank > best)
        kept |= new
        open_ &= ~new
        open_[b[new[a]]] = False
    return kept
