"""Draw the scene inside this package, which `bench` times: two stand-in people, one partly behind the other.

    python scripts/draw_scene.py -o jotr_deploy/visual     # scene.jpg, scene_keypoints.json (COCO results)

The joints are the true ones; those that are hidden have a low confidence.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from jotr_deploy.datasets.joint_errors import COCO17_IN_SMPL30
from jotr_deploy.datasets.synthetic.scene import draw_scene
from jotr_deploy.datasets.synthetic.scene_crops import picture
from jotr_deploy.export.plausibility import INDEX, OPTIONS, SEED
from jotr_deploy.runtime.sources.images import write_image

SEEN, HIDDEN, OUTSIDE = 0.95, 0.2, 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw two overlapping stand-in people and write their 2-D joints.")
    parser.add_argument("-o", "--output", type=Path, default=Path(), help="directory of scene.jpg and its joints")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    rendered, known = picture(draw_scene(SEED, INDEX, OPTIONS))
    joints_px, visible = (of[:, COCO17_IN_SMPL30] for of in (known.joints_px, known.joints_visible))
    inside = ((joints_px >= 0) & (joints_px < OPTIONS.size_px)).all(-1)
    confidence = np.where(visible, SEEN, np.where(inside, HIDDEN, OUTSIDE))
    keypoints = np.concatenate([joints_px, confidence[..., None]], -1).astype(np.float64).round(2).reshape(-1, 51)
    results = [
        {"image_id": "scene.jpg", "category_id": 1, "keypoints": row.tolist(), "score": SEEN} for row in keypoints
    ]
    write_image(output / "scene.jpg", rendered.image_bgr)
    (output / "scene_keypoints.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"{output / 'scene.jpg'}: {len(results)} people; {output / 'scene_keypoints.json'}: their joints")


if __name__ == "__main__":
    main()
