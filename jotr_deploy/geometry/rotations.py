"""Rotations as axis-angle vectors (direction = axis, length = angle in radians) and as matrices."""

from __future__ import annotations

import numpy as np

from jotr_deploy.support.aliases import Array


def matrix_from_axis_angle(axis_angle_rad: Array) -> Array:
    """(..., 3) -> (..., 3, 3) float64, acting on column vectors (Rodrigues)."""
    vector = np.asarray(axis_angle_rad, np.float64)
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vector, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*vector.shape, 3)
    # sin(a)/a and (1 - cos(a))/a^2, both finite at zero
    first = np.sinc(angle / np.pi)
    second = np.sinc(angle / (2 * np.pi)) ** 2 / 2
    matrix: Array = np.eye(3) + first * cross + second * (cross @ cross)
    return matrix


def axis_angle_from_matrix(rotations: Array) -> Array:
    """(..., 3, 3) -> (..., 3) radians, angle in 0..pi; at exactly pi either of the two axes."""
    skew = np.stack([rotations[..., 2, 1], rotations[..., 0, 2], rotations[..., 1, 0]], -1)
    skew = skew - np.stack([rotations[..., 1, 2], rotations[..., 2, 0], rotations[..., 0, 1]], -1)
    sine = np.linalg.norm(skew, axis=-1) / 2
    cosine = (np.trace(rotations, axis1=-2, axis2=-1) - 1) / 2
    angle = np.arctan2(sine, cosine)
    vector: Array = skew / 2 * np.where(sine > 1e-9, angle / np.maximum(sine, 1e-9), 1.0)[..., None]
    half_turn = (sine < 1e-4) & (cosine < 0)  # the skew part, which holds the axis, vanishes
    if half_turn.any():
        axis = _longest_column(rotations[half_turn] - cosine[half_turn][..., None, None] * np.eye(3))
        sign = np.where((axis * skew[half_turn]).sum(-1) < 0, -1, 1)
        vector[half_turn] = axis * (sign * angle[half_turn])[..., None]
    return vector


def _longest_column(matrices: Array) -> Array:
    """Longest column of symmetric parts, as a unit vector: (K, 3, 3) near c a a^T -> (K, 3) unit a or -a."""
    columns = (matrices + np.swapaxes(matrices, -1, -2)) / 2
    lengths = np.linalg.norm(columns, axis=-1)
    longest = lengths.argmax(-1)
    rows = np.arange(len(longest))
    axis: Array = columns[rows, longest] / lengths[rows, longest][:, None]
    return axis


def angle_between(a_rad: Array, b_rad: Array) -> Array:
    """Angle in radians, 0..pi, of the rotation that leads from one axis-angle to another: (..., 3) x 2 -> (...).

    Unlike the difference of the vectors it does not jump where an axis-angle flips its sign at pi.
    """
    # Chord instead of arccos of the trace: exact near zero, where float32 outputs are compared.
    chord = np.linalg.norm(matrix_from_axis_angle(a_rad) - matrix_from_axis_angle(b_rad), axis=(-2, -1))
    angle: Array = 2 * np.arcsin(np.clip(chord / np.sqrt(8), 0, 1))
    return angle
