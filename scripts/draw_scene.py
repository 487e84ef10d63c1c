"""Draw the scene of the demo and of `bench`: two stand-in people, one partly behind the other, and their 2-D joints.

    python scripts/draw_scene.py -o DIR     # scene.jpg, scene_keypoints.json (COCO results)

Everything in the picture is made here, so it may be passed on. Needs the `export` extra (PyTorch) for the skinning.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from jotr_deploy.body.lbs import SkinnedBody
from jotr_deploy.body.smpl import BodyModel, stand_in
from jotr_deploy.geometry.raster import barycentric, rasterize, vertex_normals
from jotr_deploy.runtime.images import write_image
from jotr_deploy.skeletons import SKELETONS, SMPL30_INDEX

SIZE_PX = (960, 720)
FOCAL_PX = 1000.0
LIGHT = np.array([-0.45, -0.75, -0.5]) / np.linalg.norm([-0.45, -0.75, -0.5])  # towards the light; y down, z ahead
SHADOW = 0.45
HIDDEN_M = 0.12  # a joint this far behind the visible surface is hidden by somebody

L_SHOULDER, R_SHOULDER, L_ELBOW, R_ELBOW = 16, 17, 18, 19
L_HIP, R_HIP, L_KNEE, R_KNEE, SPINE, HEAD = 1, 2, 4, 5, 3, 15

PEOPLE = (
    {
        "place_m": (-0.20, 3.5),
        "turn_rad": 0.35,
        "colours": {"top": (70, 110, 196), "legs": (72, 66, 60), "shoes": (235, 235, 235), "skin": (126, 158, 205)},
        "pose": {
            L_SHOULDER: (0.25, 0, -1.15), R_SHOULDER: (-0.35, 0, 1.15), L_ELBOW: (0, -0.7, 0), R_ELBOW: (0, 0.5, 0),
            L_HIP: (-0.45, 0, 0.05), L_KNEE: (0.35, 0, 0), R_HIP: (0.30, 0, -0.05), R_KNEE: (0.35, 0, 0),
        },
    },
    {
        "place_m": (0.16, 4.3),
        "turn_rad": -0.45,
        "colours": {"top": (86, 150, 92), "legs": (150, 104, 78), "shoes": (40, 40, 44), "skin": (90, 118, 160)},
        "pose": {
            L_SHOULDER: (0, 0, -1.2), R_SHOULDER: (0, 0.2, -0.75), L_ELBOW: (0, -0.25, 0), R_ELBOW: (0.1, 0.6, -0.9),
            L_HIP: (0.05, 0, 0.1), R_HIP: (-0.05, 0, -0.1), SPINE: (0.05, 0.1, -0.05), HEAD: (0, 0.3, 0.1),
        },
    },
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw two overlapping stand-in people and write their 2-D joints.")
    parser.add_argument("-o", "--output", type=Path, default=Path(), help="directory of scene.jpg and its joints")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    body = stand_in()
    people = [posed(body, person) for person in PEOPLE]
    picture, depth_m = draw(body, [vertices for vertices, _ in people])
    write_image(output / "scene.jpg", picture)
    results = [coco_result(joints, depth_m) for _, joints in people]
    (output / "scene_keypoints.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"{output / 'scene.jpg'}: {len(people)} people; {output / 'scene_keypoints.json'}: their joints")


def posed(body: BodyModel, person: dict) -> tuple[np.ndarray, np.ndarray]:
    """Camera-frame vertices (6890, 3) and 30 joints of one person who stands on the ground, metres."""
    pose = torch.zeros(1, 24, 3)
    for joint, axis_angle in person["pose"].items():
        pose[0, joint] = torch.tensor(axis_angle)
    with torch.inference_mode():
        vertices, joints = SkinnedBody(body)(pose, torch.zeros(1, 10))
    turn = person["turn_rad"]
    upright = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    camera_from_body = np.diag([1.0, -1.0, -1.0]) @ upright
    placed = [x[0].numpy() @ camera_from_body.T for x in (vertices, joints)]
    x, z = person["place_m"]
    shift = np.array([x, GROUND_M - placed[0][:, 1].max(), z])
    return placed[0] + shift, placed[1] + shift


GROUND_M = 1.2  # below the camera
HORIZON_Y = 0.36  # of the picture's height


def project(points_m: np.ndarray) -> np.ndarray:
    """(..., 3) camera frame -> (..., 2) pixels."""
    centre = np.array([SIZE_PX[0] / 2, SIZE_PX[1] * HORIZON_Y])
    return points_m[..., :2] / points_m[..., 2:] * FOCAL_PX + centre


def draw(body: BodyModel, meshes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The picture (H, W, 3) uint8 BGR, and the depth of what is seen."""
    picture = background()
    vertices = np.concatenate(meshes)
    faces = np.concatenate([body.faces + k * len(body.v_template) for k in range(len(meshes))])
    shadow = vertices - LIGHT * ((vertices[:, 1:2] - GROUND_M) / LIGHT[1])
    cast = rasterize(np.column_stack([project(shadow), shadow[:, 2]]), faces, SIZE_PX)
    picture[cast.face >= 0] *= SHADOW
    on_screen = np.column_stack([project(vertices), vertices[:, 2]])
    raster = rasterize(on_screen, faces, SIZE_PX, cull_back=True)
    seen = raster.face >= 0
    light = 0.35 + 0.65 * np.maximum(vertex_normals(vertices, faces) @ LIGHT, 0)
    colours = np.concatenate([clothes(body, person["colours"]) for person in PEOPLE]) * light[:, None]
    corners = faces[raster.face[seen]]
    picture[seen] = np.einsum("pk,pkc->pc", barycentric(raster, on_screen, faces), colours[corners])
    noise = np.random.default_rng(0).normal(0, 1, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8), raster.depth_m


def background() -> np.ndarray:
    """A wall and a tiled floor in perspective, (H, W, 3) float BGR."""
    width, height = SIZE_PX
    y, x = np.mgrid[:height, :width].astype(np.float64)
    wall_z = 8.0
    wall_bottom = GROUND_M / wall_z * FOCAL_PX + height * HORIZON_Y
    wall = np.array([196, 200, 205.0]) * (0.82 + 0.18 * y / height)[..., None]
    floor_z = GROUND_M * FOCAL_PX / np.maximum(y - height * HORIZON_Y, 1)
    floor_x = (x - width / 2) * floor_z / FOCAL_PX
    tile = (np.floor(floor_x / 0.6) + np.floor(floor_z / 0.6)) % 2
    floor = np.array([126, 138, 150.0]) * (0.86 + 0.14 * tile)[..., None]
    return np.where((y > wall_bottom)[..., None], floor, wall)


def clothes(body: BodyModel, colours: dict) -> np.ndarray:
    """(6890, 3) colour of every vertex by the joint that moves it most."""
    part = body.weights.argmax(1)
    names = np.full(24, "skin", object)
    names[[3, 6, 9, 13, 14, 16, 17]] = "top"
    names[[0, 1, 2, 4, 5]] = "legs"
    names[[7, 8, 10, 11]] = "shoes"
    return np.array([colours[names[p]] for p in part], np.float64)


def coco_result(joints_m: np.ndarray, depth_m: np.ndarray) -> dict:
    """COCO-17 joints in pixels; a joint behind somebody else gets a low confidence."""
    keypoints = []
    for name in SKELETONS["coco17"]:
        point = joints_m[SMPL30_INDEX[name]]
        x, y = project(point)
        inside = 0 <= x < SIZE_PX[0] - 1 and 0 <= y < SIZE_PX[1] - 1
        hidden = inside and point[2] - depth_m[round(y), round(x)] > HIDDEN_M
        keypoints += [round(float(x), 1), round(float(y), 1), 0.0 if not inside else 0.2 if hidden else 0.95]
    return {"image_id": "scene.jpg", "category_id": 1, "keypoints": keypoints, "score": 0.95}


if __name__ == "__main__":
    main()
