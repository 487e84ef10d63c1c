"""Meshes of objects: unit solids with normals, scaled and placed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from jotr_deploy.datasets.synthetic.materials import Material
from jotr_deploy.support.aliases import Array

BOX, CYLINDER, ELLIPSOID = range(3)
_SIDES, _RINGS = 20, 10


@dataclass(frozen=True)
class Solid:
    """One object: a unit solid (-1..1 along each axis), stretched, turned and moved."""

    kind: int
    half_m: Array  # (3,) half extents
    rotation: Array  # (3, 3) camera from own frame
    centre_m: Array  # (3,) camera frame
    material: Material


@dataclass(frozen=True)
class UnitMesh:
    """A closed surface; sharp edges have a vertex for each side."""

    points: Array  # (V, 3) float32 in -1..1
    normals: Array  # (V, 3) float32
    faces: Array  # (F, 3) int64 counter-clockwise from outside


@cache
def unit_mesh(kind: int) -> UnitMesh:
    """Box, cylinder (axis y) or sphere."""
    return (_box, _cylinder, _sphere)[kind]()


def _box() -> UnitMesh:
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    points, normals = [], []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            normal, u = np.eye(3)[axis] * sign, np.eye(3)[(axis + 1) % 3]
            points.append(normal + square @ np.stack([u, np.cross(normal, u)]))
            normals.append(np.tile(normal, (4, 1)))
    faces = np.arange(0, 24, 4)[:, None, None] + np.array([[0, 1, 2], [0, 2, 3]])
    return UnitMesh(
        np.concatenate(points, dtype=np.float32), np.concatenate(normals, dtype=np.float32), faces.reshape(-1, 3)
    )


def _cylinder() -> UnitMesh:
    angle = np.arange(_SIDES) * (2 * np.pi / _SIDES)
    ring = np.stack([np.cos(angle), np.zeros(_SIDES), np.sin(angle)], 1)
    up = np.array([0.0, 1.0, 0.0])
    points = np.concatenate([ring - up, ring + up, ring - up, ring + up, [-up, up]])
    normals = np.concatenate([ring, ring, np.tile(-up, (_SIDES, 1)), np.tile(up, (_SIDES, 1)), [-up, up]])
    i = np.arange(_SIDES)
    j, n = (i + 1) % _SIDES, _SIDES
    bottom, top = np.full(n, 4 * n), np.full(n, 4 * n + 1)
    rows = [(i, i + n, j + n), (i, j + n, j), (i + 2 * n, j + 2 * n, bottom), (j + 3 * n, i + 3 * n, top)]
    faces = np.concatenate([np.stack(row, 1) for row in rows])
    return UnitMesh(points.astype(np.float32), normals.astype(np.float32), faces)


def _sphere() -> UnitMesh:
    polar = np.linspace(0, np.pi, _RINGS + 1)[:, None]
    around = (np.arange(_SIDES) * (2 * np.pi / _SIDES))[None]
    points = np.stack(
        np.broadcast_arrays(np.sin(polar) * np.cos(around), np.cos(polar), np.sin(polar) * np.sin(around)), -1
    )
    ring, i = np.meshgrid(np.arange(_RINGS), np.arange(_SIDES), indexing="ij")
    j = (i + 1) % _SIDES
    a, b, c, d = ring * _SIDES + i, ring * _SIDES + j, (ring + 1) * _SIDES + i, (ring + 1) * _SIDES + j
    faces = np.concatenate([np.stack([a, b, d], -1).reshape(-1, 3), np.stack([a, d, c], -1).reshape(-1, 3)])
    flat = points.reshape(-1, 3).astype(np.float32)
    return UnitMesh(flat, flat, faces)


def placed(solid: Solid) -> Array:
    """(V, 3) vertices in the camera frame, metres."""
    return (unit_mesh(solid.kind).points * solid.half_m) @ solid.rotation.T + solid.centre_m


def placed_normals(solid: Solid) -> Array:
    """(V, 3) unit normals in the camera frame."""
    own = unit_mesh(solid.kind).normals / solid.half_m
    return (own / np.linalg.norm(own, axis=1, keepdims=True)) @ solid.rotation.T
