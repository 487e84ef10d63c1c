"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jotr_deploy.errors import OutputError, first_line


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """What the system says while `path` is being written (no folder, no permission, disk full) is an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or first_line(error)})",
            "give a place in a folder that exists, may be written and has room",
        ) from error


def aside_of(path: Path) -> Path:
    """Where a file is written before it becomes `path`. The suffix stays: writers choose the format by it."""
    return path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write to; on success the file there becomes `path`, on any failure it goes away.

    Raises:
        OutputError: for an OSError in the block.
    """
    aside = aside_of(path)
    try:
        with output_errors(path):
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if aside.is_symlink():  # it would be written through
                aside.unlink()
            yield aside
            aside.replace(path)
    finally:
        discard(aside)


def discard(aside: Path) -> None:
    """Remove what was written aside, if anything: the folder itself may be missing, or no folder."""
    if aside.is_file() or aside.is_symlink():
        aside.unlink()


@contextmanager
def folder_made(path: Path) -> Iterator[None]:
    """`path` is a folder inside the block; what was made of it and of its parents goes again where it stays empty.

    Raises:
        OSError: it cannot be made.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    nearest = next(folder for folder in (path, *path.parents) if folder.exists())
    try:
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        path.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        with suppress(OSError):  # the first that holds something ends it
            for folder in missing:
                folder.rmdir()


def folder_beside(path: Path) -> Path:
    """A new hidden folder for what becomes `path`, on the same file system; the caller removes it.

    Raises:
        OutputError: where the folder of `path` is missing or not writable, or `path` is a folder.
    """
    with output_errors(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits for the end of the block: what is being written is not cut in two. Elsewhere it comes at once."""
    if threading.current_thread() is not threading.main_thread():  # only there is it heard
        yield
        return
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        signal.raise_signal(signal.SIGINT)
