from pathlib import Path

import numpy as np
import pytest

from jotr_deploy.skeletons import (
    H36M14_IN_H36M17,
    H36M17,
    JOTR15,
    JOTR15_FLIP_PAIRS,
    JOTR15_IN_SMPL30,
    SKELETONS,
    SMPL30,
    SMPL30_BONES,
    SMPL30_FLIP_PAIRS,
    SMPL30_INDEX,
    flip_pairs,
    mirrored_order,
    to_smpl30,
)

GOLDEN = np.load(Path(__file__).parent / "golden/preprocess.npz")

# Source joint -> place in the 30-joint set, -1 = unused; and the joints that are added.
TARGETS = {
    "coco17": ([24, 25, 26, 27, 28, 16, 17, 18, 19, 20, 21, 1, 2, 4, 5, 7, 8], [0, 12]),
    "coco18": ([24, 12, 17, 19, 21, 16, 18, 20, 2, 5, 8, 1, 4, 7, 26, 25, 28, 27], [0]),
    "body25": ([24, 12, 17, 19, 21, 16, 18, 20, 0, 2, 5, 8, 1, 4, 7, 26, 25, 28, 27, *[-1] * 6], []),
    "halpe26": ([24, 25, 26, 27, 28, 16, 17, 18, 19, 20, 21, 1, 2, 4, 5, 7, 8, 29, 12, 0, *[-1] * 6], []),
    "crowdpose14": ([16, 17, 18, 19, 20, 21, 1, 2, 4, 5, 7, 8, 29, 12], [0]),
    "blazepose33": (
        [24, -1, 25, -1, -1, 26, -1, 27, 28, -1, -1, *range(16, 22), *[-1] * 6, 1, 2, 4, 5, 7, 8, *[-1] * 4],
        [0, 12],
    ),
    "smpl30": (list(range(30)), []),
}
# Joint -> the one that it is moved towards, and the share of the way; a negative share moves it away.
BLAZEPOSE_MOVES = {
    "L_Ankle": ("L_Heel", 0.4),
    "R_Ankle": ("R_Heel", 0.4),
    "L_Ear": ("Nose", -0.3),
    "R_Ear": ("Nose", -0.3),
}


def test_the_sets_have_their_published_order():
    assert " ".join(SMPL30) == (
        "Pelvis L_Hip R_Hip Torso L_Knee R_Knee Spine L_Ankle R_Ankle Chest L_Toe R_Toe Neck L_Thorax R_Thorax Head "
        "L_Shoulder R_Shoulder L_Elbow R_Elbow L_Wrist R_Wrist L_Hand R_Hand Nose L_Eye R_Eye L_Ear R_Ear Head_top"
    )
    assert JOTR15_IN_SMPL30 == (0, 1, 2, 4, 5, 7, 8, 12, 29, 16, 17, 18, 19, 20, 21)
    assert [SMPL30[index] for index in JOTR15_IN_SMPL30] == list(JOTR15)
    assert " ".join(H36M17) == (
        "Pelvis R_Hip R_Knee R_Ankle L_Hip L_Knee L_Ankle Torso Neck Nose Head_top "
        "L_Shoulder L_Elbow L_Wrist R_Shoulder R_Elbow R_Wrist"
    )
    assert H36M14_IN_H36M17 == (1, 2, 3, 4, 5, 6, 8, 10, 11, 12, 13, 14, 15, 16)


def test_flip_pairs():
    lefts = (1, 4, 7, 10, 13, 16, 18, 20, 22, 25, 27)
    assert list(SMPL30_FLIP_PAIRS) == [(left, left + 1) for left in lefts]
    assert JOTR15_FLIP_PAIRS == ((1, 2), (3, 4), (5, 6), (9, 10), (11, 12), (13, 14))


@pytest.mark.parametrize("skeleton", SKELETONS)
def test_mirroring_twice_is_the_identity(skeleton):
    joints = np.random.default_rng(0).random((2, len(SKELETONS[skeleton]), 3))

    def mirrored(joints, names):
        out = joints * [-1, 1, 1]
        for left, right in flip_pairs(names):
            out[:, [left, right]] = out[:, [right, left]]
        return out

    names = SKELETONS[skeleton]
    np.testing.assert_array_equal(mirrored(mirrored(joints, names), names), joints)
    # Mirroring before and after the map is the same: left goes with left.
    np.testing.assert_allclose(
        to_smpl30(mirrored(joints, names), skeleton), mirrored(to_smpl30(joints, skeleton), SMPL30), atol=1e-7
    )


@pytest.mark.parametrize("skeleton", SKELETONS)
@pytest.mark.parametrize("people", [0, 1, 3])
def test_every_joint_arrives_at_its_place(skeleton, people):
    targets, added = TARGETS[skeleton]
    joints = np.random.default_rng(1).uniform(1, 9, (people, len(targets), 3)).astype(np.float32)
    out = to_smpl30(joints, skeleton)
    assert out.shape == (people, 30, 3)
    assert out.dtype == np.float32
    moved = [SMPL30_INDEX[name] for name in BLAZEPOSE_MOVES] if skeleton == "blazepose33" else []
    for source, target in enumerate(targets):
        if target >= 0:
            np.testing.assert_array_equal(out[:, target, 2], joints[:, source, 2])
        if target >= 0 and target not in moved:
            np.testing.assert_array_equal(out[:, target], joints[:, source])
    absent = sorted(set(range(30)) - set(targets) - set(added))
    np.testing.assert_array_equal(out[:, absent], 0)
    assert (out[:, added] != 0).all()


@pytest.mark.parametrize(("joint", "other", "share"), [(name, *move) for name, move in BLAZEPOSE_MOVES.items()])
@pytest.mark.parametrize("reverse", [False, True])
def test_blazeposes_ankles_and_ears_are_moved(joint, other, share, reverse):
    names = SKELETONS["blazepose33"][:: -1 if reverse else 1]
    joints = np.random.default_rng(2).uniform(1, 9, (2, 33, 3)).astype(np.float32)
    place, to = joints[:, names.index(joint), :2], joints[:, names.index(other), :2]

    def moved():
        return to_smpl30(joints, names)[:, SMPL30_INDEX[joint], :2]

    np.testing.assert_allclose(moved(), place + share * (to - place), rtol=1e-5)
    joints[1, names.index(other), 2] = 0
    np.testing.assert_array_equal(moved()[1], place[1])  # nothing to move it by
    joints[0, names.index(joint)] = 0
    np.testing.assert_array_equal(moved()[0], 0)  # it was not found


def test_midpoints_take_the_product_of_the_confidences():
    joints = np.zeros((1, 17, 3), np.float32)
    names = SKELETONS["coco17"]
    joints[0, names.index("L_Hip")] = 10, 20, 0.5
    joints[0, names.index("R_Hip")] = 30, 40, 0.4
    out = to_smpl30(joints, "coco17")
    np.testing.assert_allclose(out[0, SMPL30_INDEX["Pelvis"]], [20, 30, 0.2], rtol=1e-6)
    assert out[0, SMPL30_INDEX["Neck"], 2] == 0


def test_the_detectors_own_neck_is_kept():
    detections = GOLDEN["openpose/detections"]
    np.testing.assert_array_equal(to_smpl30(detections, "coco18")[:, SMPL30_INDEX["Neck"]], detections[:, 1])


def test_bones_join_different_joints_once_and_reach_every_detected_joint():
    assert len({frozenset(bone) for bone in SMPL30_BONES}) == len(SMPL30_BONES)
    assert all(a != b for a, b in SMPL30_BONES)
    drawn = {joint for bone in SMPL30_BONES for joint in bone}
    for targets, added in (TARGETS[skeleton] for skeleton in SKELETONS if skeleton != "smpl30"):
        assert {*targets, *added} - {-1} <= drawn


@pytest.mark.parametrize(
    ("names", "order"),
    [((), ()), (("Neck",), (0,)), (("L_Hip", "Neck", "R_Hip"), (2, 1, 0)), (("Nose", "L_Eye", "R_Eye"), (0, 2, 1))],
)
def test_what_a_mirror_puts_where(names, order):
    assert mirrored_order(names) == order
