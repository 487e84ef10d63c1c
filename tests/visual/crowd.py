"""People for the tests of drawing and files: balls with as many vertices as the body."""

from __future__ import annotations

import numpy as np

from jotr_deploy.geometry.camera import camera_from_box
from jotr_deploy.people import LAYOUT, People

RINGS, SEGMENTS = 84, 82  # 84 * 82 + 2 poles = 6890


def ball():
    """(6890, 3) float32 unit sphere and its (13776, 3) faces, counter-clockwise from outside."""
    polar = np.pi * np.arange(1, RINGS + 1) / (RINGS + 1)
    azimuth = 2 * np.pi * np.arange(SEGMENTS) / SEGMENTS
    polar, azimuth = np.meshgrid(polar, azimuth)
    ring = np.stack([np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)], -1)
    vertices = np.concatenate([ring.reshape(-1, 3), [[0, 0, 1], [0, 0, -1]]])
    a = np.arange(RINGS * SEGMENTS).reshape(SEGMENTS, RINGS)
    b = np.roll(a, -1, axis=0)
    north, south = np.full(SEGMENTS, a.size), np.full(SEGMENTS, a.size + 1)
    sides = [(a[:, :-1], a[:, 1:], b[:, :-1]), (b[:, :-1], a[:, 1:], b[:, 1:])]
    caps = [(north, a[:, 0], b[:, 0]), (south, b[:, -1], a[:, -1])]
    faces = np.concatenate([np.stack(corners, -1).reshape(-1, 3) for corners in (*sides, *caps)])
    return vertices.astype(np.float32), faces


BALL, FACES = ball()


def crowd(boxes_px, z_m=40.0, track_ids=-1, radius_m=0.5):
    """A ball in the middle of each box, seen by the box's own camera."""
    boxes = np.array(boxes_px, np.float32).reshape(-1, 4)
    rng = np.random.default_rng(len(boxes))
    fields = {name: rng.uniform(0, 1, (len(boxes), *shape)).astype(dtype) for name, (shape, dtype) in LAYOUT.items()}
    fields["boxes_px"] = boxes
    fields["track_ids"] = np.broadcast_to(track_ids, len(boxes))
    fields["focal_px"], fields["principal_px"] = camera_from_box(boxes)
    fields["translation_m"] = np.column_stack([np.zeros((len(boxes), 2)), np.broadcast_to(z_m, len(boxes))])
    fields["vertices_m"] = np.tile(BALL * np.float32(radius_m), (len(boxes), 1, 1))
    return People(**fields)
