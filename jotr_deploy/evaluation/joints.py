"""Which joints are measured."""

from __future__ import annotations

from jotr_deploy.skeletons import H36M14_IN_H36M17, H36M17, SMPL30, SMPL30_INDEX

# The 14 joints of the published evaluation, found by name in the 30-joint set.
EVALUATED: tuple[str, ...] = tuple(H36M17[index] for index in H36M14_IN_H36M17)
EVALUATED_IN_SMPL30: tuple[int, ...] = tuple(SMPL30_INDEX[name] for name in EVALUATED)

_PART_OF = {
    **dict.fromkeys(("Neck", "Head", "Nose", "Eye", "Ear", "Head_top"), "head"),
    **dict.fromkeys(("Pelvis", "Torso", "Spine", "Chest", "Thorax"), "torso"),
    **dict.fromkeys(("Shoulder", "Elbow", "Wrist"), "arms"),
    "Hand": "hands",
    **dict.fromkeys(("Hip", "Knee", "Ankle", "Toe"), "legs"),
}
_PARTS = [_PART_OF[name.removeprefix("L_").removeprefix("R_")] for name in SMPL30]
# Indices into the 30-joint set by body part; every joint is in one.
BODY_PARTS: dict[str, tuple[int, ...]] = {
    part: tuple(index for index, own in enumerate(_PARTS) if own == part) for part in dict.fromkeys(_PART_OF.values())
}
