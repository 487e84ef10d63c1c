"""Types used by many modules: arrays and progress callbacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

Say = Callable[[str], None]
"""Called with the name of each step as it begins."""

Progress = Callable[[str, int, "int | None"], None]
"""Called with a step, the amount done, and the total; the total is None where it is not known."""

FrameProgress = Callable[[int, "int | None"], None]
"""Called with the number of frames done and the total; the total is None where it is not known."""

PhaseProgress = Callable[[str, "str | None", int, int], None]
"""Called with a phase, its parent phase, the amount done, and the total."""
