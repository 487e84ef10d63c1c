"""Triangles on the screen, cut into spans of pixels: no loop over triangles, and none over their pixels.

A triangle is cut into spans, one for every image row it crosses, and a span into pixels. The work is therefore the
rows and the pixels that are covered, whatever the size of the triangles. With the triangles sorted by their number of
rows, the ones that have a row r are the first so many; likewise for the pixels of spans. Both loops run over r and move
contiguous arrays one row or one pixel on. Pixel centres lie at integer coordinates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from jotr_deploy.support.aliases import Array

# A pixel centre this near to an edge is inside. A centre on a shared edge belongs to both triangles, so rounding can
# draw it twice but never miss it.
EDGE_PX = 1e-6
# Twice the area of the smallest triangle that is drawn; a thinner one lies within EDGE_PX of its neighbours.
MIN_DOUBLE_AREA_PX2 = EDGE_PX**2
# Across a triangle thinner than this nothing changes: so near to an edge-on view, EDGE_PX beyond it lies far away.
THIN_PX = 1e-2
# Nor across one whose plane, carried on to the edge of the image, leaves the range of int64: a sliver that passes close
# by the camera, with corners far outside the image.
LARGEST = 2.0**62
# How many spans are in flight at a time: bounds the memory.
CHUNK = 1 << 16


@dataclass(frozen=True)
class Triangles:
    """The T triangles that may cover a pixel, those with the most rows first; edge k runs from corner k to the next."""

    face: Array  # (T,) int64 index among the caller's faces
    corner: Array  # (3, T) int64 index among the caller's vertices
    x_px: Array  # (3, T) corners
    y_px: Array
    double_area_px2: Array  # (T,) negative for a triangle that runs counter-clockwise on the screen
    column: Array  # (T,) first image column they may touch
    row: Array  # (T,) first image row
    rows: Array  # (T,) int64 how many rows, at least 1

    def __getitem__(self, some: slice) -> Triangles:
        """Some of the triangles, in the same order."""
        return Triangles(*(getattr(self, field.name)[..., some] for field in fields(self)))


@dataclass(frozen=True)
class Plane:
    """An integer for every pixel, linear over the image, on each of T triangles; sums may wrap around."""

    at: Array  # (T,) int64 at a triangle's first row and column
    dx: Array  # (T,) int64 its change from column to column
    dy: Array  # (T,) int64 and from row to row

    @classmethod
    def level(cls, at: Array) -> Plane:
        """The planes with these values (T,) everywhere."""
        flat = np.zeros_like(at)
        return cls(at, flat, flat)

    @classmethod
    def through(cls, at_corners: Array, triangles: Triangles) -> Plane:
        """The planes through these values (3, T) at the corners, rounded."""
        (x0, x1, x2), (y0, y1, y2), (a0, a1, a2) = triangles.x_px, triangles.y_px, at_corners
        x1, x2, y1, y2, d1, d2 = x1 - x0, x2 - x0, y1 - y0, y2 - y0, a1 - a0, a2 - a0
        area = triangles.double_area_px2
        longest_px = np.maximum(np.maximum(np.abs(x1), np.abs(x2)), np.maximum(np.abs(y1), np.abs(y2)))
        thick = np.abs(area) > THIN_PX * longest_px
        per_area = thick / area
        dx, dy = (d1 * y2 - d2 * y1) * per_area, (d2 * x1 - d1 * x2) * per_area
        at = a0 + dx * (triangles.column - x0) + dy * (triangles.row - y0)
        flat = ~thick | (np.abs(at) > LARGEST)
        if flat.any():
            at[flat], dx[flat], dy[flat] = at_corners.mean(0)[flat], 0, 0
        return cls(*(np.rint(each).astype(np.int64) for each in (at, dx, dy)))

    def above(self, low: Plane, bits: int) -> Plane:
        """Both in one integer: this one above so many bits, and one that fits into them."""
        return Plane((self.at << bits) + low.at, (self.dx << bits) + low.dx, (self.dy << bits) + low.dy)

    def __getitem__(self, some: slice) -> Plane:
        return Plane(self.at[some], self.dx[some], self.dy[some])


@dataclass(frozen=True)
class Spans:
    """S runs of pixels within one row and one triangle, the longest first."""

    pixel: Array  # (S,) int64 flat index of the first one
    key: Array  # (S,) int64 value there
    step: Array  # (S,) int64 its change from pixel to pixel
    count: Array  # (S,) int16 pixels, at least 1


def triangles_on_screen(
    vertices: Array, faces: Array, size_px: tuple[int, int], cull_back: bool, near_m: float
) -> Triangles:
    """The triangles in front of the camera, with an area, that meet a pixel centre's row and column in the image."""
    x, y, z = np.ascontiguousarray(vertices.T)
    good = np.isfinite(x + y) & (z > near_m) & (z < np.inf)
    corner = np.ascontiguousarray(faces.T, np.int64)
    face = np.arange(len(faces))
    if not good.all():
        face, corner = _some(np.flatnonzero(good[corner].all(0)), face, corner)
    (x0, x1, x2), (y0, y1, y2) = x_px, y_px = x.take(corner), y.take(corner)
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    # In steps, each with fewer triangles than the one before: half of a closed mesh shows its back.
    seen = np.flatnonzero((-area if cull_back else np.abs(area)) > MIN_DOUBLE_AREA_PX2)
    face, corner, x_px, y_px, area = _some(seen, face, corner, x_px, y_px, area)
    column, last_column = pixels_between(x_px.min(0), x_px.max(0), size_px[0])
    row, last_row = pixels_between(y_px.min(0), y_px.max(0), size_px[1])
    rows = np.where(column <= last_column, last_row - row + 1, 0)
    most_first = _descending(rows)[: np.count_nonzero(rows > 0)]
    face, corner, x_px, y_px, area, column, row, rows = _some(
        most_first, face, corner, x_px, y_px, area, column, row, rows
    )
    return Triangles(face, corner, x_px, y_px, area, column, row, rows.astype(np.int64))


def in_portions(rows: Array) -> Iterator[slice]:
    """Cut triangles with so many rows each into stretches of about CHUNK rows, at least one triangle each."""
    total = np.cumsum(rows)
    start = 0
    while start < len(total):
        done = total[start - 1] if start else 0
        end = max(int(np.searchsorted(total, done + CHUNK, side="right")), start + 1)
        yield slice(start, end)
        start = end


def spans_of(triangles: Triangles, key: Plane, width: int) -> Spans:
    """The spans of triangles in an image of this width, with the values of a plane."""
    total = int(triangles.rows.sum())
    pixels, keys, steps = (np.empty(total, np.int64) for _ in range(3))
    counts = np.empty(total, np.int16)
    line, slope = _bounds(triangles)
    start = triangles.row.astype(np.int64) * width
    # The key of a triangle at flat index 0, were its plane to go on from the end of a row to the start of the next.
    base, down = key.at - key.dx * (start + triangles.column.astype(np.int64)), key.dy - key.dx * width
    done = 0
    for n in _at_least(triangles.rows):
        part = slice(done, done + n)
        first, last = pixels_between(np.maximum(line[0, :n], line[1, :n]), np.minimum(line[2, :n], line[3, :n]), width)
        np.maximum(last - first + 1, 0, out=counts[part], casting="unsafe")
        np.add(first, start[:n], out=pixels[part], casting="unsafe")
        steps[part] = key.dx[:n]
        np.multiply(pixels[part], key.dx[:n], out=keys[part])
        keys[part] += base[:n]
        line[:, :n] += slope[:, :n]
        start[:n] += width
        base[:n] += down[:n]
        done += n
    longest_first = _descending(counts)[: np.count_nonzero(counts)]
    return Spans(*_some(longest_first, pixels, keys, steps, counts))


def nearest(key: Array, spans: Spans) -> None:
    """Enter the pixels of some spans into a picture of keys, where the largest counts."""
    pixel, value = spans.pixel.copy(), spans.key.copy()
    for n in _at_least(spans.count):
        np.maximum.at(key, pixel[:n], value[:n])
        pixel[:n] += 1
        value[:n] += spans.step[:n]


def pixels_between(low: Array, high: Array, size: int) -> tuple[Array, Array]:
    """First and last pixel centre in [low, high] within 0 .. size-1, as floats; first > last where there is none."""
    first, last = np.ceil(low - EDGE_PX), np.floor(high + EDGE_PX)
    return np.clip(first, 0, size, out=first), np.clip(last, -1, size - 1, out=last)


def _bounds(triangles: Triangles) -> tuple[Array, Array]:
    """The lines that bound a triangle's spans: x in its first row and dx/dy, two on the left and two on the right.

    A side with one edge has it twice. An edge along a row bounds no span.
    """
    dx, dy = (at[[1, 2, 0]] - at for at in (triangles.x_px, triangles.y_px))
    slope = dx / np.where(dy == 0, np.inf, dy)
    x_px = triangles.x_px + (triangles.row - triangles.y_px) * slope
    side = dy * np.sign(triangles.double_area_px2)
    edges = []
    for one, two, three in (side < 0, side > 0):
        edges += [np.where(one, 0, np.where(two, 1, 2)), np.where(three, 2, np.where(two, 1, 0))]
    count = len(triangles.face)
    at = np.stack(edges) * count + np.arange(count)
    return x_px.take(at), slope.take(at)


def _at_least(counts: Array) -> list[int]:
    """Numbers of counts above 0, above 1, and so on, up to the largest."""
    above: list[int] = np.cumsum(np.bincount(counts)[:0:-1])[::-1].tolist()
    return above


def _descending(counts: Array) -> Array:
    """The order that puts the largest counts, below 2**15, first and keeps equal ones in their order."""
    return np.argsort(-counts.astype(np.int16), kind="stable")  # a radix sort, at this type


def _some(index: Array, *lists: Array) -> tuple[Array, ...]:
    """Some of the last axis of every list."""
    return tuple(each.take(index, -1) for each in lists)
