"""Types that many modules name: arrays, and the callbacks that work reports its progress to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

Say = Callable[[str], None]
"""Called with the name of the step that begins."""

Progress = Callable[[str, int, "int | None"], None]
"""Called with a step, how much of it is done, and of how much; None where that is not known."""

FrameProgress = Callable[[int, "int | None"], None]
"""Called with the frames that are done, and with how many there are; None where that is not known."""

PhaseProgress = Callable[[str, "str | None", int, int], None]
"""Called with a phase, the phase that it is part of, how much of it is done, and of how much."""
