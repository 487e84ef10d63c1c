"""Colours of people, the same wherever a person is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Neighbours in the list differ clearly in hue; all are light enough for shading to show.
_RGB = np.array(
    [
        (104, 172, 229),
        (242, 153, 96),
        (126, 204, 140),
        (232, 122, 142),
        (176, 148, 232),
        (240, 204, 102),
        (94, 205, 206),
        (226, 142, 210),
        (178, 206, 98),
        (206, 164, 134),
    ],
    np.uint8,
)


def person_colours(track_ids: NDArray[Any]) -> NDArray[np.uint8]:
    """(N, 3) RGB, by track if a person has one (>= 0), otherwise by position in the list of people."""
    track_ids = np.asarray(track_ids, np.int64)
    colours: NDArray[np.uint8] = _RGB[np.where(track_ids >= 0, track_ids, np.arange(len(track_ids))) % len(_RGB)]
    return colours
