"""OpenCV's own detector of people, which needs no file: histograms of oriented gradients and a linear classifier.

A fallback for demonstrations: it finds upright, whole people of about 100 px and more who stand free, and in many
ordinary photographs nobody. It sees the picture at no more than 640 px.
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
"""Of a window's width and height: it was trained with room about the person."""


class HogDetector:
    """Called as a `Detector` is.

    A score is the logistic of the classifier's margin, 0.5 on its boundary: it orders people and is no probability.
    """

    def __init__(self, threshold: float = 0.5, iou: float = 0.45) -> None:
        """Make the classifier.

        Args:
            threshold: a person's score is above it; below 0.5 it is as at 0.5, the boundary.
            iou: two people share at most this.

        Raises:
            MissingDependency: this OpenCV is built without it.
        """
        if not hasattr(cv2, "HOGDescriptor"):
            raise MissingDependency(
                f"OpenCV {cv2.__version__} has no HOG detector of people",
                "pip install 'opencv-python-headless>=4.10,<5'",
            )
        self.threshold, self.iou = threshold, iou
        self._hog = cv2.HOGDescriptor()
        self._hog.setSVMDetector(cv2.HOGDescriptor.getDefaultPeopleDetector())

    def __call__(self, image_bgr: Array) -> tuple[Array, Array]:
        """See `Detector`."""
        size_px = (image_bgr.shape[1], image_bgr.shape[0])
        seen, scale = _copy(image_bgr)
        # Of nobody both are empty tuples.
        windows, margins = self._hog.detectMultiScale(seen, winStride=(8, 8), padding=(8, 8), scale=1.05)
        corners, size = np.hsplit(np.asarray(windows, np.float64).reshape(-1, 4), 2)
        room = size * (1 - PERSON_SHARE) / 2
        boxes_px = boxes_in_image(np.hstack([corners + room, corners + size - room]), scale, size_px)
        scores = (1 / (1 + np.exp(-np.asarray(margins, np.float64).reshape(-1)))).astype(np.float32)
        # Threads answer in an order of chance, which would tell whom of equals to keep.
        order = np.lexsort(boxes_px.T)
        boxes_px, scores = boxes_px[order], scores[order]
        kept = select_boxes(boxes_px, scores, self.threshold, self.iou)
        return boxes_px[kept], scores[kept]


def _copy(image_bgr: Array) -> tuple[Array, Array]:
    """The picture at no more than `LONGEST_PX` and no less than a window, and its scale (2,)."""
    size_px = (image_bgr.shape[1], image_bgr.shape[0])
    longest = min(max(size_px), LONGEST_PX)
    width, height = fitted_size_px(size_px, (longest, longest))
    small = cv2.resize(image_bgr, (width, height), interpolation=cv2.INTER_AREA)
    # A picture smaller than the window can crash the process. Repeated edges have no gradient to be taken for someone.
    beyond = (0, max(WINDOW_PX[1] - height, 0), 0, max(WINDOW_PX[0] - width, 0))
    return cv2.copyMakeBorder(small, *beyond, cv2.BORDER_REPLICATE), np.array([width, height]) / size_px
