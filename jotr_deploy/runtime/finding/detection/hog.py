"""OpenCV's built-in person detector, which needs no file: histograms of oriented gradients and a linear classifier.

A fallback for demonstrations: it finds upright, unoccluded people at least about 100 px tall, and nobody in many
ordinary photographs. It processes images at 640 px or less.
"""

from __future__ import annotations

import cv2
import numpy as np

from jotr_deploy.errors import MissingDependency
from jotr_deploy.runtime.finding.box_selection import select_boxes
from jotr_deploy.runtime.finding.detection.letterbox import boxes_in_image, fitted_size_px
from jotr_deploy.support.aliases import Array

LONGEST_PX = 640
WINDOW_PX = (64, 128)
PERSON_SHARE = 0.8
"""Person's share of a window's width and height: training windows had a margin around the person."""


class HogDetector:
    """OpenCV's HOG detector, with the call signature of a `Detector`.

    A score is the logistic of the classifier's margin, 0.5 on its boundary: it ranks people but is not a probability.
    """

    def __init__(self, threshold: float = 0.5, iou: float = 0.45) -> None:
        """Create the classifier.

        Args:
            threshold: people must exceed this score; values below 0.5 (the boundary) have the effect of 0.5.
            iou: largest IoU of two people.

        Raises:
            MissingDependency: this OpenCV is built without HOG.
        """
        if not hasattr(cv2, "HOGDescriptor"):
            raise MissingDependency(
                f"OpenCV {cv2.__version__} has no HOG person detector",
                "pip install 'opencv-python-headless>=4.10,<5'",
            )
        self.threshold, self.iou = threshold, iou
        self._hog = cv2.HOGDescriptor()
        self._hog.setSVMDetector(cv2.HOGDescriptor.getDefaultPeopleDetector())

    def __call__(self, image_bgr: Array) -> tuple[Array, Array]:
        """People in one image."""
        size_px = (image_bgr.shape[1], image_bgr.shape[0])
        seen, scale = _copy(image_bgr)
        # Both are empty tuples if nobody is found.
        windows, margins = self._hog.detectMultiScale(seen, winStride=(8, 8), padding=(8, 8), scale=1.05)
        corners, size = np.hsplit(np.asarray(windows, np.float64).reshape(-1, 4), 2)
        room = size * (1 - PERSON_SHARE) / 2
        boxes_px = boxes_in_image(np.hstack([corners + room, corners + size - room]), scale, size_px)
        scores = (1 / (1 + np.exp(-np.asarray(margins, np.float64).reshape(-1)))).astype(np.float32)
        # Threads return results in random order, which would decide which of equal scores is kept.
        order = np.lexsort(boxes_px.T)
        boxes_px, scores = boxes_px[order], scores[order]
        kept = select_boxes(boxes_px, scores, self.threshold, self.iou)
        return boxes_px[kept], scores[kept]


def _copy(image_bgr: Array) -> tuple[Array, Array]:
    """Image resized to at most `LONGEST_PX` and padded to at least one window, and its scale (2,)."""
    size_px = (image_bgr.shape[1], image_bgr.shape[0])
    longest = min(max(size_px), LONGEST_PX)
    width, height = fitted_size_px(size_px, (longest, longest))
    small = cv2.resize(image_bgr, (width, height), interpolation=cv2.INTER_AREA)
    # An image smaller than the window can crash the process. Replicated edges have no gradient to mistake for a person.
    beyond = (0, max(WINDOW_PX[1] - height, 0), 0, max(WINDOW_PX[0] - width, 0))
    return cv2.copyMakeBorder(small, *beyond, cv2.BORDER_REPLICATE), np.array([width, height]) / size_px
