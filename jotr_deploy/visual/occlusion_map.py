"""Occlusion map of a fit, drawn over the picture."""

from __future__ import annotations

import numpy as np

from jotr_deploy.geometry.camera import project_px
from jotr_deploy.geometry.crop import PX_PER_CELL, image_from_crop
from jotr_deploy.geometry.raster import rasterize
from jotr_deploy.people import People
from jotr_deploy.support.aliases import Array
from jotr_deploy.visual.caption import draw_caption
from jotr_deploy.visual.overlay import NEAR_M
from jotr_deploy.visual.palette import person_colours

CAPTION = "outlines: fitted bodies; coloured cells: parts of them that the fit takes to be hidden"
OPACITY = 0.6


def draw_occlusion(image_bgr: Array, people: People, faces: Array, caption: str | None = None) -> Array:
    """Draw the outline of every body that was fitted, and the cells in which it is hidden, into a copy of the picture.

    Args:
        image_bgr: (H, W, 3) uint8; not changed.
        people: with their fit; people who could not be fitted are not drawn.
        faces: (F, 3) triangles of the body.
        caption: follows what the colours mean, along the bottom.

    Returns:
        (H, W, 3) uint8.
    """
    import cv2

    picture = image_bgr.copy()
    colours_bgr = person_colours(people.track_ids)[:, ::-1]
    line = max(1, round(max(picture.shape[:2]) / 600))
    for k in range(len(people)) if people.fit is not None else ():
        person, fit = people[k : k + 1], people[k].fit
        if fit is None or not fit.tried:
            continue
        hidden = hidden_px(fit.occlusion, person.boxes_px[0], (picture.shape[1], picture.shape[0]))
        tint = OPACITY * colours_bgr[k].astype(np.float32) + (1 - OPACITY) * picture[hidden]
        picture[hidden] = np.rint(tint).astype(np.uint8)
        outline, _ = cv2.findContours(_silhouette(person, faces, picture.shape), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outline, -1, colours_bgr[k].tolist(), line, cv2.LINE_AA)
    draw_caption(picture, " · ".join(filter(None, (CAPTION, caption))))
    return picture


def hidden_px(occlusion: Array, box_px: Array, image_size_px: tuple[int, int]) -> Array:
    """Pixels of a picture by its nearest cell: (S, S) bool of the crop at (4,) a square box -> (H, W) bool."""
    import cv2

    image_from_cell = image_from_crop(box_px, len(occlusion) * PX_PER_CELL)
    image_from_cell[:, :2] *= PX_PER_CELL
    return cv2.warpAffine(occlusion.astype(np.uint8), image_from_cell, image_size_px, flags=cv2.INTER_NEAREST) > 0


def _silhouette(person: People, faces: Array, shape: tuple[int, ...]) -> Array:
    """(H, W) uint8, 1 where the mesh of one person projects to."""
    vertices_m = person.vertices_camera_m
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        pixels = project_px(vertices_m, person.focal_px, person.principal_px)
    on_screen = np.column_stack([pixels[0], vertices_m[0, :, 2]])
    size = (shape[1], shape[0])
    return (rasterize(on_screen, np.asarray(faces), size, cull_back=True, near_m=NEAR_M).face >= 0).astype(np.uint8)
