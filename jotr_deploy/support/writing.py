"""Atomic writes: files and folders appear whole or not at all."""

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
    """Convert system errors while `path` is being written (no folder, no permission, disk full) to an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or first_line(error)})",
            "choose a writable folder that exists and has free space",
        ) from error


def aside_of(path: Path) -> Path:
    """The temporary file that becomes `path`. The suffix stays, because writers choose the format by it.

    The name is the same for the whole process, and no other process of any machine has it: in containers that share a
    disk, process numbers are alike.
    """
    return path.with_name(f".{path.stem}.{os.getpid()}-{_OWN}{path.suffix}")


_OWN = os.urandom(4).hex()


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path`; on success it becomes `path`, on any failure it is deleted.

    Raises:
        OutputError: for an OSError in the block.
    """
    aside = aside_of(path)
    try:
        with output_errors(path):
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if aside.is_symlink():  # writing would follow it
                aside.unlink()
            yield aside
            aside.replace(path)
    finally:
        discard(aside)


def discard(aside: Path) -> None:
    """Remove a temporary file or folder, if it exists; its parent may be missing, or not a folder."""
    if aside.is_file() or aside.is_symlink():
        aside.unlink()


@contextmanager
def folder_made(path: Path) -> Iterator[None]:
    """Make the folder `path` for the block; folders it created, parents included, are removed again if left empty.

    Raises:
        OSError: the folder cannot be created.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    nearest = next(folder for folder in (path, *path.parents) if folder.exists())
    try:
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        path.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        with suppress(OSError):  # stops at the first that is not empty
            for folder in missing:
                folder.rmdir()


def folder_beside(path: Path) -> Path:
    """A new hidden folder for the content of `path`, on the same file system; the caller removes it.

    Raises:
        OutputError: the folder of `path` is missing or not writable, or `path` is a folder.
    """
    with output_errors(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Delay Ctrl-C to the end of the block, so that a write is not cut in two. No effect outside the main thread."""
    if threading.current_thread() is not threading.main_thread():  # signals only arrive there
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
