"""Clothes, hair and skin: colours of points on the body at rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jotr_deploy.datasets.synthetic.materials import Material, paint, random_colour, random_material
from jotr_deploy.support.aliases import Array

SKIN, HAIR, TOP, LEGS, SHOES, EXTRA = range(6)
_SKINS = np.array([[184, 204, 240], [140, 172, 222], [96, 134, 192], [62, 92, 146], [38, 56, 92]]) / 255  # BGR
_HAIRS = np.array([[18, 18, 20], [30, 44, 66], [52, 88, 130], [110, 170, 210], [165, 168, 170], [40, 60, 150]]) / 255
_ARM_X, _ARM_Y = 0.19, 0.10  # beyond both: an arm at rest
_BODY = (0.02, 0.14)  # metres a period of a pattern


@dataclass(frozen=True)
class Outfit:
    """Materials by region, and the bounds of the regions in metres in the rest frame of the stand-in body."""

    materials: tuple[Material, ...]  # SKIN, HAIR, TOP, LEGS, SHOES, EXTRA
    sleeve_x: float
    neck_y: float
    neck_drop: float  # deeper in front
    hem_y: float
    leg_y: float  # where trousers or skirt end
    shoe_y: float
    hair_y: float  # above hair_y + hair_slope * z there is hair
    hair_slope: float
    back_hair_y: float  # hair down to here behind
    beard: bool
    print_box: Array  # (4,) x low, y low, x high, y high of a print on the chest; empty if low > high
    open_x: float  # half width of the opening of a jacket; 0 for none


def random_outfit(rng: np.random.Generator, wide: bool = False) -> Outfit:
    """Random clothes of a person; with `wide` more patterns, dresses and jackets."""
    tone = rng.uniform(0, len(_SKINS) - 1)
    k = min(int(tone), len(_SKINS) - 2)
    skin = (_SKINS[k] + (tone - k) * (_SKINS[k + 1] - _SKINS[k])) * rng.uniform(0.9, 1.1)
    hair = random_colour(rng) if rng.random() < 0.2 else _HAIRS[rng.integers(len(_HAIRS))] * rng.uniform(0.6, 1.2)
    top = random_material(rng, _BODY, plain=0.25 if wide else 0.5)
    one_piece = rng.random() < (0.25 if wide else 0.12)
    legs = top if one_piece else random_material(rng, _BODY, plain=0.4 if wide else 0.75)
    jacket = rng.random() < (0.45 if wide else 0.25)
    has_print = rng.random() < 0.25
    x, y = rng.uniform(-0.05, 0.03), rng.uniform(-0.02, 0.12)
    across, tall = (rng.uniform(0.04, 0.16), rng.uniform(0.03, 0.12)) if has_print else (-1, -1)
    long_sleeve, long_leg = rng.random() < 0.5, rng.random() < 0.6
    return Outfit(
        materials=(
            random_material(rng, (0.3, 0.6), 1.0, skin),
            random_material(rng, (0.02, 0.05), 1.0, hair),
            top,
            legs,
            random_material(rng, (0.03, 0.1), 0.7),
            random_material(rng, _BODY, 0.7),
        ),
        sleeve_x=float(rng.uniform(0.6, 0.69) if long_sleeve else rng.uniform(0.15, 0.42)),
        neck_y=float(rng.uniform(0.225, 0.30)),
        neck_drop=float(rng.choice([0.0, 0.05, 0.12]) * rng.random()),
        hem_y=float(rng.uniform(-0.42, -0.16)),
        leg_y=float(rng.uniform(-1.1, -0.95) if long_leg else rng.uniform(-0.85, -0.42)),
        shoe_y=float(rng.choice([-1.11, -1.08, -0.98, -0.78, -1.3], p=[0.4, 0.3, 0.12, 0.08, 0.1])),
        hair_y=float(rng.uniform(0.39, 0.44)),
        hair_slope=float(rng.uniform(0.5, 0.9)),
        back_hair_y=float(rng.uniform(0.0, 0.3) if rng.random() < 0.3 else 0.34),
        beard=bool(rng.random() < 0.12),
        print_box=np.array([x, y, x + across, y + tall], np.float32),
        open_x=float(rng.uniform(0.02, 0.06) if jacket else 0.0),
    )


def paint_person(outfit: Outfit, points: Array) -> Array:
    """(3, N) float32 points of the body at rest -> (3, N) BGR in 0..1 before light."""
    region = _regions(outfit, points)
    x, y, z = points
    aside = np.abs(x)
    arm = (aside > _ARM_X) & (y > _ARM_Y)
    # On an arm the cloth hangs from the shoulder: the distance along the arm replaces the height.
    hanging = np.stack([np.where(arm, y, x), np.where(arm, -aside, y), z])
    colours = np.empty_like(points)
    for kind, material in enumerate(outfit.materials):
        here = np.flatnonzero(region == kind)
        if len(here):
            colours[:, here] = paint(material, hanging.take(here, 1))
    face = np.flatnonzero((y > 0.3) & (z > 0.06) & (region == SKIN))
    if len(face):
        colours[:, face] *= _face(points.take(face, 1))
    return colours


def _regions(outfit: Outfit, points: Array) -> Array:
    """(N,) int8 index of the material."""
    signed, y, z = points
    x = np.abs(signed)
    front = z > 0
    region = np.full(len(x), SKIN, np.int8)
    region[(y < outfit.hem_y + 0.02) & (y > outfit.leg_y)] = LEGS
    neck = outfit.neck_y - front * (outfit.neck_drop * np.maximum(1 - x / 0.08, 0))
    top = (y > outfit.hem_y) & (y < neck) & (x < outfit.sleeve_x)
    region[top] = TOP
    if outfit.open_x > 0:
        region[top & front & (x < outfit.open_x)] = EXTRA
    low_x, low_y, high_x, high_y = outfit.print_box
    if low_x < high_x:
        region[top & front & (signed > low_x) & (signed < high_x) & (y > low_y) & (y < high_y)] = EXTRA
    region[y < outfit.shoe_y] = SHOES
    hair = (y > 0.3) & (y > outfit.hair_y + outfit.hair_slope * z)
    hair |= (y > outfit.back_hair_y) & (z < -0.035)
    if outfit.beard:
        hair |= (y > 0.29) & (y < 0.372) & (z > 0.03) & (np.abs(y - 0.352) + x > 0.02)
    region[hair & (x < 0.13)] = HAIR
    return region


def _face(points: Array) -> Array:
    """(3, N) factors that give a face eyes, brows and a mouth."""
    x, y = np.abs(points[0]), points[1]
    factor = np.ones_like(points)
    factor[:, (x - 0.032) ** 2 + (y - 0.421) ** 2 < 0.010**2] = 0.23
    factor[:, (np.abs(y - 0.443 + 0.1 * (x - 0.03)) < 0.005) & (x > 0.014) & (x < 0.052)] = 0.45
    factor[:, (np.abs(y - 0.350) < 0.008) & (x < 0.024)] = np.array([[0.62], [0.6], [0.9]])
    return factor
