"""The folder for this user's compiled kernels, libraries and timings."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """`jotr-deploy` in `$XDG_CACHE_HOME` or `~/.cache`; the folder need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jotr-deploy"
