"""Caption: a bar with text along the bottom of a picture."""

from __future__ import annotations

import textwrap
import unicodedata
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Height of a capital letter as a share of the picture's mean side; below READABLE_PX a letter is not readable.
LETTER_SHARE = 0.016
READABLE_PX = 6.5
# Largest share of the picture's height for the bar: letters shrink to fit, and if they cannot there is no bar.
BAR_SHARE = 0.5
BAR_OPACITY = 0.72
# Height of a capital letter of OpenCV's plain font at scale 1.
_FONT_HEIGHT_PX = 22
# The bar is drawn this much larger and shrunk, which keeps small letters clear.
_FINER = 4


def draw_caption(picture_bgr: NDArray[Any], text: str) -> None:
    """Draw a caption into the picture, (H, W, 3) uint8, in as many lines as needed."""
    height, width = picture_bgr.shape[:2]
    kept, added = _bar(text, width, height)
    under = picture_bgr[height - len(kept) :]
    under[:] = np.rint(kept * under + added)


@lru_cache(maxsize=4)  # the same for every frame of a film
def _bar(text: str, width: int, height: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Share of the picture that is kept below the bar, and what the bar adds: (rows, width, 1), maybe without a row."""
    import cv2

    lines, letter = _layout(_plain(text), width, height)
    rows = _bar_rows(len(lines), letter) if lines else 0
    if not rows:
        return np.zeros((0, width, 1)), np.zeros((0, width, 1))
    bar = np.zeros((rows * _FINER, width * _FINER), np.uint8)
    for k, line in enumerate(lines):
        at = (round(0.8 * letter * _FINER), round((1.9 * k + 1.7) * letter * _FINER))
        scale, thick = letter * _FINER / _FONT_HEIGHT_PX, max(1, round(letter * _FINER / 8))
        cv2.putText(bar, line, at, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thick, cv2.LINE_AA)
    ink = cv2.resize(bar, (width, rows), interpolation=cv2.INTER_AREA)[..., None] / np.float32(255)
    return (1 - BAR_OPACITY) * (1 - ink), 255 * ink


def _layout(text: str, width: int, height: int) -> tuple[list[str], float]:
    """Lines, and the height of a letter in pixels; no lines where even small letters do not fit."""
    letter = max(READABLE_PX, LETTER_SHARE * (width + height) / 2)
    while text and letter > 1:
        room = width / letter - 1.6
        lines = textwrap.wrap(text, max(1, int(room * len(text) / _width(text))))
        if max(map(_width, lines)) <= room and _bar_rows(len(lines), letter) <= BAR_SHARE * height:
            return lines, letter
        letter *= 0.95
    return [], 0.0


def _width(line: str) -> float:
    """Width of a line, in heights of a letter."""
    import cv2

    return float(cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, 1, 1)[0][0]) / _FONT_HEIGHT_PX


def _bar_rows(lines: int, letter: float) -> int:
    return round((1.9 * lines + 0.7) * letter)


def _plain(text: str) -> str:
    """Text in characters that OpenCV can draw."""
    return unicodedata.normalize("NFKD", text.replace("·", "|")).encode("ascii", "replace").decode().strip()
