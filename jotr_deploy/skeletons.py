"""Joint sets and the maps between them, all by name. "L" is always the person's own left."""

from __future__ import annotations

import numpy as np

from jotr_deploy.support.aliases import Array


def _mirrored(*names: str) -> tuple[str, ...]:
    """Each name first for the left, then for the right side of the body."""
    return tuple(f"{side}_{name}" for name in names for side in "LR")


def _side(side: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{side}_{name}" for name in names)


_ARM = ("Shoulder", "Elbow", "Wrist")
_LEG = ("Hip", "Knee", "Ankle")

# The 24 joints of SMPL, five face points and the head top: input and output of the mesh network.
SMPL30: tuple[str, ...] = (
    *("Pelvis", *_mirrored("Hip"), "Torso", *_mirrored("Knee"), "Spine", *_mirrored("Ankle"), "Chest"),
    *(*_mirrored("Toe"), "Neck", *_mirrored("Thorax"), "Head", *_mirrored(*_ARM, "Hand")),
    *("Nose", *_mirrored("Eye", "Ear"), "Head_top"),
)
SMPL30_INDEX: dict[str, int] = {name: index for index, name in enumerate(SMPL30)}
# Parents of the 24 SMPL joints, which are numbered by depth in the tree; the root has none.
SMPL_PARENTS: tuple[int, ...] = (
    -1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21,
)  # fmt: skip

# The joints that the network refines in the crop volume.
JOTR15: tuple[str, ...] = ("Pelvis", *_mirrored(*_LEG), "Neck", "Head_top", *_mirrored(*_ARM))
JOTR15_IN_SMPL30: tuple[int, ...] = tuple(SMPL30_INDEX[name] for name in JOTR15)

# The joints of the Human3.6M regressor, and the 14 of them that the metrics use.
H36M17: tuple[str, ...] = (
    *("Pelvis", *_side("R", *_LEG), *_side("L", *_LEG), "Torso", "Neck", "Nose", "Head_top"),
    *(*_side("L", *_ARM), *_side("R", *_ARM)),
)
H36M14_IN_H36M17: tuple[int, ...] = tuple(
    index for index, name in enumerate(H36M17) if name not in ("Pelvis", "Torso", "Nose")
)

_COCO17 = ("Nose", *_mirrored("Eye", "Ear", *_ARM, *_LEG))
# Joints that detectors measure, whatever their skeleton: pelvis and neck are midpoints of hips and shoulders, not body
# joints, and the definitions of head top, toes and spine vary between sources.
MEASURED_IN_SMPL30: tuple[int, ...] = tuple(SMPL30_INDEX[name] for name in _COCO17)
_OPENPOSE_TOP = ("Nose", "Neck", *_side("R", *_ARM), *_side("L", *_ARM))
_OPENPOSE_LEGS = (*_side("R", *_LEG), *_side("L", *_LEG))
_OPENPOSE_FACE = ("R_Eye", "L_Eye", "R_Ear", "L_Ear")
_FOOT = ("Big_toe", "Small_toe", "Heel")

# A detector's toes are the tips, SMPL's toe is the ball of the foot: the names differ so that they never match.
SKELETONS: dict[str, tuple[str, ...]] = {
    "coco17": _COCO17,
    "coco18": (*_OPENPOSE_TOP, *_OPENPOSE_LEGS, *_OPENPOSE_FACE),
    "body25": (*_OPENPOSE_TOP, "Pelvis", *_OPENPOSE_LEGS, *_OPENPOSE_FACE, *_side("L", *_FOOT), *_side("R", *_FOOT)),
    "halpe26": (*_COCO17, "Head_top", "Neck", "Pelvis", *_mirrored(*_FOOT)),
    "blazepose33": (
        *("Nose", "L_Eye_inner", "L_Eye", "L_Eye_outer", "R_Eye_inner", "R_Eye", "R_Eye_outer"),
        *_mirrored("Ear", "Mouth", *_ARM, "Pinky", "Index", "Thumb", *_LEG, "Heel", "Big_toe"),
    ),
    "crowdpose14": (*_mirrored(*_ARM, *_LEG), "Head_top", "Neck"),
    "smpl30": SMPL30,
}

_MIDPOINTS = (("Pelvis", "L_Hip", "R_Hip"), ("Neck", "L_Shoulder", "R_Shoulder"))
# In photographs too, BlazePose marks ankles too high and ears too far forward (docs/joints.md): each is moved by this
# share of the way to another of its joints.
_BLAZEPOSE_MOVES = (
    *(("L_Ankle", "L_Heel", 0.4), ("R_Ankle", "R_Heel", 0.4)),
    *(("L_Ear", "Nose", -0.3), ("R_Ear", "Nose", -0.3)),
)


def flip_pairs(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """(left, right) index pairs of a joint set, to swap when a picture is mirrored."""
    return tuple((left, names.index(f"R{name[1:]}")) for left, name in enumerate(names) if name.startswith("L_"))


def mirrored_order(names: tuple[str, ...]) -> tuple[int, ...]:
    """Index of each joint's partner under a mirror: the same joint on the other side, or itself if it has none."""
    order = list(range(len(names)))
    for left, right in flip_pairs(names):
        order[left], order[right] = right, left
    return tuple(order)


SMPL30_FLIP_PAIRS = flip_pairs(SMPL30)
JOTR15_FLIP_PAIRS = flip_pairs(JOTR15)

_BONE_NAMES = (
    *(("Pelvis", "Neck"), ("Neck", "Head_top"), ("Neck", "Nose")),
    *(("Pelvis", "L_Hip"), ("L_Hip", "L_Knee"), ("L_Knee", "L_Ankle"), ("L_Ankle", "L_Toe")),
    *(("Pelvis", "R_Hip"), ("R_Hip", "R_Knee"), ("R_Knee", "R_Ankle"), ("R_Ankle", "R_Toe")),
    *(("Neck", "L_Shoulder"), ("L_Shoulder", "L_Elbow"), ("L_Elbow", "L_Wrist"), ("L_Wrist", "L_Hand")),
    *(("Neck", "R_Shoulder"), ("R_Shoulder", "R_Elbow"), ("R_Elbow", "R_Wrist"), ("R_Wrist", "R_Hand")),
    *(("Nose", "L_Eye"), ("L_Eye", "L_Ear"), ("Nose", "R_Eye"), ("R_Eye", "R_Ear")),
)
# Index pairs for drawing. The trunk is one straight bone: 2-D detectors have no joint between pelvis and neck.
SMPL30_BONES: tuple[tuple[int, int], ...] = tuple((SMPL30_INDEX[a], SMPL30_INDEX[b]) for a, b in _BONE_NAMES)


def to_smpl30(joints: Array, skeleton: str | tuple[str, ...]) -> Array:
    """Convert a detector's joints to the 30-joint set.

    Args:
        joints: (P, J, 3) x, y, confidence in the order of the skeleton; P may be 0.
        skeleton: a key of `SKELETONS`, or the names of the J joints.

    Returns:
        (P, 30, 3) float32. Joints missing from the skeleton are zero, except pelvis and neck, which are the midpoints
        of hips and shoulders, with the product of both confidences. Toes and inner spine are never filled. BlazePose's
        ankles and ears are moved to where they are on the body.
    """
    names = SKELETONS[skeleton] if isinstance(skeleton, str) else skeleton
    out = np.zeros((len(joints), len(SMPL30), 3), np.float32)
    for source, name in enumerate(names):
        if name in SMPL30_INDEX:
            out[:, SMPL30_INDEX[name]] = joints[:, source]
    if set(names) == set(SKELETONS["blazepose33"]):
        for moved, to, share in _BLAZEPOSE_MOVES:
            joint, other = out[:, SMPL30_INDEX[moved]], joints[:, names.index(to)]
            both = (joint[:, 2:] > 0) & (other[:, 2:] > 0)
            joint[:, :2] += np.where(both, share * (other[:, :2] - joint[:, :2]), 0)
    for middle, left_name, right_name in _MIDPOINTS:
        if middle not in names:
            left, right = out[:, SMPL30_INDEX[left_name]], out[:, SMPL30_INDEX[right_name]]
            out[:, SMPL30_INDEX[middle], :2] = (left[:, :2] + right[:, :2]) / 2
            out[:, SMPL30_INDEX[middle], 2] = left[:, 2] * right[:, 2]
    return out
