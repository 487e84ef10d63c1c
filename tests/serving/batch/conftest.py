from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def squares(once: Callable, tiny_bundle: Path) -> Path:
    """A bundle that finds white squares; see `batch_world`."""
    from batch_world import make_bundle

    return once("squares", lambda path: make_bundle(tiny_bundle, path))
