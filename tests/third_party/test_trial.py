"""Networks tried on the picture inside this package: what is found, nobody, missed and odd."""

from __future__ import annotations

import numpy as np
import pytest

from jotr_deploy.runtime.finding.detection.implausible import odd_numbers
from jotr_deploy.skeletons import SKELETONS, SMPL30, SMPL30_INDEX, mirrored_order
from jotr_deploy.third_party.trial import Sample, found_joints, found_people, sample

KNOWN = np.array([[100, 100, 200, 300], [300, 100, 400, 300.0]])
WHERE = "the picture inside this package"


@pytest.mark.parametrize(
    ("boxes_px", "odd", "state", "words"),
    [
        (KNOWN, None, "found", f"finds 2 of the 2 people in {WHERE} (IoU 1.00 and 1.00)"),
        (KNOWN[1:] + np.array([0, 0, 25, 0]), None, "found", f"finds 1 of the 2 people in {WHERE} (IoU 0.00 and 0.80)"),
        (KNOWN[:0], None, "nobody", f"finds nobody in {WHERE}, which is a drawing of 2 people"),
        (KNOWN[:1] + np.array([60, 0, 60, 0]), None, "missed",
         f"finds 1 box, but all its boxes miss the people of {WHERE} (IoU 0.25 and 0.00)"),
        (KNOWN + np.array([0, 150, 0, 150]), None, "missed",
         f"finds 2 boxes, but all its boxes miss the people of {WHERE} (IoU 0.14 and 0.14)"),
        (KNOWN, "its scores go from 0 to 7, not from 0 to 1", "odd",
         "gives values that do not fit its format: its scores go from 0 to 7, not from 0 to 1"),
    ],
)  # fmt: skip
def test_boxes_against_those_of_the_known_people(boxes_px, odd, state, words):
    outcome = found_people(boxes_px, KNOWN, odd)
    assert (outcome.state, outcome.words) == (state, words)
    assert (outcome.reason is None) == (state in ("found", "nobody"))


def coco(known: Sample) -> np.ndarray:
    """The known joints in the order of COCO."""
    return known.joints_px[:, [SMPL30_INDEX[name] for name in SKELETONS["coco17"]]].copy()


def test_the_joints_that_are_there_are_found():
    known = sample()
    assert (known.boxes_px.shape, known.joints_px.shape) == ((2, 4), (2, len(SMPL30), 3))
    outcome = found_joints(coco(known), "coco17", known)
    assert outcome.state == "found"
    assert f"joints per person in {WHERE}, off by 0.0% of the box height (median)" in outcome.words


def test_joints_in_another_order_are_too_far():
    known = sample()
    outcome = found_joints(coco(known)[:, ::-1], "coco17", known)
    assert outcome.state == "missed"
    assert outcome.words.endswith("of the box height (median): too far; check the order of the joints and the decoding")


def test_joints_with_left_and_right_exchanged_are_told():
    known = sample()
    order = list(mirrored_order(SKELETONS["coco17"]))
    outcome = found_joints(coco(known)[:, order], "coco17", known)
    assert outcome.state == "missed"
    assert outcome.words.endswith(
        "of the box height (median): left and right appear to be swapped; check the order of the joints"
    )


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([], None),
        ([1, np.nan, 3], None),
        ([np.nan, np.inf, 3], "most values of scores are NaN or infinite"),
        (np.arange(3), None),
    ],
)
def test_answers_that_are_no_numbers(answer, said):
    kept = answer if isinstance(answer, np.ndarray) else np.array(answer, np.float32)
    assert odd_numbers({"scores": kept}) == said


def test_no_joints():
    known = sample()
    outcome = found_joints(np.zeros((2, 17, 3), np.float32), "coco17", known)
    assert (outcome.state, outcome.words) == ("nobody", f"finds no joints of the people in {WHERE}, which is a drawing")
