"""Where this user's compiled kernels, libraries and timings are kept."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """The folder, which need not exist: `$XDG_CACHE_HOME` or `~/.cache`, then `jotr-deploy`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jotr-deploy"
