"""A scene is a function of its numbers, and holds what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest

from jotr_deploy.datasets.synthetic.scene import Scene, SceneOptions, draw_scene
from jotr_deploy.datasets.synthetic.skinning import coarse_mesh, joint_motions, skin

DIGEST = """
import hashlib, sys
import numpy as np
from jotr_deploy.datasets.synthetic.scene_crops import crop, picture
from jotr_deploy.datasets.synthetic.scene import draw_scene
digest = hashlib.sha256()
for index in {order}:
    scene = draw_scene(7, index)
    one = crop(scene, 0, 96)
    seen, known = picture(scene)
    parts = [one.image_bgr, one.box_px, seen.image_bgr, seen.depth_m, seen.person, known.vertices_m, known.joints_px]
    parts += [known.joints_visible, known.visible_fraction, known.boxes_px]
    sums = [hashlib.sha256(np.ascontiguousarray(part).tobytes()).digest() for part in parts]
    digest = hashlib.sha256(bytes(a ^ b for a, b in zip(digest.digest(), hashlib.sha256(b"".join(sums)).digest())))
    print(index, hashlib.sha256(b"".join(sums)).hexdigest())
assert "torch" not in sys.modules
"""


def flat(value: Any) -> list[Any]:
    """Every number of a scene, in order."""
    if is_dataclass(value):
        return [part for field in fields(value) for part in flat(getattr(value, field.name))]
    if isinstance(value, tuple):
        return [part for each in value for part in flat(each)]
    return [] if value is None else [np.asarray(value)]


def same(a: Scene, b: Scene) -> bool:
    left, right = flat(a), flat(b)
    return len(left) == len(right) and all(np.array_equal(x, y) for x, y in zip(left, right, strict=True))


def test_a_scene_is_a_function_of_seed_and_index() -> None:
    scene = draw_scene(3, 20)
    draw_scene(3, 21)
    assert same(scene, draw_scene(3, 20))
    assert not same(scene, draw_scene(3, 21))
    assert not same(scene, draw_scene(4, 20))


def test_wide_scenes_show_more() -> None:
    """More people lie, and cameras look farther down and through more lenses; the usual scene stays what it is."""
    assert same(draw_scene(3, 20), draw_scene(3, 20, SceneOptions(wide=False)))
    assert same(draw_scene(3, 20, SceneOptions(wide=True)), draw_scene(3, 20, SceneOptions(wide=True)))
    scenes = [[draw_scene(3, index, SceneOptions(wide=wide)) for index in range(60)] for wide in (False, True)]
    lying, down, long = [], [], []
    for some in scenes:
        heights = [person @ scene.camera.camera_from_level[:, 1] for scene in some for person in scene.coarse_m]
        lying.append(np.mean([np.ptp(each) < 0.7 for each in heights]))
        down.append(max(np.arcsin(scene.camera.camera_from_level[2, 1]) for scene in some))
        long.append(np.ptp(np.log([scene.camera.focal_px for scene in some])))
        assert all((scene.coarse_m[..., 2] > 0).all() for scene in some)
    assert lying[1] > lying[0] + 0.05
    assert down[1] > down[0] + 0.2
    assert long[1] > long[0] + 0.5


def test_processes_agree_to_the_bit_in_any_order_with_any_number_of_threads() -> None:
    outputs = []
    for threads, order in (("1", (0, 33, 2)), ("2", (2, 0, 33))):
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        command = [sys.executable, "-c", DIGEST.format(order=order)]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        outputs.append(sorted(run.stdout.splitlines()))
    assert len(outputs[0]) == 3
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("people", [(1, 1), (1, 4), (2, 2), (4, 4)])
def test_as_many_people_as_asked_for(people: tuple[int, int]) -> None:
    counts = {len(draw_scene(1, index, SceneOptions(people=people))) for index in range(30)}
    assert max(counts) <= people[1]
    assert people[1] in counts


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(2, index) for index in range(60)]


def test_parallel_arrays_say_the_same(scenes: list[Scene]) -> None:
    for scene in scenes[:10]:
        motions = joint_motions(scene.pose_rad, scene.betas)
        np.testing.assert_array_equal(motions, scene.motions)
        vertices = skin(coarse_mesh(), motions, scene.betas) + scene.translation_m[:, None]
        np.testing.assert_array_equal(vertices, scene.coarse_m)
        assert len(scene) == len(scene.outfits) == len(scene.betas)


def test_everybody_stands_on_the_ground_before_the_camera(scenes: list[Scene]) -> None:
    for scene in scenes:
        down = scene.coarse_m @ scene.camera.camera_from_level[:, 1]
        np.testing.assert_allclose(down.max(1), scene.camera.height_m, atol=1e-4)
        assert (scene.coarse_m[..., 2] > 0.1).all()
        for thing in scene.things:
            assert thing.centre_m[2] - np.linalg.norm(thing.half_m) > 0


def test_sizes_reach_from_small_to_the_height_of_the_picture(scenes: list[Scene]) -> None:
    pixels = [scene.camera.project_px(scene.coarse_m) for scene in scenes]
    heights = np.concatenate([np.ptp(each[..., 1], axis=1) for each in pixels])
    assert np.percentile(heights, 2) > 50
    assert np.percentile(heights, 10) < 110
    assert np.percentile(heights, 90) > 220
    focal = np.array([scene.camera.focal_px for scene in scenes]) / 480
    assert 1 <= focal.min() < 1.2
    assert 2 < focal.max() <= 2.5


def test_most_heads_are_above_the_feet(scenes: list[Scene]) -> None:
    head, foot = (np.flatnonzero(coarse_mesh().weights[joint] > 0.9) for joint in (15, 7))
    up = [
        ((scene.coarse_m[:, foot].mean(1) - scene.coarse_m[:, head].mean(1)) @ scene.camera.camera_from_level[:, 1])
        for scene in scenes
    ]
    assert (np.concatenate(up) > 0.4).mean() > 0.9
