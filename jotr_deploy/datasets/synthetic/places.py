"""Scenes moved outdoors, and scenes without their people."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from jotr_deploy.datasets.synthetic.outdoors import outdoor_backdrop
from jotr_deploy.datasets.synthetic.scene import Scene

_OF_PEOPLE = ("pose_rad", "betas", "translation_m", "motions", "coarse_m")


@dataclass(frozen=True)
class Places:
    """Shares of samples that are outdoors or empty, besides rooms and collages with people."""

    outdoors: float = 0.0  # share with an outdoor backdrop
    empty: float = 0.0  # share without people

    def draw(self, rng: np.random.Generator) -> tuple[bool, bool]:
        """Whether a sample is outdoors, and whether it is empty."""
        outdoors, empty = rng.random(2) < (self.outdoors, self.empty)
        return bool(outdoors), bool(empty)


ROOMS = Places()
"""Rooms and collages, all with people."""


def moved_outdoors(rng: np.random.Generator, scene: Scene) -> Scene:
    """The same people and objects before a random outdoor backdrop."""
    return replace(scene, backdrop=outdoor_backdrop(rng, scene.camera, scene.size_px))


def without_people(scene: Scene) -> Scene:
    """The same place with its objects, but nobody in it."""
    return replace(scene, outfits=(), **{name: getattr(scene, name)[:0] for name in _OF_PEOPLE})
