"""Visibility: depth, and the face in front, at four samples of every pixel of a view."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from jotr_deploy.datasets.synthetic.scene import Scene
from jotr_deploy.datasets.synthetic.skinning import Mesh, coarse_mesh, full_mesh, skin
from jotr_deploy.datasets.synthetic.solids import Solid, placed, unit_mesh
from jotr_deploy.datasets.synthetic.viewpoint import View
from jotr_deploy.geometry.raster import rasterize
from jotr_deploy.support.aliases import Array

BACKGROUND, THING = -1, -2
FINE_PX = 560.0  # people of at least this many samples from head to foot are drawn with the full mesh
NEAR_M = 0.05


@dataclass(frozen=True)
class Layer:
    """Person or object in front of the camera."""

    owner: int  # number of the person, or THING
    vertices_m: Array  # (V, 3) camera frame
    faces: Array  # (F, 3)
    samples: Array  # (V, 3) x, y in samples of the view, z in metres
    source: Mesh | Solid  # source of the vertices
    first_face: int = 0  # index of its first face among those of all layers


@dataclass(frozen=True)
class Traced:
    """Samples of a view (h, w) px: sample (i, j) lies at pixel (i / 2 - 1/4, j / 2 - 1/4)."""

    layers: tuple[Layer, ...]
    depth_m: Array  # (2h, 2w) float32, inf behind everything
    face: Array  # (2h, 2w) int32 among the faces of all layers, -1 for the background
    layer: Array  # (2h, 2w) int16 number of the layer, -1 for the background
    alone: Array  # (P,) samples that each person would have without the others
    seen: Array  # (P,) samples that each person has

    def owner(self, layer: Array) -> Array:
        """Layer numbers, -1 included -> int16 number of the person, BACKGROUND or THING."""
        return np.array([*(each.owner for each in self.layers), BACKGROUND], np.int16)[layer]


def trace(scene: Scene, view: View) -> Traced:
    """Draw the depth of everything in a view."""
    width, height = 2 * view.size_px[0], 2 * view.size_px[1]
    depth = np.full((height, width), np.inf, np.float32)
    face, number = np.full((height, width), -1, np.int32), np.full((height, width), -1, np.int16)
    alone, seen = np.zeros(len(scene), np.int64), np.zeros(len(scene), np.int64)
    layers: list[Layer] = []
    first_face = 0
    for layer in _layers(scene, view):
        x, y = layer.samples[:, 0], layer.samples[:, 1]
        left, right = (int(np.clip(edge, 0, width)) for edge in (np.floor(x.min()), np.ceil(x.max()) + 1))
        top, bottom = (int(np.clip(edge, 0, height)) for edge in (np.floor(y.min()), np.ceil(y.max()) + 1))
        shifted = layer.samples - (left, top, 0)
        own = rasterize(shifted, layer.faces, (right - left, bottom - top), cull_back=True, near_m=NEAR_M)
        at = slice(top, bottom), slice(left, right)
        nearer = own.depth_m < depth[at]
        np.copyto(depth[at], own.depth_m, where=nearer)
        np.copyto(face[at], own.face + np.int32(first_face), where=nearer)
        np.copyto(number[at], np.int16(len(layers)), where=nearer)
        if layer.owner >= 0:
            alone[layer.owner] = np.count_nonzero(own.face >= 0)
        layers.append(replace(layer, first_face=first_face))
        first_face += len(layer.faces)
    for index, layer in enumerate(layers):
        if layer.owner >= 0:
            seen[layer.owner] = np.count_nonzero(number == index)
    return Traced(tuple(layers), depth, face, number, alone, seen)


def _layers(scene: Scene, view: View) -> Iterator[Layer]:
    """Layers of everything that may be in the view."""
    for person in range(len(scene)):
        vertices, mesh = scene.coarse_m[person], coarse_mesh()
        samples = _samples(scene, view, vertices)
        if not _meets(samples, view):
            continue
        if np.ptp(samples[:, 1]) > FINE_PX:
            mesh = full_mesh()
            vertices = skin(mesh, scene.motions[person, None], scene.betas[person, None])[0]
            vertices += scene.translation_m[person]
            samples = _samples(scene, view, vertices)
        yield Layer(person, vertices, mesh.faces, samples, mesh)
    for thing in scene.things:
        vertices = placed(thing)
        samples = _samples(scene, view, vertices)
        if _meets(samples, view):
            yield Layer(THING, vertices, unit_mesh(thing.kind).faces, samples, thing)


def _samples(scene: Scene, view: View, vertices_m: Array) -> Array:
    x, y, z = vertices_m.T
    scale = 2 * scene.camera.focal_px / view.step
    (x0, y0), z = 2 * view.from_picture(scene.camera.principal_px) + 0.5, z.astype(np.float64)
    per_m = scale / np.maximum(z, NEAR_M)  # nearer surfaces are not drawn
    return np.stack([x * per_m + x0, y * per_m + y0, z], 1)


def _meets(samples: Array, view: View) -> bool:
    width, height = view.size_px
    x, y = samples[:, 0], samples[:, 1]
    return bool(x.max() >= 0 and y.max() >= 0 and x.min() < 2 * width and y.min() < 2 * height)
