"""The rasteriser, by its laws and against slow, obvious references."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jotr_deploy.geometry import triangle_spans
from jotr_deploy.geometry.raster import LEVEL_BITS, LEVELS, SHADES, rasterize, shade_meshes, vertex_normals

QUAD = np.array([[0, 1, 2], [0, 2, 3]])


def rectangle(x0, y0, x1, y1, z=1.0):
    return np.array([[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]], float)


def ball(rng, bumps=0.0, rings=14, segments=18):
    """A closed sphere of radius about 1, faces counter-clockwise from outside."""
    polar, azimuth = np.meshgrid(np.pi * np.arange(1, rings) / rings, 2 * np.pi * np.arange(segments) / segments)
    ring = np.stack([np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)], -1)
    ring = ring * (1 + bumps * rng.uniform(-1, 1, (*polar.shape, 1)))
    vertices = np.concatenate([ring.reshape(-1, 3), [[0, 0, 1], [0, 0, -1]]])
    number = np.arange(segments * (rings - 1)).reshape(segments, rings - 1)
    a, b = number, np.roll(number, -1, axis=0)
    sides = [(a[:, :-1], a[:, 1:], b[:, :-1]), (b[:, :-1], a[:, 1:], b[:, 1:])]
    north, south = np.full(segments, number.size), np.full(segments, number.size + 1)
    caps = [(north, a[:, 0], b[:, 0]), (south, b[:, -1], a[:, -1])]
    return vertices, np.concatenate([np.stack(corners, -1).reshape(-1, 3) for corners in (*sides, *caps)])


def reference(vertices, faces, size):
    """Every pixel against every face, one at a time."""
    width, height = size
    y, x = np.mgrid[:height, :width].astype(float)
    face_at, depth_at = np.full((height, width), -1), np.full((height, width), np.inf, np.float32)
    for index, (a, b, c) in enumerate(vertices[faces]):
        edges = [(q[0] - p[0]) * (y - p[1]) - (q[1] - p[1]) * (x - p[0]) for p, q in ((b, c), (c, a), (a, b))]
        total = sum(edges)
        if min(a[2], b[2], c[2]) <= 0.01 or abs(total[0, 0]) < 1e-9:
            continue
        weights = [edge / total for edge in edges]
        inside = np.all([weight >= -1e-9 for weight in weights], axis=0)
        with np.errstate(divide="ignore"):
            depth = (1 / sum(w / corner[2] for w, corner in zip(weights, (a, b, c), strict=True))).astype(np.float32)
        nearer = inside & (depth < depth_at)
        face_at[nearer], depth_at[nearer] = index, depth[nearer]
    return face_at, depth_at


@pytest.mark.parametrize("flip", [False, True], ids=["clockwise", "counter-clockwise"])
@pytest.mark.parametrize(
    ("corners", "rows", "columns"),
    [
        ((1.5, 2.5, 6.5, 5.5), slice(3, 6), slice(2, 7)),  # edges between the pixels
        ((2, 3, 6, 5), slice(3, 6), slice(2, 7)),  # edges on pixel centres belong to it
        ((1.99, 2.99, 2.01, 3.01), slice(3, 4), slice(2, 3)),  # one pixel
        ((2.1, 3.1, 2.9, 3.9), slice(0, 0), slice(0, 0)),  # between the pixel centres
        ((-4.5, -7.5, 2.5, 1.5), slice(0, 2), slice(0, 3)),  # over the corner of the image
        ((-1e6, -1e6, 1e6, 1e6), slice(None), slice(None)),  # around the image
        ((20, 2, 30, 4), slice(0, 0), slice(0, 0)),  # right of the image
        ((2, -9, 4, -3), slice(0, 0), slice(0, 0)),  # above the image
        ((3, 2, 3, 5), slice(0, 0), slice(0, 0)),  # no area
    ],
)
def test_a_rectangle_covers_exactly_its_pixels(corners, rows, columns, flip):
    expected = np.zeros((8, 10), bool)
    expected[rows, columns] = True
    picture = rasterize(rectangle(*corners, z=2.0), QUAD[:, ::-1] if flip else QUAD, (10, 8))
    np.testing.assert_array_equal(picture.face >= 0, expected)
    np.testing.assert_array_equal(picture.depth_m, np.where(expected, np.float32(2), np.float32(np.inf)))
    assert picture.face.dtype == np.int32
    assert picture.depth_m.dtype == np.float32


@pytest.mark.parametrize(
    ("vertices", "faces"),
    [
        (np.zeros((0, 3)), np.zeros((0, 3), int)),  # nothing
        (rectangle(1, 1, 5, 5), np.zeros((0, 3), int)),  # no faces
        (rectangle(1, 1, 5, 5, z=-2), QUAD),  # behind the camera
        (rectangle(1, 1, 5, 5, z=0.01), QUAD),  # at the near plane
        (np.array([[1, 1, 2], [5, 1, 2], [3, 5, -2]]), np.array([[0, 1, 2]])),  # through the camera
        (np.full((4, 3), np.nan), QUAD),  # not a number
        (np.array([[1, 1, 2], [np.inf, 1, 2], [3, 5, 2]]), np.array([[0, 1, 2]])),  # infinite
        (rectangle(1, 1, 5, 5), np.array([[0, 0, 1], [2, 2, 2]])),  # corners that coincide
    ],
)
def test_nothing_to_see(vertices, faces):
    picture = rasterize(vertices, faces, (7, 6))
    assert np.all(picture.face == -1)
    assert np.all(np.isinf(picture.depth_m))


@pytest.mark.parametrize("chunk", [1, 7, 1 << 16])
def test_agrees_with_testing_every_pixel_against_every_face(chunk, monkeypatch):
    monkeypatch.setattr(triangle_spans, "CHUNK", chunk)
    rng = np.random.default_rng(5)
    vertices = np.column_stack([rng.uniform(-15, 45, (40, 2)), rng.uniform(-0.5, 6, 40)])
    faces = rng.integers(0, 40, (60, 3))
    picture = rasterize(vertices, faces, (32, 24))
    face, depth = reference(vertices, faces, (32, 24))
    np.testing.assert_array_equal(picture.face, face)
    np.testing.assert_allclose(picture.depth_m, depth, rtol=1e-5)


def test_the_nearer_face_wins_whatever_the_order():
    near, far = rectangle(2, 2, 6, 6, z=1), rectangle(0, 0, 8, 8, z=3)
    for first, second, nearest in ((near, far, [0, 1]), (far, near, [2, 3])):
        picture = rasterize(np.concatenate([first, second]), np.concatenate([QUAD, QUAD + 4]), (9, 9))
        assert np.isin(picture.face[2:7, 2:7], nearest).all()
        assert not np.isin(picture.face[0], nearest).any()


def test_equal_depths_go_to_the_first_face_and_repeats_are_equal():
    vertices, faces = rectangle(0, 0, 8, 8), np.concatenate([QUAD, QUAD])
    first, again = (rasterize(vertices, faces, (9, 9)) for _ in range(2))
    assert first.face.max() == 1
    assert first.face.tobytes() == again.face.tobytes()
    assert first.depth_m.tobytes() == again.depth_m.tobytes()


def test_two_meshes_together_have_the_smaller_of_their_depths():
    rng = np.random.default_rng(2)
    size = (40, 30)
    ball_a, faces = ball(rng, 0.2)
    a, b = ball_a * (12, 12, 1) + (15, 15, 4), ball_a * (9, 9, 1.5) + (24, 14, 4.2)
    both = rasterize(np.concatenate([a, b]), np.concatenate([faces, faces + len(a)]), size)
    alone = [rasterize(mesh, faces, size).depth_m for mesh in (a, b)]
    np.testing.assert_array_equal(both.depth_m, np.minimum(*alone))
    np.testing.assert_array_equal(
        (both.face >= len(faces))[alone[0] != alone[1]], (alone[1] < alone[0])[alone[0] != alone[1]]
    )


@given(dx=st.integers(-30, 30), dy=st.integers(-30, 30), seed=st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_a_shift_by_whole_pixels_shifts_the_picture(dx, dy, seed):
    rng = np.random.default_rng(seed)
    vertices, faces = ball(rng, 0.3, rings=7, segments=9)
    vertices = np.rint(vertices * (9, 9, 1) * 64) / 64 + (40, 40, 5)
    still = rasterize(vertices, faces, (81, 81))
    moved = rasterize(vertices + np.array([dx, dy, 0]), faces, (81, 81))
    inner, target = np.s_[30:51, 30:51], np.s_[30 + dy : 51 + dy, 30 + dx : 51 + dx]
    # Which of two faces has a pixel on their common edge is a matter of rounding; its depth is not.
    np.testing.assert_allclose(moved.depth_m[target], still.depth_m[inner], rtol=1e-6)


def test_planes_that_cross_meet_in_the_right_column():
    """Depths 1..4 and 4..1 along x of 0..90: linear in 1/z, they meet where 1 - 3x/360 = 1/4 + 3x/360, at x = 45.

    Moving the second one back to 8..2 puts the crossing where 1 - x/120 = 1/8 + x/240, at x = 70.
    """
    falling = np.array([[0, 0, 1], [90, 0, 4], [90, 9, 4], [0, 9, 1]], float)
    for rising_z, column in (((4, 1), 45), ((8, 2), 70)):
        rising = falling.copy()
        rising[:, 2] = np.take(rising_z, [0, 1, 1, 0])
        picture = rasterize(np.concatenate([falling, rising]), np.concatenate([QUAD, QUAD + 4]), (91, 10))
        assert np.all(picture.face[:, :column] < 2)
        assert np.all(picture.face[:, column + 1 :] >= 2)


@given(seed=st.integers(0, 1000), thickness_px=st.sampled_from([1e-3, 1e-6, 1e-9, 1e-12]))
@settings(max_examples=60, deadline=None)
def test_a_sliver_stays_between_the_depths_of_its_corners(seed, thickness_px):
    rng = np.random.default_rng(seed)
    ends = rng.integers(0, 20, (2, 2)).astype(float)
    corners = np.concatenate([ends, [ends.mean(0) + rng.normal(0, thickness_px, 2)]])
    vertices = np.column_stack([corners, rng.uniform(1, 9, 3)])
    depth = rasterize(vertices, np.array([[0, 1, 2]]), (20, 20)).depth_m
    depth = depth[np.isfinite(depth)]
    assert np.all(depth >= vertices[:, 2].min() * (1 - 1e-6))
    assert np.all(depth <= vertices[:, 2].max() * (1 + 1e-6))


@pytest.mark.parametrize("seed", range(5))
def test_a_closed_mesh_has_no_holes(seed):
    rng = np.random.default_rng(seed)
    vertices, faces = ball(rng, 0.15, rings=40, segments=50)
    vertices = vertices * (60, 90, 1) + (rng.uniform(80, 90), rng.uniform(120, 130), 5)
    covered = rasterize(vertices, faces, (170, 250)).face >= 0
    polygons = np.zeros(covered.shape, np.uint8)
    for corners in vertices[faces][..., :2]:
        cv2.fillConvexPoly(polygons, np.rint(corners * 256).astype(np.int32), 1, cv2.LINE_8, 8)
    inner = cv2.erode(polygons, np.ones((3, 3), np.uint8)) > 0
    outer = cv2.dilate(polygons, np.ones((3, 3), np.uint8)) > 0
    assert inner.sum() > 5000
    assert covered[inner].all()
    assert not covered[~outer].any()


def test_a_fan_around_a_pixel_centre_covers_it():
    angle = np.linspace(0, 2 * np.pi, 30)[:-1]
    vertices = np.column_stack([5 + 3 * np.cos(angle), 5 + 3 * np.sin(angle), np.ones(29)])
    vertices = np.concatenate([vertices, [[5, 5, 1]]])
    faces = np.stack([np.arange(29), (np.arange(29) + 1) % 29, np.full(29, 29)], axis=1)
    assert (rasterize(vertices, faces, (11, 11)).face[4:7, 4:7] >= 0).all()


@pytest.mark.parametrize("flip", [False, True], ids=["facing the camera", "facing away"])
def test_culling_leaves_the_front_of_a_closed_mesh(flip):
    vertices, faces = ball(np.random.default_rng(0))
    vertices = vertices * (10, 10, 1) + (15, 15, 3)
    faces = faces[:, ::-1] if flip else faces
    everything, front = (rasterize(vertices, faces, (31, 31), cull_back=cull) for cull in (False, True))
    assert (everything.face >= 0).sum() == (front.face >= 0).sum() > 250
    if flip:
        assert front.depth_m[front.face >= 0].min() > 2.99
    else:
        np.testing.assert_array_equal(front.depth_m, everything.depth_m)


def test_normals_of_a_ball_point_outwards():
    vertices, faces = ball(np.random.default_rng(0), rings=30, segments=40)
    normals = vertex_normals(vertices.astype(np.float32), faces)
    assert normals.dtype == np.float32
    np.testing.assert_allclose(normals, vertices, atol=0.02)


def test_normals_without_an_area_are_zero():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 5, 5], [6, 6, 6.0]])
    normals = vertex_normals(vertices, np.array([[0, 1, 2], [3, 3, 4]]))
    np.testing.assert_array_equal(normals, [[0, 0, 1]] * 3 + [[0, 0, 0]] * 2)
    assert vertex_normals(vertices, np.zeros((0, 3), int)).tolist() == [[0, 0, 0]] * 5


def read(shaded):
    """Number of the mesh (-1 where there is none), shade and depth of every pixel."""
    code, depth_m = shaded.read(np.s_[:], np.s_[:])
    return (code >> LEVEL_BITS).astype(int) - 1, SHADES[code % LEVELS], depth_m


def balls(count, size):
    rng = np.random.default_rng(count)
    vertices, faces = ball(rng, 0.2)
    place = np.column_stack([rng.uniform(0, size, (count, 2)), rng.uniform(3, 9, count)])
    return vertices * (12, 12, 1) + place[:, None], faces, rng.uniform(0, 1, (count, len(vertices)))


@pytest.mark.parametrize("count", [0, 1, 2, 7, 300])
def test_shaded_meshes_are_those_of_the_raster(count):
    vertices, faces, shade = balls(count, (50, 40))
    of_all = (faces + vertices.shape[1] * np.arange(count)[:, None, None]).reshape(-1, 3)
    raster = rasterize(vertices.reshape(-1, 3), of_all, (50, 40), cull_back=True)
    mesh, _, depth_m = read(shade_meshes(vertices, faces, shade, (50, 40)))
    np.testing.assert_array_equal(mesh, np.where(raster.face < 0, -1, raster.face // len(faces)))
    np.testing.assert_allclose(depth_m, raster.depth_m, rtol=1e-6)


def test_a_shade_is_interpolated_over_its_face():
    """On a ball whose shade is linear in the image, and in a part of the image as in the whole."""
    vertices, faces, _ = balls(3, (60, 60))
    shade = np.clip(0.2 + vertices[..., 0] / 200 + vertices[..., 1] / 400, 0, 1)
    shaded = shade_meshes(vertices, faces, shade, (60, 60))
    mesh, found, _ = read(shaded)
    y, x = np.nonzero(mesh >= 0)
    assert len(y) > 500
    np.testing.assert_allclose(found[y, x], 0.2 + x / 200 + y / 400, atol=1.5 / LEVELS)
    part = np.s_[10:35], np.s_[7:50]
    np.testing.assert_array_equal(shaded.read(*part)[0], shaded.read(np.s_[:], np.s_[:])[0][part])


@given(seed=st.integers(0, 1000), thickness_px=st.sampled_from([100.0, 1.0, 1e-3, 1e-6, 1e-9]))
@settings(max_examples=60, deadline=None)
def test_a_shade_stays_between_those_of_its_corners(seed, thickness_px):
    rng = np.random.default_rng(seed)
    ends = rng.integers(-200, 400, (2, 2)).astype(float)
    corners = np.concatenate([ends, [ends.mean(0) + rng.normal(0, thickness_px, 2)]])
    vertices = np.column_stack([corners, rng.uniform(1, 9, 3)])[None]
    shade = rng.choice([0.0, 1.0, 0.5], (1, 3))
    mesh, found, _ = read(shade_meshes(vertices, np.array([[0, 1, 2]]), shade, (200, 200)))
    assert set(np.unique(mesh)) <= {-1, 0}
    assert np.all(found[mesh == 0] >= shade.min() - 2 / LEVELS)
    assert np.all(found[mesh == 0] <= shade.max() + 2 / LEVELS)


@pytest.mark.filterwarnings("error")
def test_corners_far_outside_the_image_leave_depths_between_those_of_the_corners():
    rng, drawn = np.random.default_rng(0), 0
    for _ in range(600):
        far_px = 10 ** rng.uniform(2, 9, (3, 1))
        corners_px, depths_m = rng.normal(0, 1, (3, 2)) * far_px, 10 ** rng.uniform(-1.9, 2, (3, 1))
        triangle = np.concatenate([corners_px, depths_m], 1)
        picture = rasterize(triangle, np.array([[0, 1, 2], [0, 2, 1]]), (64, 48))
        seen_m = picture.depth_m[picture.face >= 0]
        drawn += len(seen_m) > 0
        assert ((seen_m > 0.999 * depths_m.min()) & (seen_m < 1.001 * depths_m.max())).all()
    assert drawn > 50
