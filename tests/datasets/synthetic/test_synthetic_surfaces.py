"""Solids are closed and face outwards; materials and clothes are functions of place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from jotr_deploy.datasets.synthetic.materials import (
    BLOTCHES,
    CHECKS,
    DOTS,
    PLAIN,
    STRIPES,
    noise,
    paint,
    random_colour,
    random_material,
)
from jotr_deploy.datasets.synthetic.skinning import body
from jotr_deploy.datasets.synthetic.solids import BOX, CYLINDER, ELLIPSOID, unit_mesh
from jotr_deploy.datasets.synthetic.wardrobe import paint_person, random_outfit


@pytest.mark.parametrize(("kind", "volume"), [(BOX, 8.0), (CYLINDER, 2 * np.pi), (ELLIPSOID, 4 / 3 * np.pi)])
def test_unit_solids(kind: int, volume: float) -> None:
    mesh = unit_mesh(kind)
    a, b, c = (mesh.points.astype(np.float64)[mesh.faces[:, k]] for k in range(3))
    assert (a * np.cross(b, c)).sum() / 6 == pytest.approx(volume, rel=0.06)  # negative inside out
    assert np.abs(mesh.points).max() == pytest.approx(1)
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-6)
    across = np.cross(b - a, c - a)
    proper = np.linalg.norm(across, axis=1) > 1e-9
    facing = (across[proper] * mesh.normals[mesh.faces[proper]].mean(1)).sum(1)
    assert (facing > 0).all()


@pytest.mark.parametrize("pattern", [PLAIN, STRIPES, CHECKS, DOTS, BLOTCHES])
@pytest.mark.parametrize("count", [0, 1, 2000])
def test_patterns_mix_two_colours(pattern: int, count: int) -> None:
    rng = np.random.default_rng(0)
    material = replace(
        random_material(rng, (0.05, 0.1), 0.5),
        colours=np.array([[0, 0, 0], [1, 1, 1]], np.float32),
        pattern=pattern,
        share=0.4,
        grain=0.0,
    )
    points = rng.uniform(-1, 1, (3, count)).astype(np.float32)
    colours = paint(material, points)
    assert colours.shape == (3, count)
    assert colours.dtype == np.float32
    if count > 1:
        assert colours.min() >= 0
        assert colours.max() == (0 if pattern == PLAIN else 1)
        assert colours.mean() < 0.7


def test_noise_is_smooth_and_repeats() -> None:
    points = np.random.default_rng(0).uniform(0, 32, (3, 5000)).astype(np.float32)
    offset = np.zeros(3, np.float32)
    values = noise(points, 1.0, offset)
    np.testing.assert_allclose(noise(points + 32, 1.0, offset), values, atol=1e-3)
    assert abs(values.mean()) < 0.05
    assert 0.3 < values.std() < 0.6
    assert np.abs(noise(points + np.float32(0.01), 1.0, offset) - values).max() < 0.2


def test_outfits_cover_the_body_in_colours() -> None:
    points = body().v_template.T
    for seed in range(20):
        colours = paint_person(random_outfit(np.random.default_rng(seed)), points)
        assert np.isfinite(colours).all()
        assert colours.min() > -0.2
        assert colours.max() < 2
        hand, foot = np.abs(points[0]) > 0.75, points[1] < -1.16
        assert np.abs(colours[:, hand].mean(1) - colours[:, foot].mean(1)).max() > 1e-3


def test_colours_are_colours() -> None:
    rng = np.random.default_rng(0)
    colours = np.array([random_colour(rng) for _ in range(500)])
    assert colours.min() >= 0
    assert colours.max() <= 1
    assert 0.3 < colours.mean() < 0.6
    assert (np.ptp(colours, axis=1) < 0.1).mean() > 0.2  # greys
    assert (np.ptp(colours, axis=1) > 0.3).mean() > 0.1  # and not
