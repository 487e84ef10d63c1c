"""The stand-in person as an implicit surface: a field that is negative inside, zero on the skin.

Every number here is invented: proportions of a person 1.7 m tall in the T-pose, in SMPL's rest frame (metres, y up,
x to the person's left, z forward). Only the left half (x >= 0) is described; the right half is its mirror image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from jotr_deploy.support.aliases import Array

PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
LEFT_OR_CENTRE = {  # joint: position; the right joints are mirror images
    0: (0.000, -0.225, -0.005), 1: (0.088, -0.300, -0.005), 3: (0.000, -0.115, -0.010), 4: (0.100, -0.700, 0.000),
    6: (0.000, 0.010, -0.010), 7: (0.102, -1.085, -0.032), 9: (0.000, 0.090, -0.005), 10: (0.112, -1.135, 0.090),
    12: (0.000, 0.270, -0.030), 13: (0.070, 0.205, -0.020), 15: (0.000, 0.345, 0.000), 16: (0.165, 0.215, -0.025),
    18: (0.435, 0.210, -0.036), 20: (0.680, 0.210, -0.044), 22: (0.765, 0.207, -0.042),
}  # fmt: skip
MIRROR_JOINT = (0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22)


def rest_joints() -> Array:
    """(24, 3) joint positions of the skeleton, metres, in SMPL's order."""
    mirrored = {MIRROR_JOINT[j]: (-x, y, z) for j, (x, y, z) in LEFT_OR_CENTRE.items() if x > 0}
    joints = LEFT_OR_CENTRE | mirrored
    return np.array([joints[j] for j in range(24)])


# ---------------------------------------------------------------------------------------------------- primitives
@dataclass(frozen=True)
class Part:
    """One primitive: its signed distance, its bounding box, and the width of its blend with what came before."""

    distance: Callable[[Array], Array]
    low: Array
    high: Array
    blend_m: float
    carve: bool = False


def loft(axis: int, rows: Sequence[tuple[float, ...]], blend: float, power: float = 2.0) -> Part:
    """A tube along `axis` with superelliptic sections; a row is (position, u low, u high, v low, v high)."""
    table = np.array(sorted(rows))
    s_fine = np.linspace(table[0, 0], table[-1, 0], 400)
    bounds = PchipInterpolator(table[:, 0], table[:, 1:])(s_fine)
    sections = np.c_[bounds[:, [0, 2]] + bounds[:, [1, 3]], bounds[:, [1, 3]] - bounds[:, [0, 2]]] / 2
    others = [i for i in range(3) if i != axis]

    def distance(points: Array) -> Array:
        s = points[:, axis]
        cu, cv, ru, rv = (np.interp(s, s_fine, column) for column in sections.T)
        u, v = points[:, others[0]] - cu, points[:, others[1]] - cv
        q = ((np.abs(u) / ru) ** power + (np.abs(v) / rv) ** power) ** (1 / power) + 1e-9
        radial = np.hypot(u, v) * (1 - 1 / q)
        radial = np.where(q < 0.3, -np.minimum(ru, rv) * (1 - q), radial)
        beyond = np.maximum(s_fine[0] - s, s - s_fine[-1])
        outside = np.where(radial > 0, np.hypot(radial, beyond), beyond)
        value: Array = np.where(beyond > 0, outside, radial)
        return value

    low, high = np.empty(3), np.empty(3)
    low[axis], high[axis] = s_fine[0], s_fine[-1]
    low[others], high[others] = bounds[:, [0, 2]].min(0), bounds[:, [1, 3]].max(0)
    return Part(distance, low, high, blend)


def cone(a: tuple[float, ...], b: tuple[float, ...], ra: float, rb: float, blend: float) -> Part:
    """A capsule from `a` to `b` whose radius goes from `ra` to `rb`."""
    start, along = np.array(a), np.array(b) - np.array(a)

    def distance(points: Array) -> Array:
        t = np.clip((points - start) @ along / (along @ along), 0, 1)
        value: Array = np.linalg.norm(points - start - t[:, None] * along, axis=1) - (ra + (rb - ra) * t)
        return value

    radius = max(ra, rb)
    return Part(distance, np.minimum(a, b) - radius, np.maximum(a, b) + radius, blend)


def ellipsoid(centre: tuple[float, ...], radii: tuple[float, ...], blend: float, carve: bool = False) -> Part:
    """An axis-aligned ellipsoid; `carve` takes it away instead of adding it."""
    c, r = np.array(centre), np.array(radii)

    def distance(points: Array) -> Array:
        k0 = np.linalg.norm((points - c) / r, axis=1)
        value: Array = k0 * (k0 - 1) / (np.linalg.norm((points - c) / r**2, axis=1) + 1e-9)
        return value

    return Part(distance, c - r, c + r, blend, carve)


# ---------------------------------------------------------------------------------------------------- the person
def tube(centre_radius: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Rows (position, cu, cv, ru, rv) as the (position, low, high, low, high) that `loft` takes."""
    return [(s, cu - ru, cu + ru, cv - rv, cv + rv) for s, cu, cv, ru, rv in centre_radius]


TORSO = [  # y, half width, front z, back z
    (-0.395, 0.030, 0.025, -0.045), (-0.36, 0.110, 0.070, -0.080), (-0.31, 0.150, 0.093, -0.096),
    (-0.25, 0.160, 0.104, -0.103), (-0.18, 0.150, 0.108, -0.090), (-0.10, 0.136, 0.103, -0.074),
    (-0.03, 0.136, 0.102, -0.078), (0.05, 0.148, 0.108, -0.098), (0.12, 0.157, 0.108, -0.114),
    (0.18, 0.153, 0.088, -0.114), (0.225, 0.130, 0.056, -0.102), (0.255, 0.092, 0.032, -0.087),
    (0.28, 0.055, 0.016, -0.070),
]  # fmt: skip
LEG = tube([  # y, centre x, centre z, radius x, radius z
    (-0.22, 0.090, -0.005, 0.060, 0.070), (-0.30, 0.096, -0.004, 0.084, 0.094), (-0.37, 0.097, -0.002, 0.086, 0.094),
    (-0.45, 0.098, 0.002, 0.080, 0.088), (-0.55, 0.099, 0.006, 0.069, 0.077), (-0.64, 0.100, 0.008, 0.056, 0.062),
    (-0.70, 0.100, 0.006, 0.051, 0.056), (-0.75, 0.100, -0.003, 0.047, 0.052), (-0.83, 0.102, -0.017, 0.053, 0.057),
    (-0.92, 0.103, -0.022, 0.044, 0.048), (-1.00, 0.102, -0.027, 0.033, 0.038), (-1.06, 0.102, -0.031, 0.030, 0.037),
    (-1.12, 0.102, -0.032, 0.033, 0.042),
])  # fmt: skip
FOOT = [  # z, inner x, outer x, sole y, top y
    (-0.078, 0.086, 0.116, -1.155, -1.110), (-0.066, 0.074, 0.130, -1.168, -1.085),
    (-0.040, 0.070, 0.135, -1.170, -1.070), (0.000, 0.070, 0.137, -1.170, -1.075),
    (0.050, 0.067, 0.148, -1.170, -1.099), (0.100, 0.064, 0.158, -1.170, -1.122),
    (0.140, 0.066, 0.158, -1.170, -1.136), (0.165, 0.072, 0.145, -1.168, -1.143),
    (0.178, 0.084, 0.126, -1.165, -1.147), (0.184, 0.098, 0.110, -1.160, -1.152),
]  # fmt: skip
ARM = tube([  # x, centre y, centre z, radius y, radius z
    (0.100, 0.195, -0.025, 0.045, 0.050), (0.150, 0.205, -0.027, 0.056, 0.060), (0.190, 0.208, -0.028, 0.055, 0.057),
    (0.240, 0.209, -0.030, 0.048, 0.050), (0.310, 0.209, -0.031, 0.044, 0.045), (0.380, 0.210, -0.034, 0.039, 0.040),
    (0.435, 0.210, -0.036, 0.035, 0.037), (0.485, 0.210, -0.036, 0.037, 0.040), (0.540, 0.210, -0.038, 0.034, 0.038),
    (0.610, 0.210, -0.041, 0.026, 0.031), (0.665, 0.210, -0.043, 0.020, 0.027), (0.700, 0.210, -0.043, 0.018, 0.031),
])  # fmt: skip
PALM = tube([  # x, centre y, centre z, radius y, radius z
    (0.670, 0.210, -0.043, 0.018, 0.025), (0.700, 0.210, -0.042, 0.017, 0.035), (0.735, 0.209, -0.041, 0.015, 0.041),
    (0.770, 0.208, -0.041, 0.012, 0.041), (0.780, 0.208, -0.041, 0.009, 0.039),
])  # fmt: skip
FINGERS = [  # root z, tip x, tip y, tip z, radius
    (-0.012, 0.848, 0.202, 0.000, 0.0092), (-0.031, 0.860, 0.202, -0.030, 0.0095),
    (-0.050, 0.850, 0.202, -0.059, 0.0090), (-0.068, 0.826, 0.202, -0.086, 0.0080),
]  # fmt: skip
FINGERTIPS = [(x + 0.8 * r, y, z) for _, x, y, z, r in FINGERS] + [(0.783, 0.196, 0.029)]
HEAD = [  # y, half width, front z, back z
    (0.308, 0.020, 0.093, 0.050), (0.325, 0.040, 0.103, 0.006), (0.345, 0.050, 0.105, -0.024),
    (0.375, 0.060, 0.104, -0.050), (0.41, 0.066, 0.104, -0.072), (0.44, 0.068, 0.104, -0.080),
    (0.47, 0.060, 0.096, -0.070), (0.49, 0.044, 0.080, -0.050),
]  # fmt: skip

PARTS: list[Part] = [
    loft(1, [(y, -w, w, back, front) for y, w, front, back in TORSO], 0.0, power=2.3),
    ellipsoid((0.070, 0.095, 0.070), (0.066, 0.052, 0.036), 0.050),  # chest
    ellipsoid((0.078, -0.295, -0.064), (0.072, 0.080, 0.056), 0.050),  # seat
    cone((0.0, 0.285, -0.045), (0.150, 0.235, -0.032), 0.030, 0.030, 0.045),  # trapezius
    cone((0.0, 0.240, -0.038), (0.0, 0.360, -0.012), 0.060, 0.053, 0.035),  # neck
    loft(1, [(y, -w, w, back, front) for y, w, front, back in HEAD], 0.012, power=2.2),
    ellipsoid((0.0, 0.446, 0.008), (0.0755, 0.084, 0.097), 0.020),  # skull
    ellipsoid((0.033, 0.421, 0.110), (0.021, 0.012, 0.013), 0.012, carve=True),  # eye socket
    ellipsoid((0.032, 0.421, 0.0875), (0.0155, 0.0105, 0.013), 0.003),  # eye
    cone((0.0, 0.428, 0.100), (0.0, 0.385, 0.117), 0.007, 0.0095, 0.014),  # nose
    ellipsoid((0.011, 0.382, 0.108), (0.008, 0.008, 0.010), 0.010),  # nostril
    ellipsoid((0.0, 0.350, 0.099), (0.024, 0.010, 0.011), 0.008),  # lips
    ellipsoid((0.0, 0.318, 0.094), (0.022, 0.013, 0.015), 0.018),  # chin
    ellipsoid((0.0735, 0.410, -0.006), (0.009, 0.030, 0.018), 0.006),  # ear
    loft(0, ARM, 0.045),
    loft(0, PALM, 0.015, power=2.5),
    *[cone((0.772, 0.208, zr), (x, y, z), r, 0.8 * r, 0.006) for zr, x, y, z, r in FINGERS],
    cone((0.695, 0.206, -0.022), (0.735, 0.199, 0.014), 0.015, 0.0115, 0.014),  # thumb
    cone((0.735, 0.199, 0.014), (0.775, 0.196, 0.026), 0.0115, 0.0085, 0.004),
    loft(1, LEG, 0.030),
    ellipsoid((0.100, -0.690, 0.046), (0.028, 0.040, 0.012), 0.030),  # kneecap
    loft(2, FOOT, 0.025, power=2.6),
]


def field(points: Array) -> Array:
    """Signed distance (approximate, exact sign) of points (N, 3) to the skin; the right half by mirroring."""
    folded = points.astype(np.float64)
    folded[:, 0] = np.abs(folded[:, 0])
    value = np.full(len(points), 0.2)
    for part in PARTS:
        near = np.all((folded > part.low - 0.08) & (folded < part.high + 0.08), axis=1)
        d, old = part.distance(folded[near]), value[near]
        d = -d if part.carve else d
        sign = -1 if part.carve else 1
        overlap = np.maximum(part.blend_m - np.abs(d - old), 0) / (part.blend_m + 1e-9)
        value[near] = sign * (np.minimum(sign * d, sign * old) - overlap**2 * part.blend_m / 4)
    return value
