"""Labels are the geometry, and what is hidden is what something stands in front of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scenes_by_hand import SIZE_PX, panel, people_at

from jotr_deploy.datasets.synthetic.labels import joints_px, labels
from jotr_deploy.datasets.synthetic.render import render
from jotr_deploy.datasets.synthetic.scene import Scene, draw_scene
from jotr_deploy.datasets.synthetic.skinning import regressor_30
from jotr_deploy.skeletons import SMPL30, SMPL30_INDEX

PLACE = (0.0, 0.1, 3.0)
FACE = {"Nose", "L_Eye", "R_Eye"}


def hidden(scene: Scene, person: int = 0) -> set[str]:
    return {name for name, seen in zip(SMPL30, labels(scene).joints_visible[person], strict=True) if not seen}


def test_joints_and_boxes_are_those_of_the_mesh() -> None:
    scene = draw_scene(5, 3)
    known = labels(scene)
    people = len(scene)
    assert known.pose_rad.shape == (people, 24, 3)
    assert known.betas.shape == (people, 10)
    for person in range(people):
        np.testing.assert_allclose(known.joints_m[person], regressor_30() @ known.vertices_m[person], atol=1e-6)
        pixels = known.vertices_m[person, :, :2] / known.vertices_m[person, :, 2:] * known.focal_px + known.principal_px
        np.testing.assert_allclose(known.boxes_px[person], [*pixels.min(0), *pixels.max(0)], atol=1e-3)
        joints = known.joints_m[person]
        expected = joints[:, :2] / joints[:, 2:] * known.focal_px + known.principal_px
        np.testing.assert_allclose(known.joints_px[person], expected, atol=1e-3)
    np.testing.assert_allclose(joints_px(scene), known.joints_px, atol=1e-2)


def test_a_person_alone_is_all_there() -> None:
    scene = people_at([PLACE], [0.0])
    assert labels(scene).visible_fraction == [1.0]
    assert hidden(scene) == set()


def test_the_back_of_the_head_hides_the_face() -> None:
    found = hidden(people_at([PLACE], [np.pi]))
    assert FACE <= found <= FACE | {"L_Toe", "R_Toe"}  # the heels hide the toes


def test_from_the_left_the_right_arm_is_hidden_and_the_left_is_not() -> None:
    found = hidden(people_at([PLACE], [-np.pi / 2]))  # the left hand points at the camera
    assert {"R_Elbow", "R_Wrist", "R_Ear"} <= found
    assert not found & {"L_Wrist", "L_Hand", "L_Ear", "L_Knee", "Nose", "Head_top"}


@pytest.mark.parametrize(
    ("depth_m", "covers"),
    [pytest.param(2.0, True, id="before"), pytest.param(4.0, False, id="behind")],
)
def test_a_panel_hides_what_is_behind_it(depth_m: float, covers: bool) -> None:
    scene = people_at([PLACE], [0.0])
    half = 0.5 * depth_m / 3  # seen at the person's depth: 1 m wide, from the middle of the body to its left
    with_panel = panel(scene, (half, 0.0, depth_m), (half, 2.0))
    known = labels(with_panel)
    if covers:
        assert {name for name in SMPL30 if name.startswith("L_")} - hidden(with_panel) == set()
        assert not any(name.startswith("R_") for name in hidden(with_panel))
        assert known.visible_fraction[0] == pytest.approx(0.5, abs=0.03)
    else:
        assert hidden(with_panel) == set()
        assert known.visible_fraction[0] == 1


def test_a_person_hides_another() -> None:
    scene = people_at([PLACE, (0.0, 0.1, 4.0)], [0.0, 0.0])
    near, far = labels(scene).visible_fraction
    assert near == 1
    assert far < 0.2
    assert hidden(scene, 0) == set()
    assert {"Pelvis", "Torso", "Neck", "R_Knee"} <= hidden(scene, 1)


@pytest.mark.parametrize("shift_px", [0, 60, 78, 100, 160])
def test_what_the_border_cuts_off_is_not_seen(shift_px: int) -> None:
    scene = people_at([PLACE], [0.0])
    alone = render(scene).person == 0
    expected = alone[:, : SIZE_PX[0] - shift_px].sum() / alone.sum()
    centre = scene.camera.principal_px + np.array([shift_px, 0])
    known = labels(replace(scene, camera=replace(scene.camera, principal_px=centre)))
    assert known.visible_fraction[0] == pytest.approx(expected, abs=0.03)
    outside = known.joints_px[0, :, 0] > SIZE_PX[0] - 0.5
    assert not known.joints_visible[0, outside].any()
    assert known.joints_visible[0, ~outside].all()


def test_the_fraction_is_the_share_of_the_silhouette() -> None:
    scene = panel(people_at([PLACE], [0.4]), (0.3, -0.3, 2.5), (0.25, 0.2))
    alone = (render(replace(scene, things=())).person == 0).sum()
    seen = (render(scene).person == 0).sum()
    assert labels(scene).visible_fraction[0] == pytest.approx(seen / alone, abs=0.02)


def test_joints_lie_in_their_own_body() -> None:
    scene = people_at([PLACE], [0.3])
    seen, known = render(scene), labels(scene)
    for name in ("Pelvis", "Spine", "L_Knee", "R_Elbow", "Head"):
        x, y = np.round(known.joints_px[0, SMPL30_INDEX[name]]).astype(int)
        assert seen.person[y, x] == 0
        assert 0 < known.joints_m[0, SMPL30_INDEX[name], 2] - seen.depth_m[y, x] < 0.2
