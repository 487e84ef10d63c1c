"""The scripts of `benchmarks/gpu`, importable as they import each other."""

from __future__ import annotations

import sys
from pathlib import Path

GPU = Path(__file__).parents[2] / "benchmarks" / "gpu"
sys.path.append(str(GPU))
