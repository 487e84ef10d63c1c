"""One part of a first contact in a process of its own: python part.py MODULE ROWS SECONDS."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path


def main(module: str, rows: Path, seconds: float) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import checkout  # noqa: F401  puts the package on the path
    from measuring.report import Report

    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX takes most of the GPU's memory otherwise
    report = Report(rows, seconds)
    with report.attempt("the part"):
        importlib.import_module(f"measuring.{module}").measure(report)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
