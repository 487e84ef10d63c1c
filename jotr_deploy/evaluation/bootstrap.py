"""How sure the mean of paired differences is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

RESAMPLES = 2000
_CHUNK = 100  # resamples at a time, so that thousands of people fit into memory


def bootstrap_interval(differences: Array, seed: int) -> tuple[float, float] | None:
    """Where the mean of paired differences lies with 95 %: people drawn again with replacement, percentiles.

    Args:
        differences: (N,) one a person; None is returned for nobody.
        seed: of the draws.
    """
    if not len(differences):
        return None
    means = np.concatenate(list(_resampled_means(np.asarray(differences, np.float64), seed)))
    low, high = np.percentile(means, (2.5, 97.5))
    return round(float(low), 3), round(float(high), 3)


def _resampled_means(values: Array, seed: int) -> Iterator[Array]:
    rng = np.random.default_rng(seed)
    for _ in range(RESAMPLES // _CHUNK):
        yield values[rng.integers(0, len(values), (_CHUNK, len(values)))].mean(1)
