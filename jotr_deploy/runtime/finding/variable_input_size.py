"""Networks with a variable input size, opened for one size."""

from __future__ import annotations

from typing import Any

import numpy as np

from jotr_deploy.errors import BundleError, JotrDeployError, SessionError, first_line
from jotr_deploy.runtime.sessions import Session, TensorSpec
from jotr_deploy.support.aliases import Array


class OfOneSize(Session):
    """A session with a variable height or width, seen as a session of fixed size.

    Output shapes that the file leaves open are taken from a first call; the batch stays dynamic. The wrapped session is
    closed by its opener.
    """

    def __init__(self, session: Session, size_px: tuple[int, int]) -> None:
        """Call the network once to learn its output shapes.

        Args:
            session: with one input [B, 3, H, W].
            size_px: width and height for the open dimensions.

        Raises:
            SessionError: the network does not run on images of this size.
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
            f"{session.path}: does not run on images of {width} x {height} px ({first_line(error)})",
            'give a size that it accepts in its recipe: "size_px": [WIDTH, HEIGHT]',
        ) from error


def of_one_size(session: Session, wanted_px: tuple[int, int] | None, usual_px: tuple[int, int]) -> Session:
    """The session, with a fixed input size if its one input [B, 3, H, W] leaves the size open.

    Args:
        session: any.
        wanted_px: width and height that the user asks for.
        usual_px: width and height if the user does not say.

    Raises:
        BundleError: the file has a different size from the user's.
        SessionError: the network does not run on images of this size.
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
