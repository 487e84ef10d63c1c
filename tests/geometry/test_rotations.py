"""Rotations by their laws, near zero and near half a turn on purpose."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from jotr_deploy.geometry.rotations import angle_between, axis_angle_from_matrix, matrix_from_axis_angle

angles = st.one_of(
    st.floats(0, 2 * np.pi), st.sampled_from([0.0, 1e-12, 1e-7, 1e-3, np.pi - 1e-7, np.pi, np.pi + 1e-7, 2 * np.pi])
)
axes = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 1e-3)


@st.composite
def vectors(draw: st.DrawFn) -> np.ndarray:
    axis = np.array(draw(axes))
    return axis / np.linalg.norm(axis) * draw(angles)


@given(vectors())
def test_a_matrix_is_a_rotation_about_its_axis(vector: np.ndarray) -> None:
    matrix = matrix_from_axis_angle(vector)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)
    np.testing.assert_allclose(matrix @ vector, vector, atol=1e-11)
    np.testing.assert_allclose(matrix_from_axis_angle(-vector), matrix.T, atol=1e-12)
    np.testing.assert_allclose(matrix, Rotation.from_rotvec(vector).as_matrix(), atol=1e-12)


@given(vectors())
def test_half_the_angle_twice_is_the_angle(vector: np.ndarray) -> None:
    half = matrix_from_axis_angle(vector / 2)
    np.testing.assert_allclose(half @ half, matrix_from_axis_angle(vector), atol=1e-12)


@given(vectors())
def test_a_matrix_and_back(vector: np.ndarray) -> None:
    matrix = matrix_from_axis_angle(vector)
    found = axis_angle_from_matrix(matrix)
    assert np.linalg.norm(found) <= np.pi + 1e-12
    np.testing.assert_allclose(matrix_from_axis_angle(found), matrix, atol=1e-8)


@given(axes, st.sampled_from([0.0, 1e-12, 1e-8, 1e-5, 1e-4, 1e-3]))
def test_and_back_near_half_a_turn(axis: tuple[float, ...], short: float) -> None:
    matrix = matrix_from_axis_angle(np.array(axis) / np.linalg.norm(axis) * (np.pi - short))
    np.testing.assert_allclose(matrix_from_axis_angle(axis_angle_from_matrix(matrix)), matrix, atol=1e-11)


@given(vectors(), vectors())
def test_the_angle_between_is_a_distance(a: np.ndarray, b: np.ndarray) -> None:
    angle = angle_between(a, b)
    assert 0 <= angle <= np.pi
    assert angle == pytest.approx(angle_between(b, a), abs=1e-9)
    assert angle_between(a, a) == 0
    expected = (Rotation.from_rotvec(a).inv() * Rotation.from_rotvec(b)).magnitude()
    assert angle == pytest.approx(expected, abs=1e-7)


@given(axes, st.floats(0, np.pi))
def test_from_rest_the_angle_is_the_length(axis: tuple[float, ...], angle: float) -> None:
    vector = np.array(axis) / np.linalg.norm(axis) * angle
    assert angle_between(np.zeros(3), vector) == pytest.approx(angle, abs=1e-7)


@given(axes, st.floats(1e-9, 1e-3))
def test_it_does_not_jump_at_half_a_turn(axis: tuple[float, ...], small: float) -> None:
    unit = np.array(axis) / np.linalg.norm(axis)
    assert angle_between((np.pi - small) * unit, -(np.pi - small) * unit) == pytest.approx(2 * small, abs=1e-9)


@pytest.mark.parametrize("small", [1e-7, 1e-10, 1e-13])
def test_small_angles_are_not_lost(small: float) -> None:
    assert angle_between(np.zeros(3), np.array([0, small, 0])) == pytest.approx(small, rel=1e-3)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (4, 24), (2, 0)])
def test_leading_axes(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, *shape, 3)).astype(np.float32)
    matrices, angle = matrix_from_axis_angle(a), angle_between(a, b)
    assert (matrices.shape, matrices.dtype, angle.shape) == ((*shape, 3, 3), np.float64, shape)
    for index in np.ndindex(shape):
        np.testing.assert_array_equal(matrices[index], matrix_from_axis_angle(a[index]))


def test_a_quarter_turn_turns_as_the_right_hand_does() -> None:
    np.testing.assert_allclose(matrix_from_axis_angle(np.array([0, 0, np.pi / 2])) @ [1, 0, 0], [0, 1, 0], atol=1e-15)
