"""Redirection of lines that libraries print, to keep them off the terminal."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def output_to(file: int) -> Iterator[None]:
    """Redirect the process's standard output and error to a file, by descriptor, within the block."""
    ctypes.CDLL(None).fflush(None)
    kept = {}
    for descriptor in (1, 2):
        with suppress(OSError):  # closed, as in a service
            kept[descriptor] = os.dup(descriptor)
            os.dup2(file, descriptor)
    try:
        yield
    finally:
        for descriptor, copy in kept.items():
            os.dup2(copy, descriptor)
            os.close(copy)
