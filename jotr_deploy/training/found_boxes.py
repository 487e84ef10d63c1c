"""Figures of a detector on pictures with known people: average precision, recall, false people."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jotr_deploy.evaluation.matching import match
from jotr_deploy.geometry.boxes import iou
from jotr_deploy.runtime.finding.box_selection import select_boxes
from jotr_deploy.runtime.finding.detection.yolox import Recipe
from jotr_deploy.support.aliases import Array
from jotr_deploy.training.detector_samples import IGNORED, PERSON
from jotr_deploy.training.held_out import Figure

FIGURES: Mapping[str, Figure] = {
    "average_precision": Figure("AP at IoU 0.5", "%", higher=True),
    "recall": Figure(f"recall at score {Recipe().threshold:g}", "%", higher=True),
    "false_people": Figure(f"false people at score {Recipe().threshold:g}", "a picture"),
}
"""Figures of `detection_figures`."""
LOWEST_SCORE = 0.01
MOST_BOXES = 64
"""Boxes of a picture that count, those with the highest scores."""
TRUE, FALSE, NOT_COUNTED = 1.0, 0.0, -1.0
_LEAST_IOU = 0.5


def judged(boxes: Array, scores: Array, true: Array, kind: Array) -> dict[str, Array]:
    """Boxes of one picture after the runtime's selection, and what each is.

    A box that matches nobody, but lies on someone too hidden to be looked for, is not counted.

    Args:
        boxes: (A, 4) of all cells.
        scores: (A,) of them.
        true: (G, 4) people.
        kind: (G,) as in `detector_samples`.

    Returns:
        score (MOST_BOXES,), 0 for no box; verdict (MOST_BOXES,) `TRUE`, `FALSE` or `NOT_COUNTED`; people (), those to
        be found. float32.
    """
    recipe = Recipe()
    kept = select_boxes(boxes, scores, LOWEST_SCORE, recipe.iou)
    kept = kept[np.argsort(-scores[kept], kind="stable")][:MOST_BOXES]
    wanted, ignored = true[kind == PERSON], true[kind == IGNORED]
    verdict = np.full(len(kept), FALSE, np.float32)
    if len(ignored):
        verdict[iou(boxes[kept], ignored).max(1, initial=0) >= _LEAST_IOU] = NOT_COUNTED
    verdict[match(boxes[kept], scores[kept], wanted)[:, 0]] = TRUE
    empty = MOST_BOXES - len(kept)
    return {
        "score": np.pad(scores[kept].astype(np.float32), (0, empty)),
        "verdict": np.pad(verdict, (0, empty), constant_values=NOT_COUNTED),
        "people": np.float32(len(wanted)),
    }


def detection_figures(rows: Mapping[str, Array]) -> dict[str, float]:
    """Figures over all pictures from their `judged` boxes; NaN where there is nobody to find."""
    counted = rows["verdict"] != NOT_COUNTED
    scores, right = rows["score"][counted], rows["verdict"][counted] == TRUE
    order = np.argsort(-scores, kind="stable")
    scores, right, people = scores[order], right[order], float(rows["people"].sum())
    sure = scores > Recipe().threshold
    figures = {
        "average_precision": 100 * average_precision(right, people) if people else float("nan"),
        "recall": 100 * float((right & sure).sum()) / people if people else float("nan"),
    }
    return {**figures, "false_people": float((~right & sure).sum()) / len(rows["people"])}


def average_precision(right: Array, people: float) -> float:
    """Area below precision over recall, where precision is the best at this recall or a higher one.

    Args:
        right: (N,) bool, by falling score: the box is a person's.
        people: to be found.
    """
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best_from_here[right].sum() / people)
