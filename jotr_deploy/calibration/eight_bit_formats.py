"""Eight-bit codes: integers, or floating-point numbers with three bits of mantissa."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np

from jotr_deploy.support.aliases import Array
from jotr_deploy.support.precisions import Precision


@dataclass(frozen=True)
class Codes:
    """A symmetric type of eight bits."""

    name: str
    dtype: np.dtype[Any]
    largest: float
    whole: bool  # integers
    largest_weight: float  # `largest`, or less

    def nearest(self, values: Array) -> Array:
        """Code of each value, given in units of its scale; larger values are clipped."""
        inside = np.clip(values, -self.largest, self.largest)
        return (np.rint(inside) if self.whole else inside).astype(self.dtype)


INT8 = Codes("int8", np.dtype(np.int8), 127.0, whole=True, largest_weight=127.0)  # symmetric: -128 never occurs
NARROW_INT8 = replace(INT8, largest_weight=63.0)
"""With weights of 7 bits, whose products CPUs without VNNI can add: see `support.processor.clips_sums_of`."""
FP8 = Codes("fp8", np.dtype(ml_dtypes.float8_e4m3fn), 448.0, whole=False, largest_weight=448.0)
CODES: Mapping[Precision, Codes] = {Precision.of(codes.name): codes for codes in (INT8, FP8)}
