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
"""Number of levels of shade."""
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
    bits = last.bit_length()
    scale = _scale(vertices[:, 2], near_m, bits)
    key = np.zeros(size_px[0] * size_px[1], np.int64)
    triangles = triangles_on_screen(vertices, np.asarray(faces), size_px, cull_back, near_m)
    label = Plane.level(last - triangles.face)
    _draw(key, triangles, _inverse(vertices, triangles, scale).above(label, bits), size_px[0])
    face = np.where(key > 0, last - (key & ((1 << bits) - 1)), -1).astype(np.int32)
    with np.errstate(divide="ignore"):
        depth_m = (scale / (key >> bits)).astype(np.float32)
    return Raster(face.reshape(size_px[::-1]), depth_m.reshape(size_px[::-1]))


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
    low_bits = LEVEL_BITS + _FRACTION_BITS
    bits = low_bits + len(shade).bit_length()
    scale = _scale(vertices[..., 2], near_m, bits)
    key = np.zeros(size_px[0] * size_px[1], np.int64)
    for number, mesh in enumerate(np.asarray(vertices, np.float64)):
        triangles = triangles_on_screen(mesh, np.asarray(faces), size_px, True, near_m)
        level = _SPARE + 0.5 + np.clip(np.nan_to_num(shade[number]), 0, 1) * (LEVELS - 1 - 2 * _SPARE)
        low = Plane.through((level * (1 << _FRACTION_BITS)).take(triangles.corner), triangles)
        low.at[:] += (number + 1) << low_bits
        _draw(key, triangles, _inverse(mesh, triangles, scale).above(low, bits), size_px[0])
    return Shaded(key.reshape(size_px[::-1]), bits - _FRACTION_BITS, np.float32(scale * 2.0**bits))


def _scale(z_m: Array, near_m: float, bits: int) -> float:
    """The power of two that makes the inverses of these depths fill a key above so many bits."""
    nearest_m = z_m.min(where=z_m > near_m, initial=np.inf)
    return float(2.0 ** (_KEY_BITS - bits - int(np.frexp(1 / nearest_m)[1])))


def _inverse(vertices: Array, triangles: Triangles, scale: float) -> Plane:
    """The scaled inverse of the triangles' depth."""
    return Plane.through(scale / vertices[:, 2].take(triangles.corner), triangles)


def _draw(key: Array, triangles: Triangles, plane: Plane, width: int) -> None:
    """Enter triangles into an image of keys (H * W,), 0 where there is none; the largest key counts."""
    for part in in_portions(triangles.rows):
        nearest(key, spans_of(triangles[part], plane[part], width))


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
