"""Lights: a sky, a reflecting ground, and a few distant lights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jotr_deploy.datasets.synthetic.viewpoint import Camera
from jotr_deploy.support.aliases import Array


@dataclass(frozen=True)
class Lights:
    """Lights of a scene. Colours are BGR; a white surface in the full light of all is about 1."""

    down: Array  # (3,) unit, camera frame
    above: Array  # (3,) light from the sky
    below: Array  # (3,) light from the ground
    towards: Array  # (L, 3) unit, camera frame, the strongest first
    towards_level: Array  # (3,) the first of them in the level frame
    colours: Array  # (L, 3)
    wrap: float  # how far light reaches around a surface: 0 hard, 1 to the back


def random_lights(rng: np.random.Generator, camera: Camera, wide: bool = False) -> Lights:
    """One to three lights from above and from any side; with `wide` also dim and harsh ones."""
    count = int(rng.integers(1, 4))
    around, up = rng.uniform(0, 2 * np.pi, count), rng.uniform(0.25, 1.45, count)
    level = np.stack([np.cos(up) * np.sin(around), -np.sin(up), np.cos(up) * np.cos(around)], 1)
    ambient, key = rng.uniform(0.15 if wide else 0.35, 0.95), rng.uniform(0.25, 1.4 if wide else 0.85)
    strength = key * np.array([1.0, 0.5, 0.3])[:count] * rng.uniform(0.6, 1.2, count)
    above = ambient * (1 + 0.08 * rng.normal(0, 1, 3))
    return Lights(
        down=camera.camera_from_level[:, 1].astype(np.float32),
        above=above.astype(np.float32),
        below=(above * rng.uniform(0.4, 0.8)).astype(np.float32),
        towards=(level @ camera.camera_from_level.T).astype(np.float32),
        towards_level=level[0],
        colours=(strength[:, None] * (1 + 0.1 * rng.normal(0, 1, (count, 3)))).astype(np.float32),
        wrap=float(rng.uniform(0, 0.5)),
    )


def light_on(lights: Lights, normals: Array) -> Array:
    """(V, 3) unit normals in the camera frame -> (V, 3) float32 light that arrives."""
    facing = np.maximum((normals @ lights.towards.T + lights.wrap) / (1 + lights.wrap), 0)
    down = (0.5 + 0.5 * (normals @ lights.down))[:, None]
    light: Array = facing @ lights.colours + lights.above + down * (lights.below - lights.above)
    return light.astype(np.float32)
