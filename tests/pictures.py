"""Small pictures, videos and keypoint files to run on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from jotr_deploy.runtime.sources.opening import VideoWriter

WIDTH, HEIGHT = 80, 60


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def picture(path: Path, image: np.ndarray | None = None) -> Path:
    assert cv2.imwrite(str(path), noise() if image is None else image)
    return path


def video(path: Path, frames: int = 4) -> Path:
    with VideoWriter(path, 12) as writer:
        for seed in range(frames):
            writer.write(noise(seed))
    return path


def person(image_id: str | int, seed: int = 0, joints: int = 17) -> dict[str, Any]:
    """A COCO result with random joints inside the picture."""
    points = np.random.default_rng(seed).uniform([8, 8, 0.5], [WIDTH - 8, HEIGHT - 8, 1], (joints, 3))
    return {"image_id": image_id, "category_id": 1, "keypoints": points.ravel().tolist(), "score": 0.75}


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def figure(size_px: tuple[int, int], height_px: int, top_px: tuple[int, int]) -> np.ndarray:
    """Someone dark before a bright wall, upright, the top of the head at `top_px`."""
    image, dark, unit = np.full((size_px[1], size_px[0], 3), 200, np.uint8), (40, 40, 40), height_px / 96

    def at(x: float, y: float) -> tuple[int, int]:
        return round(top_px[0] + x * unit), round(top_px[1] + y * unit)

    cv2.ellipse(image, at(0, 8), (round(6 * unit), round(8 * unit)), 0, 0, 360, dark, -1)
    cv2.fillPoly(image, [np.array([at(-12, 18), at(12, 18), at(10, 52), at(-10, 52)])], dark)
    for side in (-1, 1):
        cv2.line(image, at(side * 12, 20), at(side * 16, 52), dark, round(5 * unit))
        cv2.line(image, at(side * 5, 50), at(side * 8, 96), dark, round(8 * unit))
    return image
