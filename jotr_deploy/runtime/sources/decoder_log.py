"""FFmpeg's error log during a call, which OpenCV does not pass on."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import Lock

from jotr_deploy.runtime.sessions.library_output import output_to

_ERRORS = 16  # FFmpeg's AV_LOG_ERROR
_lock = Lock()


@contextmanager
def decoder_log() -> Iterator[list[str]]:
    """Collect the errors that FFmpeg logs within the block: after it the list contains them, as one text.

    FFmpeg logs to the process's standard output and error, which are redirected to a file meanwhile: keep the block
    short. The list is empty if OpenCV was built without FFmpeg, or with one that cannot be accessed.
    """
    said: list[str] = []
    library = _libavutil()
    if library is None:
        yield said
        return
    with _lock, tempfile.TemporaryFile() as file, output_to(file.fileno()):
        level = library.av_log_get_level()
        library.av_log_set_level(max(level, _ERRORS))
        try:
            yield said
        finally:
            library.av_log_set_level(level)
            ctypes.CDLL(None).fflush(None)
            file.seek(0)
            if text := file.read().decode(errors="replace").strip():
                said.append(text)


@cache
def _libavutil() -> ctypes.CDLL | None:
    """FFmpeg's library as loaded by OpenCV; call this after a video was opened."""
    with suppress(OSError, AttributeError):
        for line in Path("/proc/self/maps").read_text().splitlines():
            path = line.partition("/")[2]
            if "libavutil" in path:
                library = ctypes.CDLL(f"/{path}")
                library.av_log_get_level.restype = ctypes.c_int
                return library
    return None
