"""Networks that take pictures of any size, opened for one."""

from __future__ import annotations

from typing import Any

import numpy as np

from jotr_deploy.errors import BundleError, JotrDeployError, SessionError, first_line
from jotr_deploy.runtime.sessions import Session, TensorSpec
from jotr_deploy.support.aliases import Array


class OfOneSize(Session):
    """A session whose file leaves height or width of its pictures open, as one of a file that does not.

    The shapes of the outputs, as far as the file leaves them open, are those of a first call; the batch stays open.
    The session below is closed by who opened it.
    """

    def __init__(self, session: Session, size_px: tuple[int, int]) -> None:
        """Call it once.

        Args:
            session: with one input [B, 3, H, W].
            size_px: width, height, for what is open of them.

        Raises:
            SessionError: the network does not run on pictures of this size.
        """
        self.path, self.metadata, self._session = session.path, session.metadata, session
        ((name, spec),) = session.inputs.items()
        shape = (*spec.shape[:2], *_closed(spec.shape[2:], size_px[::-1]))
        self.inputs = {name: TensorSpec(spec.dtype, shape)}
        first = _first_call(session, {name: np.zeros(_closed(shape, (1, 3, *shape[2:])), spec.dtype)}, size_px)
        self.outputs = {
            out: TensorSpec(spec.dtype, (*spec.shape[:1], *_closed(spec.shape[1:], first[out].shape[1:])))
            for out, spec in session.outputs.items()
        }

    def _run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        return self._session(feeds)


def _closed(shape: tuple[int | str, ...], sizes: tuple[int | str, ...]) -> tuple[Any, ...]:
    return tuple(size if isinstance(own, str) else own for own, size in zip(shape, sizes, strict=True))


def _first_call(session: Session, feeds: dict[str, Array], size_px: tuple[int, int]) -> dict[str, Array]:
    try:
        return session(feeds)
    except JotrDeployError:
        raise
    except Exception as error:  # engines raise classes of their own
        width, height = size_px
        raise SessionError(
            f"{session.path}: does not run on pictures of {width} x {height} px ({first_line(error)})",
            'name a size that it takes in its recipe: "size_px": [WIDTH, HEIGHT]',
        ) from error


def of_one_size(session: Session, wanted_px: tuple[int, int] | None, usual_px: tuple[int, int]) -> Session:
    """The session, with a fixed size of its pictures where there is one input [B, 3, H, W] that leaves it open.

    Args:
        session: any.
        wanted_px: width, height, as the user says.
        usual_px: where the user says nothing.

    Raises:
        BundleError: the file has another size than the user says.
        SessionError: the network does not run on pictures of this size.
    """
    shapes = [spec.shape for spec in session.inputs.values()]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][1] != 3:
        return session
    height, width = shapes[0][2:]
    for own, said in zip((width, height), wanted_px or (width, height), strict=True):
        if isinstance(own, int) and own != said:
            raise BundleError(
                f"{session.path}: recipe: size_px: the file takes {width} x {height} px", "leave size_px out"
            )
    fixed = isinstance(width, int) and isinstance(height, int)
    return session if fixed else OfOneSize(session, wanted_px or usual_px)
