"""Scenes from a seed: positions, poses and clothes of people, camera, objects, lights and backdrop."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from jotr_deploy.datasets.synthetic.backdrop import Backdrop, random_backdrop
from jotr_deploy.datasets.synthetic.lights import Lights, random_lights
from jotr_deploy.datasets.synthetic.objects import random_things
from jotr_deploy.datasets.synthetic.placing import place_people, random_camera
from jotr_deploy.datasets.synthetic.skinning import coarse_mesh, joint_motions, skin
from jotr_deploy.datasets.synthetic.solids import Solid
from jotr_deploy.datasets.synthetic.viewpoint import Camera
from jotr_deploy.datasets.synthetic.wardrobe import Outfit, random_outfit
from jotr_deploy.geometry.rotations import matrix_from_axis_angle
from jotr_deploy.support.aliases import Array

_BLOCK = 16  # scenes whose poses are drawn together: one by one they would take as long as everything else


@dataclass(frozen=True)
class SceneOptions:
    """Options of scenes."""

    size_px: tuple[int, int] = (480, 360)
    people: tuple[int, int] = (1, 4)
    wide: bool = False
    """Poses, cameras, lights, clothes and lenses beyond the usual ones."""


@dataclass(frozen=True)
class Lens:
    """Imperfections that the camera adds to the picture."""

    blur_px: float  # deviation of the blur in picture pixels
    noise: float  # deviation of the noise of a picture pixel, of 0..1
    noise_at: tuple[int, int]  # where in the store of noise
    gain: Array  # (3,) BGR
    gamma: float


@dataclass(frozen=True)
class Scene:
    """Complete description of one picture; arrays over P people are parallel."""

    size_px: tuple[int, int]
    camera: Camera
    pose_rad: Array  # (P, 24, 3) float32, root first, in the camera frame
    betas: Array  # (P, 10) float32
    translation_m: Array  # (P, 3) float32: skinned vertices + translation are in the camera frame
    motions: Array  # (P, 24, 12) float32, see `skinning.joint_motions`
    coarse_m: Array  # (P, V, 3) float32 camera frame, the vertices of the coarse mesh
    outfits: tuple[Outfit, ...]
    things: tuple[Solid, ...]
    lights: Lights
    backdrop: Backdrop
    lens: Lens

    def __len__(self) -> int:
        return len(self.pose_rad)


def draw_scene(seed: int, index: int, options: SceneOptions = SceneOptions()) -> Scene:
    """Scene of this number; the same arguments always give the same scene."""
    rng = np.random.default_rng([seed, index])
    low, high = options.people
    weights = np.array([0.25, 0.4, 0.22, 0.13, *[0.1] * high])[low - 1 : high]
    wanted = int(rng.choice(np.arange(low, high + 1), p=weights / weights.sum()))
    camera, first = random_camera(rng, options.size_px, options.wide)
    places = place_people(rng, camera, first, wanted, options.size_px)
    count = len(places)
    stances = _stances(seed, index // _BLOCK, high, options.wide)[index % _BLOCK, :count]
    pose = _turned(rng, stances, camera, options.wide)
    betas = np.clip(rng.normal(0, 1, (count, 10)), -2.5, 2.5).astype(np.float32)
    motions = joint_motions(pose, betas)
    coarse = skin(coarse_mesh(), motions, betas)
    translation = _standing(camera, coarse, places)
    coarse += translation[:, None]
    return Scene(
        size_px=options.size_px,
        camera=camera,
        pose_rad=pose,
        betas=betas,
        translation_m=translation,
        motions=motions,
        coarse_m=coarse,
        outfits=tuple(random_outfit(rng, options.wide) for _ in range(count)),
        things=random_things(rng, camera, pose, coarse, options.size_px),
        lights=random_lights(rng, camera, options.wide),
        backdrop=random_backdrop(rng, options.size_px, float(places[:, 1].max())),
        lens=_random_lens(rng, options.wide),
    )


@lru_cache(maxsize=8)
def _stances(seed: int, block: int, people: int, wide: bool) -> Array:
    """(block, people, 24, 3) poses of the scenes of one block."""
    from jotr_deploy.datasets.synthetic.poses import sample_stances

    rng = np.random.default_rng([seed, block, people, 1])
    return sample_stances(rng, _BLOCK * people, wide).reshape(_BLOCK, people, 24, 3)


def _turned(rng: np.random.Generator, stances: Array, camera: Camera, wide: bool) -> Array:
    """Stances turned in any direction, a few of them fallen over, with roots in the camera frame.

    With `wide`, one in seven lies on the back, the front or a side.
    """
    count = len(stances)
    yaw = rng.uniform(-np.pi, np.pi, count)
    fallen = np.where(rng.random((count, 1)) < 0.04, rng.normal(0, 1.2, (count, 3)), 0)
    if wide:
        flat = np.eye(3)[rng.choice([0, 2], count)] * rng.choice([-np.pi / 2, np.pi / 2], (count, 1))
        fallen = np.where(rng.random((count, 1)) < 1 / 7, flat + rng.normal(0, 0.15, (count, 3)), fallen)
    upright = matrix_from_axis_angle(np.stack([0 * yaw, yaw, 0 * yaw], 1)) @ matrix_from_axis_angle(fallen)
    level_from_world = np.diag([1.0, -1.0, -1.0])  # y up to y down; a body that looks along z comes to face the camera
    root = camera.camera_from_level @ level_from_world @ upright @ matrix_from_axis_angle(stances[:, 0])
    pose = stances.astype(np.float32)
    pose[:, 0] = [cv2.Rodrigues(matrix)[0][:, 0] for matrix in root]
    return pose


def _standing(camera: Camera, vertices_m: Array, places_m: Array) -> Array:
    """(P, 3) float32 translations that set the lowest vertex on the ground, the root at (x, z) of the level frame."""
    lowest = (vertices_m @ camera.camera_from_level[:, 1]).max(1)
    y = camera.height_m - lowest
    level = np.stack([places_m[:, 0], y, places_m[:, 1]], 1)
    return (level @ camera.camera_from_level.T).astype(np.float32)


def _random_lens(rng: np.random.Generator, wide: bool) -> Lens:
    blur, noise = rng.random(2) ** 2 * (2 if wide else 1)
    return Lens(
        blur_px=float(1.2 * blur) if rng.random() < 0.7 else 0.0,
        noise=float(0.03 * noise),
        noise_at=(int(rng.integers(512)), int(rng.integers(512))),
        gain=(rng.uniform(0.8, 1.25) * rng.normal(1, 0.15 if wide else 0.05, 3)).astype(np.float32),
        gamma=float(np.exp(rng.normal(0, 0.4 if wide else 0.2))),
    )
