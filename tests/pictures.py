"""Small pictures, videos and keypoint files to run on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from jotr_deploy.runtime.video import VideoWriter

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
