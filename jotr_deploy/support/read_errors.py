"""Third-party files, read by libraries that raise anything on bad bytes: their exceptions become our errors."""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jotr_deploy.errors import JotrDeployError, SessionError, first_line
from jotr_deploy.support.file_kinds import AGAIN, UNKNOWN, advice, describe_file

if TYPE_CHECKING:
    import onnx


@contextmanager
def read_errors(
    path: Path, error: type[JotrDeployError], what: str, remedy: str, kinds: Collection[str] = ()
) -> Iterator[None]:
    """Convert any exception of a library in the block, due to the bytes of `path`, to `error`; it names what `path` is.

    Args:
        path: the file that the block reads.
        error: class to raise; errors of this package pass unchanged.
        what: what the file should be, with its article: "a checkpoint".
        remedy: what to do if the bytes suggest nothing better.
        kinds: descriptions by `describe_file` of valid files; one of these that cannot be read is called damaged.

    Raises:
        JotrDeployError: `error`, for any exception except those that end the program.
    """
    try:
        yield
    except JotrDeployError:
        raise
    except FileNotFoundError as fault:
        if fault.filename is not None and Path(str(fault.filename)) != path:
            raise  # another file
        raise error(f"{path}: no such file", remedy) from None
    except Exception as fault:
        if isinstance(fault, OSError) and fault.errno not in (
            None,
            errno.EINVAL,
        ):  # a cut file shows up as an invalid seek
            raise error(f"{path}: cannot be read ({fault.strerror})", "check the path and its permissions") from fault
        kind = describe_file(path)
        if kind in kinds:
            other = "" if kind == what else f" or not {what}"
            cause = f"{path}: {kind}, but damaged{other} ({shortened(first_line(fault))})"
        else:
            cause = f"{path}: not {what}: it is {kind}"
        cut = kind in kinds and "EOF" in f"{type(fault).__name__} {fault}"  # the wording of PyTorch and pickle
        raise error(cause, advice(path) or (AGAIN if cut else remedy)) from fault


def read_onnx(path: Path, external: bool = True) -> onnx.ModelProto:
    """An ONNX model, not checked further.

    Args:
        path: of the file.
        external: also load weights from files beside it, if there are any.

    Raises:
        SessionError: no such file, its bytes are not an ONNX model, or weights are outside its folder.
    """
    import onnx

    with read_errors(path, SessionError, "an ONNX model", "check the file; export it again", ("an ONNX model",)):
        model = onnx.load(path, load_external_data=external)
        graph = model.graph
        if not graph.node:
            raise ValueError("it has no graph")
        for holder in (*graph.input, *graph.output, *graph.initializer, *graph.node):
            names = (holder.name, *getattr(holder, "input", ()), *getattr(holder, "output", ()))
            if not all(isinstance(name, str) for name in names):  # bytes if they are not UTF-8
                raise ValueError("a name in it is not text")
    return model


def something_else(path: Path, what: str, kinds: Collection[str]) -> str | None:
    """`not an ONNX model: it is an HTML page`, where the bytes tell; None for the kinds allowed, and unknown ones."""
    kind = describe_file(path)
    return None if kind in (*kinds, UNKNOWN) else f"not {what}: it is {kind}"


def shortened(text: str, most: int = 160) -> str:
    """One line of a library's message, with unprintable characters escaped."""
    text = text if text.isprintable() else text.encode("unicode_escape", errors="replace").decode()
    return text if len(text) <= most else f"{text[: most - 3]}..."
