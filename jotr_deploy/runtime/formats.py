"""Networks of others: which of the known formats a file is in, by its tensors or as the bundle's recipe says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from jotr_deploy.errors import BundleError, SessionError
from jotr_deploy.runtime.sessions import Session, TensorSpec

Array = NDArray[Any]

MAX_BATCH = 16
"""Rows in one call at most where a file takes any number."""


class Recipe(BaseModel):
    """What a bundle may say about a network of others, and what holds where it says nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: str | None = None


class Format(ABC):
    """A network in one format, opened: a class in a file of its own, listed in the registry of its kind."""

    name: ClassVar[str]
    recipe: ClassVar[type[Recipe]]

    def __init__(self, session: Session, recipe: Any) -> None:
        """`session` fits; `recipe` is of the class above. `size_px` is width and height of the input."""
        size_px = image_size_px(session)
        if size_px is None or not self.fits(session):
            raise ValueError("the session does not fit; ask `fits` first")
        self.session, self.options, self.size_px = session, recipe, size_px

    @staticmethod
    @abstractmethod
    def fits(session: Session) -> bool:
        """Whether names and shapes are those of this format."""


AnyFormat = TypeVar("AnyFormat", bound=Format)


def open_format(
    kind: str, formats: Sequence[type[AnyFormat]], session: Session, recipe: Mapping[str, Any]
) -> AnyFormat:
    """The network of a session in the first format that fits, or in the one that the recipe names.

    Raises:
        SessionError: the file fits none of them.
        BundleError: the recipe says what the format does not know.
    """
    wanted, names = recipe.get("format"), ", ".join(each.name for each in formats)
    named = [each for each in formats if wanted in (None, each.name)]
    if not named:
        raise BundleError(f"{session.path}: unknown {kind} format '{wanted}'", f"known: {names}")
    for each in named:
        if each.fits(session):
            return each(session, _checked(each, session, recipe))
    tried = ", ".join(each.name for each in named)
    raise SessionError(
        f"{session.path}: not a {kind} of a known format (inputs {_listed(session.inputs)}; "
        f"outputs {_listed(session.outputs)}; tried {tried})",
        f"give a file in one of the formats {names}, as its exporter writes it",
    )


def _checked(chosen: type[Format], session: Session, recipe: Mapping[str, Any]) -> Recipe:
    try:
        return chosen.recipe.model_validate(recipe)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        known = ", ".join(chosen.recipe.model_fields)
        raise BundleError(
            f"{session.path}: recipe: {where}: {first['msg']}", f"a recipe of {chosen.name} has {known}"
        ) from None


def _listed(tensors: Mapping[str, TensorSpec]) -> str:
    return ", ".join(f"{name} {spec}" for name, spec in tensors.items())


def image_size_px(session: Session) -> tuple[int, int] | None:
    """Width and height of the one input [B, 3, H, W]; None where there is no such input of fixed size."""
    if len(session.inputs) != 1:
        return None
    (spec,) = session.inputs.values()
    if len(spec.shape) != 4 or spec.shape[1] != 3 or spec.dtype.kind != "f":
        return None
    height, width = spec.shape[2:]
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None


def in_batches(session: Session, images: Array) -> dict[str, Array]:
    """Run a network over N > 0 images (N, 3, H, W): all in one call, unless the file or `MAX_BATCH` says fewer.

    Returns:
        The outputs by name, N rows each.
    """
    ((name, spec),) = session.inputs.items()
    fixed = spec.shape[0] if isinstance(spec.shape[0], int) else None
    size, parts = fixed or MAX_BATCH, []
    for start in range(0, len(images), size):
        chunk = images[start : start + size].astype(spec.dtype)
        missing = (fixed or len(chunk)) - len(chunk)
        fed = np.concatenate([chunk, np.zeros((missing, *chunk.shape[1:]), spec.dtype)])
        parts.append({out: rows[: len(chunk)] for out, rows in session({name: fed}).items()})
    return {out: np.concatenate([part[out] for part in parts]) for out in parts[0]}
