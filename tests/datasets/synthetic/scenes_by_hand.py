"""Scenes of one person in the rest pose, placed exactly, for tests that must know what they will see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jotr_deploy.datasets.synthetic.scene import Lens, Scene, SceneOptions, draw_scene
from jotr_deploy.datasets.synthetic.skinning import coarse_mesh, joint_motions, skin
from jotr_deploy.datasets.synthetic.solids import BOX, Solid
from jotr_deploy.datasets.synthetic.viewpoint import Camera
from jotr_deploy.geometry.rotations import matrix_from_axis_angle

SIZE_PX = (160, 120)
FOCAL_PX = 160.0
CLEAR = Lens(0.0, 0.0, (0, 0), np.ones(3, np.float32), 1.0)
FACING_CAMERA = np.diag([1.0, -1.0, -1.0])


def people_at(places_m: list[tuple[float, float, float]], turns_rad: list[float]) -> Scene:
    """People in the T-pose with the root joint near these places of the camera frame; turn 0 faces the camera."""
    import cv2

    drawn = draw_scene(0, 0, SceneOptions(SIZE_PX, (1, 1)))
    count = len(places_m)
    pose = np.zeros((count, 24, 3), np.float32)
    for row, turn in zip(pose, turns_rad, strict=True):
        row[0] = cv2.Rodrigues(FACING_CAMERA @ matrix_from_axis_angle(np.array([0, turn, 0])))[0][:, 0]
    betas = np.zeros((count, 10), np.float32)
    motions = joint_motions(pose, betas)
    translation = np.array(places_m, np.float32).reshape(count, 3)
    centre = (np.array(SIZE_PX) - 1) / 2
    return replace(
        drawn,
        camera=Camera(FOCAL_PX, centre, np.eye(3), 1.2),
        pose_rad=pose,
        betas=betas,
        translation_m=translation,
        motions=motions,
        coarse_m=skin(coarse_mesh(), motions, betas) + translation[:, None],
        outfits=drawn.outfits * count,
        things=(),
        lens=CLEAR,
    )


def panel(scene: Scene, centre_m: tuple[float, float, float], half_m: tuple[float, float]) -> Scene:
    """The scene with a thin upright panel in it."""
    material = scene.outfits[0].materials[0]
    solid = Solid(BOX, np.array([*half_m, 0.005]), np.eye(3), np.array(centre_m), material)
    return replace(scene, things=(solid,))
