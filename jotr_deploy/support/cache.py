"""The folder for this user's compiled kernels, libraries, timings and parts of networks."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from jotr_deploy.errors import OutputError
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.writing import folder_made, output_errors, written_aside

MOST_KEPT = 8
"""Files of one kind that `kept_arrays` leaves in the cache, the newest."""
_DIGEST = hashlib.sha256().digest_size


def user_cache() -> Path:
    """`jotr-deploy` in `$XDG_CACHE_HOME` or `~/.cache`; the folder need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jotr-deploy"


def kept_arrays(kind: str, source: str, make: Callable[[], Mapping[str, Array]]) -> dict[str, Array]:
    """The arrays that `make` returns, read from the cache where an earlier call has left them.

    A damaged file is made anew. Without a readable and writable cache the arrays are made every time.

    Args:
        kind: folder inside the cache.
        source: everything that the arrays depend on, the code that makes them included; its hash names the file.
        make: errors of this function are raised, and nothing is kept.
    """
    import numpy as np

    try:
        path = user_cache() / kind / f"{hashlib.sha256(source.encode()).hexdigest()}.arrays"
    except RuntimeError:  # a user without a home
        return dict(make())
    with suppress(OSError):
        digest, archive = (content := path.read_bytes())[:_DIGEST], content[_DIGEST:]
        if hashlib.sha256(archive).digest() == digest:  # a damaged archive can raise anything, or lack an array
            with np.load(io.BytesIO(archive), allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
    made: dict[str, Any] = dict(make())
    with suppress(OutputError), output_errors(path), folder_made(path.parent):
        np.savez(packed := io.BytesIO(), allow_pickle=False, **made)
        with written_aside(path) as aside:
            aside.write_bytes(hashlib.sha256(packed.getvalue()).digest() + packed.getvalue())
        newest = sorted(path.parent.glob("*.arrays"), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in newest[MOST_KEPT:]:
            file.unlink(missing_ok=True)
    return made
