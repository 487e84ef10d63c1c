"""A depth-buffer triangle rasteriser in NumPy: no OpenGL, no loop over triangles.

A triangle is cut into spans, one for every image row it crosses, and a span into pixels. The work is therefore the
rows and the pixels that are covered, whatever the size of the triangles. Pixel centres lie at integer coordinates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jotr_deploy.support.aliases import Array

# A pixel centre this near to an edge is inside. A centre on a shared edge belongs to both triangles, so rounding can
# draw it twice but never miss it.
EDGE_PX = 1e-6
# Twice the area of the smallest triangle that is drawn; a thinner one lies within EDGE_PX of its neighbours.
MIN_DOUBLE_AREA_PX2 = EDGE_PX**2
# How many rows or pixels are in flight at a time: bounds the memory and stays in the processor's cache.
CHUNK = 1 << 16

# A pixel's key is (bits of its float32 depth) << 32 | face: the smallest key is the nearest face, among equals the
# first. The background is (infinity, face -1).
_BACKGROUND = (0x7F800000 << 32) | 0xFFFFFFFF


@dataclass(frozen=True)
class Raster:
    """Visible face and depth of every pixel."""

    face: Array  # (H, W) int32, index of the visible face, -1 where there is none
    depth_m: Array  # (H, W) float32, depth of that face at the pixel centre, inf where there is none


@dataclass(frozen=True)
class _Triangles:
    """The T triangles that may cover a pixel; corner k is followed by edge k, to the next corner."""

    face: Array  # (T,) int64 index among the caller's faces
    first_row: Array  # (T,) int64 first image row they may touch
    rows: Array  # (T,) int64 how many rows
    x_px: Array  # (3, T) corners
    y_px: Array
    slope: Array  # (3, T) dx/dy along edge k; 0 for an edge along a row, which bounds no span
    lower_px: Array  # (3, T) x of corner k where edge k bounds a span on the left, else -inf
    upper_px: Array  # (3, T) x of corner k where edge k bounds a span on the right, else inf
    inverse_z: Array  # (T,) 1/depth at corner 0: linear in the image, as depth itself is not
    inverse_z_dx: Array  # (T,) its slopes
    inverse_z_dy: Array
    inverse_z_min: Array  # (T,) its range over the corners
    inverse_z_max: Array


@dataclass(frozen=True)
class _Spans:
    """S runs of pixels within one row and one triangle."""

    face: Array  # (S,) int64
    start: Array  # (S,) int64 flat index of the first pixel
    count: Array  # (S,) int64 pixels, at least 1
    inverse_z: Array  # (S,) 1/depth at the first pixel
    step: Array  # (S,) its change from pixel to pixel


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
    width, height = size_px
    key = np.full(width * height, _BACKGROUND, np.int64)
    triangles = _drawable(np.asarray(vertices, np.float64), np.asarray(faces), size_px, cull_back, near_m)
    for some in _portions(triangles.rows):
        spans = _spans(triangles, some, width)
        for part in _portions(spans.count):
            _draw(key, spans, part)
    face = (key & 0xFFFFFFFF).astype(np.uint32).view(np.int32)
    depth = (key >> 32).astype(np.int32).view(np.float32)
    return Raster(face.reshape(height, width), depth.reshape(height, width))


def _drawable(vertices: Array, faces: Array, size_px: tuple[int, int], cull_back: bool, near_m: float) -> _Triangles:
    """The triangles in front of the camera, with an area, that meet a pixel centre's row and column in the image."""
    x, y, z = np.ascontiguousarray(vertices.T)
    good = np.isfinite(x + y) & (z > near_m) & (z < np.inf)
    corner = np.ascontiguousarray(faces.T)
    index = np.arange(len(faces)) if good.all() else np.flatnonzero(good[corner].all(0))
    # In steps, each with fewer triangles than the one before: half of a closed mesh shows its back.
    corner = corner[:, index]
    x, y = x[corner], y[corner]
    area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
    index, corner, x, y, area = _only(
        (-area if cull_back else np.abs(area)) > MIN_DOUBLE_AREA_PX2, index, corner, x, y, area
    )
    left, right = _pixels_between(x.min(0), x.max(0), size_px[0])
    top, bottom = _pixels_between(y.min(0), y.max(0), size_px[1])
    met = (left <= right) & (top <= bottom)
    index, corner, x, y, area, top, bottom = _only(met, index, corner, x, y, area, top, bottom)

    dx, dy = x[[1, 2, 0]] - x, y[[1, 2, 0]] - y
    side = dy * np.sign(area)
    q = 1.0 / z[corner]
    dq1, dq2 = q[1] - q[0], q[2] - q[0]
    return _Triangles(
        face=index,
        first_row=top,
        rows=bottom - top + 1,
        x_px=x,
        y_px=y,
        slope=dx / np.where(dy == 0, np.inf, dy),
        lower_px=np.where(side < 0, x, -np.inf),
        upper_px=np.where(side > 0, x, np.inf),
        inverse_z=q[0],
        inverse_z_dx=(dq1 * -dy[2] - dq2 * dy[0]) / area,
        inverse_z_dy=(dq2 * dx[0] + dq1 * dx[2]) / area,
        inverse_z_min=q.min(0),
        inverse_z_max=q.max(0),
    )


def _only(keep: Array, *lists: Array) -> tuple[Array, ...]:
    """Some of the last axis of every list."""
    if keep.all():
        return lists
    index = np.flatnonzero(keep)
    return tuple(each.take(index, -1) for each in lists)


def _spans(triangles: _Triangles, some: slice, width: int) -> _Spans:
    """The spans of some triangles in an image of this width."""
    t, row = _expand(triangles.rows[some])
    t += some.start
    y = triangles.first_row[t] + row
    shift = (y - triangles.y_px.take(t, 1)) * triangles.slope.take(t, 1)
    lower, upper = triangles.lower_px.take(t, 1) + shift, triangles.upper_px.take(t, 1) + shift
    first, last = _pixels_between(lower.max(0), upper.min(0), width)
    t, y, first, last = _only(first <= last, t, y, first, last)
    at_row = triangles.inverse_z[t] + triangles.inverse_z_dy[t] * (y - triangles.y_px[0, t])
    # Beyond its corners the plane of a nearly edge-on triangle runs away; half a rounding error is enough to get there.
    limits = triangles.inverse_z_min[t], triangles.inverse_z_max[t]
    x0, dq = triangles.x_px[0, t], triangles.inverse_z_dx[t]
    q_first, q_last = (np.clip(at_row + dq * (x - x0), *limits) for x in (first, last))
    return _Spans(
        face=triangles.face[t],
        start=y * width + first,
        count=last - first + 1,
        inverse_z=q_first,
        step=(q_last - q_first) / np.maximum(last - first, 1),
    )


def _draw(key: Array, spans: _Spans, part: slice) -> None:
    """Enter the pixels of some spans into the picture of keys."""
    s, along = _expand(spans.count[part])
    s += part.start
    depth = (1.0 / (spans.inverse_z[s] + along * spans.step[s])).astype(np.float32)
    np.minimum.at(key, spans.start[s] + along, depth.view(np.int32).astype(np.int64) << 32 | spans.face[s])


def _pixels_between(low: Array, high: Array, size: int) -> tuple[Array, Array]:
    """First and last pixel centre in [low, high] within 0 .. size-1; first > last where there is none."""
    first = np.clip(np.ceil(low - EDGE_PX), 0, size)
    last = np.clip(np.floor(high + EDGE_PX), -1, size - 1)
    return first.astype(np.int64), last.astype(np.int64)


def _expand(counts: Array) -> tuple[Array, Array]:
    """Owner of every part, and its number there, for items with the given numbers of parts."""
    owner = np.repeat(np.arange(len(counts)), counts)
    first = np.cumsum(counts) - counts
    return owner, np.arange(len(owner)) - first[owner]


def _portions(counts: Array) -> Iterator[slice]:
    """Cut a list of things with so many parts each into stretches of about CHUNK parts, at least one thing each."""
    total = np.cumsum(counts)
    start = 0
    while start < len(counts):
        done = total[start - 1] if start else 0
        end = max(int(np.searchsorted(total, done + CHUNK, side="right")), start + 1)
        yield slice(start, end)
        start = end


def barycentric(raster: Raster, vertices: Array, faces: Array) -> Array:
    """Barycentric coordinates of each covered pixel on its face.

    Args:
        raster: of the same vertices and faces.
        vertices: (V, 3) as given to `rasterize`.
        faces: (F, 3) as given to `rasterize`.

    Returns:
        (P, 3) float64 weights of the three corners in space (perspective undone), sum 1, for the P pixels with
        `raster.face >= 0` in row-major order.
    """
    y, x = np.nonzero(raster.face >= 0)
    corners = np.asarray(faces)[raster.face[y, x]].T
    x_px, y_px, z_m = np.asarray(vertices, np.float64).T
    dx, dy = x_px[corners] - x, y_px[corners] - y
    area = np.stack([dx[1] * dy[2] - dx[2] * dy[1], dx[2] * dy[0] - dx[0] * dy[2], dx[0] * dy[1] - dx[1] * dy[0]])
    # A centre on an edge may come out beyond it by a rounding error; in a sliver none may come out inside.
    weights = np.maximum(area * np.sign(area.sum(0)), np.finfo(np.float64).tiny) / z_m[corners]
    normalised: Array = (weights / weights.sum(0)).T
    return normalised


def vertex_normals(vertices: Array, faces: Array) -> Array:
    """Unit normals of a mesh, each the area-weighted mean of the faces around the vertex.

    Args:
        vertices: (V, 3) in any Cartesian frame.
        faces: (F, 3) counter-clockwise from outside, which makes the normals point outwards.

    Returns:
        (V, 3) in the dtype of the vertices; zero where no face with an area touches the vertex.
    """
    faces = np.asarray(faces)
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    of_face = np.cross(b - a, c - a)
    corner = faces.T.reshape(-1)
    sums = [np.bincount(corner, np.tile(of_face[:, axis], 3), len(vertices)) for axis in range(3)]
    normals = np.stack(sums, axis=1)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return (normals / np.where(length > 0, length, 1.0)).astype(vertices.dtype)
