"""A depth-buffer triangle rasteriser in NumPy, without OpenGL: visible faces, or the shades of meshes.

A pixel's key is an integer: the inverse of its depth above a label, so that the largest key is the nearest face. The
inverse depth is linear in the image, as depth itself is not, and so are integers that hold it: from pixel to pixel of a
span, one addition changes the depth and the shade of a pixel together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jotr_deploy.geometry.triangle_spans import Plane, Triangles, in_portions, nearest, spans_of, triangles_on_screen
from jotr_deploy.support.aliases import Array

LEVEL_BITS = 10
LEVELS = 1 << LEVEL_BITS
"""How many levels of shade there are."""
_SPARE = 4  # levels at either end, for what rounding adds over a large triangle
SHADES = np.clip((np.arange(LEVELS) - _SPARE) / (LEVELS - 1 - 2 * _SPARE), 0, 1)
"""(LEVELS,) the shade of each level, in 0 .. 1."""
# Bits of a key in all, and of the fraction of a level, which keeps the steps from pixel to pixel exact enough.
_KEY_BITS, _FRACTION_BITS = 62, 10


@dataclass(frozen=True)
class Raster:
    """Visible face and depth of every pixel."""

    face: Array  # (H, W) int32, index of the visible face, -1 where there is none
    depth_m: Array  # (H, W) float32, depth of that face at the pixel centre, inf where there is none


@dataclass(frozen=True)
class Shaded:
    """Visible mesh, its shade and its depth at every pixel, as keys; `read` turns a part of them into arrays."""

    key: Array  # (H, W) int64, 0 where there is no mesh
    code_bits: int
    depth_scale: np.float32

    def read(self, rows: slice, columns: slice) -> tuple[Array, Array]:
        """Part of the image (h, w).

        Returns:
            code, uint32: LEVELS * (1 + number of the mesh) + level of its shade, 0 where there is none; and depth_m,
            float32: inf where there is none.
        """
        key = self.key[rows, columns]
        code = (key >> _FRACTION_BITS).astype(np.uint32)
        code &= np.uint32((1 << self.code_bits) - 1)
        with np.errstate(divide="ignore"):
            return code, self.depth_scale / key.astype(np.float32)


def rasterize(
    vertices: Array, faces: Array, size_px: tuple[int, int], *, cull_back: bool = False, near_m: float = 1e-2
) -> Raster:
    """The nearest face and its depth at every pixel.

    Args:
        vertices: (V, 3) x and y in image pixels (y down), z the depth in metres.
        faces: (F, 3) vertex indices. Several meshes are one list of faces with shifted indices.
        size_px: width and height of the image.
        cull_back: leave out faces whose corners run clockwise on the screen, which are the back of a closed mesh
            with outward normals.
        near_m: a face with a corner at this depth or nearer is left out, as is one with a corner that is not finite.

    Returns:
        The raster. Equal depths go to the face that comes first, so the result is a function of the input.
    """
    vertices, last = np.asarray(vertices, np.float64), len(faces)
    triangles = triangles_on_screen(vertices, np.asarray(faces), size_px, cull_back, near_m)
    bits = last.bit_length()
    key, scale = _keys(triangles, vertices[:, 2], size_px, bits, Plane.level(last - triangles.face))
    face = np.where(key > 0, last - (key & ((1 << bits) - 1)), -1).astype(np.int32)
    with np.errstate(divide="ignore"):
        depth_m = scale / (key >> bits)
    return Raster(face, depth_m.astype(np.float32))


def shade_meshes(
    vertices: Array, faces: Array, shade: Array, size_px: tuple[int, int], *, near_m: float = 1e-2
) -> Shaded:
    """The nearest mesh and its shade at every pixel; the backs of closed meshes with outward normals are left out.

    Args:
        vertices: (N, V, 3) of N meshes: x and y in image pixels (y down), z the depth in metres.
        faces: (F, 3) vertex indices, the same for all.
        shade: (N, V) in 0 .. 1, interpolated in the image.
        size_px: width and height of the image.
        near_m: as for `rasterize`.
    """
    meshes, count = shade.shape
    vertices = np.asarray(vertices, np.float64).reshape(-1, 3)
    triangles = triangles_on_screen(vertices, of_all(faces, meshes, count), size_px, True, near_m)
    unit = 1 << _FRACTION_BITS
    level = unit * (_SPARE + 0.5 + np.clip(shade, 0, 1).reshape(-1) * (LEVELS - 1 - 2 * _SPARE))
    low = Plane.level(1 + triangles.face // len(faces)).above(
        Plane.through(level.take(triangles.corner), triangles), LEVEL_BITS + _FRACTION_BITS
    )
    bits = LEVEL_BITS + _FRACTION_BITS + meshes.bit_length()
    key, scale = _keys(triangles, vertices[:, 2], size_px, bits, low)
    return Shaded(key, bits - _FRACTION_BITS, np.float32(scale * 2.0**bits))


def of_all(faces: Array, meshes: int, vertices: int) -> Array:
    """Faces (F, 3) of a mesh with so many vertices -> (meshes * F, 3) of as many such meshes in one list."""
    shift = vertices * np.arange(meshes)[:, None, None]
    shifted: Array = (np.asarray(faces) + shift).reshape(-1, 3)
    return shifted


def _keys(triangles: Triangles, z_m: Array, size_px: tuple[int, int], bits: int, low: Plane) -> tuple[Array, float]:
    """Keys (H, W) of the nearest triangles, 0 where there is none, and what their upper part divides to give metres.

    Args:
        triangles: on the screen.
        z_m: (V,) depths of the vertices they refer to.
        size_px: width and height.
        bits: how many of a key lie below the inverse depth.
        low: what they hold, above 0.
    """
    width, height = size_px
    inverse = 1.0 / z_m.take(triangles.corner)
    scale = 2.0 ** (_KEY_BITS - bits - int(np.frexp(inverse.max(initial=0.0))[1]))
    inverse *= scale
    plane = Plane.through(inverse, triangles).above(low, bits)
    key = np.zeros(width * height, np.int64)
    for part in in_portions(triangles.rows):
        nearest(key, spans_of(triangles[part], plane[part], width))
    return key.reshape(height, width), scale


def vertex_normals(vertices: Array, faces: Array) -> Array:
    """Unit normals of a mesh, each the area-weighted mean of the faces around the vertex.

    Args:
        vertices: (V, 3) in any Cartesian frame.
        faces: (F, 3) counter-clockwise from outside, which makes the normals point outwards.

    Returns:
        (V, 3) in the dtype of the vertices; zero where no face with an area touches the vertex.
    """
    corner = np.ascontiguousarray(np.asarray(faces).T)
    at = [axis.take(corner) for axis in np.ascontiguousarray(vertices.T)]
    (ax, ay, az), (bx, by, bz) = ([axis[k] - axis[0] for axis in at] for k in (1, 2))
    of_face = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    sums = [np.bincount(corner.reshape(-1), np.tile(each, 3), len(vertices)) for each in of_face]
    normals = np.stack(sums, axis=1)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return (normals / np.where(length > 0, length, 1.0)).astype(vertices.dtype)
