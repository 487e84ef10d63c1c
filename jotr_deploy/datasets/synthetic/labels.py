"""Ground truth of a scene: bodies, joints, boxes, and their visible parts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from jotr_deploy.datasets.synthetic.scene import Scene
from jotr_deploy.datasets.synthetic.skinning import Mesh, body, coarse_mesh, full_mesh, joint_mesh, regressor_30, skin
from jotr_deploy.datasets.synthetic.viewpoint import View, whole_picture
from jotr_deploy.datasets.synthetic.visibility import Traced, trace
from jotr_deploy.geometry.raster import rasterize
from jotr_deploy.skeletons import SMPL30, SMPL30_INDEX
from jotr_deploy.support.aliases import Array

_NEAR_SURFACE_M, _CROWN_M = 0.06, 0.12  # the curve of the skull lies between the crown and most cameras
_COUNTED_PX = 200.0  # the longer side of the silhouette of somebody whom the picture cuts, when its parts are counted


@dataclass(frozen=True)
class Labels:
    """Parallel arrays over P people. Camera frame: x right, y down, z ahead; pixels are those of the picture."""

    pose_rad: Array  # (P, 24, 3) float32 axis-angle, root first, root in the camera frame
    betas: Array  # (P, 10) float32
    vertices_m: Array  # (P, 6890, 3) float32 camera frame
    joints_m: Array  # (P, 30, 3) float32 camera frame
    joints_px: Array  # (P, 30, 2) float32
    joints_visible: Array  # (P, 30) bool
    visible_fraction: Array  # (P,) float32 seen part of the person's own silhouette
    boxes_px: Array  # (P, 4) float32 x0 y0 x1 y1 tight about the whole mesh, also beyond the picture
    focal_px: float
    principal_px: Array  # (2,) float64


@dataclass(frozen=True)
class Bodies:
    """Exact geometry of P people."""

    vertices_m: Array  # (P, 6890, 3) float32 camera frame
    joints_m: Array  # (P, 30, 3) float32 camera frame
    joints_px: Array  # (P, 30, 2) float32 in the picture
    boxes_px: Array  # (P, 4) float32 x0 y0 x1 y1 tight about the whole mesh, also beyond the picture


def bodies(scene: Scene, people: Array) -> Bodies:
    """Bodies of some people, by number."""
    vertices = skin(full_mesh(), scene.motions[people], scene.betas[people])
    vertices += scene.translation_m[people, None]
    joints = np.matmul(regressor_30(), vertices)
    vertices_px, joints_px = scene.camera.project_px(vertices), scene.camera.project_px(joints)
    boxes = np.concatenate([vertices_px.min(1), vertices_px.max(1)], 1)
    return Bodies(vertices, joints, joints_px.astype(np.float32), boxes.astype(np.float32))


def labels(scene: Scene, traced: Traced | None = None) -> Labels:
    """Labels of all people.

    A joint is visible if it lies in the picture and at its pixel nothing is in front of it except the nearby surface of
    its own body: surface that at rest is no farther from the joint than the ring of skin whose mean the joint is, plus
    6 cm (the crown: 12). So an arm in front of the belly hides the spine, and the back of the head hides the nose, but
    no joint is hidden by the flesh around it. Another person or an object hides a joint whenever it is nearer to the
    camera.

    `visible_fraction` counts parts outside the picture as not visible.

    Args:
        scene: the scene.
        traced: trace of its whole picture, if already available.
    """
    view = whole_picture(scene.size_px)
    people = np.arange(len(scene))
    return labels_in(scene, people, bodies(scene, people), view, trace(scene, view) if traced is None else traced)


def labels_in(scene: Scene, people: Array, known: Bodies, view: View, traced: Traced) -> Labels:
    """Labels of some people (their numbers and bodies) in a part of the picture; nothing beyond it is visible."""
    in_view = view.from_picture(known.joints_px)
    joints_z = known.joints_m[..., 2]
    visible = [_visible(traced, each, px, z) for each, px, z in zip(people, in_view, joints_z, strict=True)]
    inside = np.array([_share_in_view(scene, view, *each) for each in zip(people, known.boxes_px, strict=True)])
    return Labels(
        pose_rad=scene.pose_rad[people],
        betas=scene.betas[people],
        vertices_m=known.vertices_m,
        joints_m=known.joints_m,
        joints_px=known.joints_px,
        joints_visible=np.stack(visible),
        visible_fraction=(inside * traced.seen[people] / np.maximum(traced.alone[people], 1)).astype(np.float32),
        boxes_px=known.boxes_px,
        focal_px=scene.camera.focal_px,
        principal_px=scene.camera.principal_px,
    )


def joints_px(scene: Scene) -> Array:
    """(P, 30, 2) float32 joints of everybody in the picture, without computing the whole mesh."""
    mesh, regressor = joint_mesh()
    vertices = skin(mesh, scene.motions, scene.betas) + scene.translation_m[:, None]
    return scene.camera.project_px(np.matmul(regressor, vertices)).astype(np.float32)


@cache
def _joints_at_rest() -> tuple[Array, Array]:
    """(30, 3) joints of the body at rest, and the distance (30,) to which each one's own surface reaches, metres."""
    template, regressor = body().v_template, regressor_30()
    joints = regressor @ template
    reach = [
        np.linalg.norm(template[row > 0] - joint, axis=1).max() for row, joint in zip(regressor, joints, strict=True)
    ]
    near = np.full(len(SMPL30), _NEAR_SURFACE_M)
    near[SMPL30_INDEX["Head_top"]] = _CROWN_M
    return joints, np.array(reach) + near


def _visible(traced: Traced, person: int, joints_px: Array, joints_z_m: Array) -> Array:
    """(30,) bool for joints at pixels (30, 2) of the traced view."""
    height, width = traced.face.shape
    at = np.round(2 * joints_px + 0.5)
    inside = ((at >= 0) & (at < (width, height))).all(1)
    x, y = np.clip(at, 0, (width - 1, height - 1)).astype(np.int64).T
    owner, face = traced.owner(traced.layer[y, x]), traced.face[y, x]
    covered = traced.depth_m[y, x] < joints_z_m
    own = next((layer for layer in traced.layers if layer.owner == person), None)
    if own is not None and isinstance(own.source, Mesh):
        mine = owner == person
        corners = own.faces[np.where(mine, face - own.first_face, 0)]
        rest, reach = _joints_at_rest()
        covered &= ~mine | (np.linalg.norm(own.source.template_m[corners].mean(1) - rest, axis=1) > reach)
    return inside & ~covered


def _share_in_view(scene: Scene, view: View, person: int, box_px: Array) -> float:
    """Share of a person's silhouette inside the view, ignoring other people."""
    low = np.array([view.x_px, view.y_px]) - view.step / 2
    high = low + np.array(view.size_px) * view.step
    if (box_px[:2] >= low).all() and (box_px[2:] <= high).all():
        return 1.0
    scale = _COUNTED_PX / (box_px[2:] - box_px[:2]).max()
    points = scene.coarse_m[person]
    flat = np.column_stack([(scene.camera.project_px(points) - box_px[:2]) * scale, points[:, 2]])
    width, height = (np.ceil((box_px[2:] - box_px[:2]) * scale) + 1).astype(int)
    y, x = np.nonzero(rasterize(flat, coarse_mesh().faces, (width, height), cull_back=True).face >= 0)
    at = np.stack([x, y], 1) / scale + box_px[:2]
    return float(((at >= low) & (at < high)).all(1).mean()) if len(at) else 0.0
