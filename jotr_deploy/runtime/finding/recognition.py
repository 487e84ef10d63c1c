"""Networks of others: which of the known formats a file is in, by its tensors or as the bundle's recipe says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jotr_deploy.config import first_fault
from jotr_deploy.errors import BundleError, SessionError
from jotr_deploy.runtime.finding.network_metadata import Declared, declared
from jotr_deploy.runtime.finding.open_size import OfOneSize, of_one_size
from jotr_deploy.runtime.sessions import Session, TensorSpec
from jotr_deploy.support.aliases import Array

MAX_BATCH = 16
"""Rows in one call at most where a file takes any number."""


Side = Annotated[int, Field(gt=0, le=8192, multiple_of=32)]


class Recipe(BaseModel):
    """What a bundle may say about a network of others, and what holds where it says nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: str | None = None
    """The name of a format; by default the first that fits."""
    size_px: tuple[Side, Side] | None = None
    """Width and height of the input, where the file leaves them open."""


@dataclass(frozen=True)
class Unread:
    """A file of a format that is known and not read."""

    what: str
    """The kind of file."""
    instead: str
    """What to do: which export of it is read."""


class Format(ABC):
    """A network in one format, opened: a class in a file of its own, listed in the registry of its kind."""

    name: ClassVar[str]
    recipe: ClassVar[type[Recipe]]
    task: ClassVar[str]
    """What metadata call a network of this format, if they say a task: "detect" or "pose"."""

    def __init__(self, session: Session, recipe: Any) -> None:
        """`session` fits; `recipe` is of the class above. `size_px` is width and height of the input."""
        size_px = self.size_of(session)
        if size_px is None or not self.fits(session):
            raise ValueError("the session does not fit; ask `fits` first")
        self.session, self.options, self.size_px = session, recipe, size_px

    @staticmethod
    def size_of(session: Session) -> tuple[int, int] | None:
        """Width and height of the input of a session that fits."""
        return image_size_px(session)

    @staticmethod
    @abstractmethod
    def fits(session: Session) -> bool:
        """Whether names and shapes are those of this format."""

    def oddity(self, outputs: Mapping[str, Array]) -> str | None:
        """What the numbers of one answer of the network say against this format, for people; None if nothing.

        Args:
            outputs: of a call, by name, with the axis of the batch.
        """
        return None

    def facts(self) -> tuple[str, ...]:
        """What else there is to know of this file, for people, in a few words each."""
        return ()

    @property
    def about(self) -> str:
        """The file in one line, for people."""
        return ", ".join((self.name, f"{self.size_px[0]} x {self.size_px[1]} px", *self.facts()))


AnyFormat = TypeVar("AnyFormat", bound=Format)
AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def open_format(
    kind: str,
    formats: Sequence[type[AnyFormat]],
    session: Session,
    recipe: Mapping[str, Any],
    usual_px: tuple[int, int],
    unread: Callable[[Session], Unread | None] = lambda session: None,
) -> AnyFormat:
    """The network of a session in the first format that fits, or in the one that the recipe names.

    Args:
        kind: of the formats, for people.
        formats: in the order in which they are asked.
        session: its names, shapes and metadata tell the format.
        recipe: see `Recipe`.
        usual_px: width and height of the input where neither file nor recipe tell.
        unread: recognises files of formats that are not read.

    Raises:
        SessionError: the file fits none of them, contradicts its own metadata, or does not run at that size.
        BundleError: the recipe says what the format does not know.
    """
    wanted, names = recipe.get("format"), ", ".join(each.name for each in formats)
    named = [each for each in formats if wanted in (None, each.name)]
    if not named:
        raise BundleError(f"{session.path}: unknown {kind} format '{wanted}'", f"known: {names}")
    size_px = _checked("any format", Recipe, session, {key: recipe[key] for key in recipe if key == "size_px"}).size_px
    said = declared(session)
    sized = of_one_size(session, size_px, said.size_px or usual_px)
    _refuse_other_pictures(session, said)
    for one in (sized, *_with_closed_outputs(sized)):
        for each in named:
            if said.task in (None, each.task) and each.fits(one):
                return each(one, _checked(each.name, each.recipe, session, recipe))
    known = unread(sized)
    if known is not None:
        raise SessionError(
            f"{session.path}: this is {known.what}, which cannot be used as a {kind} here "
            f"(inputs {_listed(session.inputs)}; outputs {_listed(session.outputs)})",
            known.instead,
        )
    tried = ", ".join(each.name for each in named)
    raise SessionError(
        f"{session.path}: not a {kind} of a known format (inputs {_listed(session.inputs)}; "
        f"outputs {_listed(session.outputs)}; tried {tried})",
        f"give a file in one of the formats {names}, as its exporter writes it",
    )


def _with_closed_outputs(session: Session) -> Iterator[Session]:
    """The session with the output sizes of a first call, where the file leaves some open that its input does not."""
    size_px = image_size_px(session)
    if size_px is not None and any(isinstance(n, str) for spec in session.outputs.values() for n in spec.shape[1:]):
        try:
            yield OfOneSize(session, size_px)
        except SessionError:  # then it is told by what is known without running it
            return


def _refuse_other_pictures(session: Session, said: Declared) -> None:
    if said.channels not in (None, 3):
        raise SessionError(
            f"{session.path}: its metadata say pictures of {said.channels} channels",
            "give a network of colour pictures",
        )
    own = image_size_px(session)
    if own is not None and said.size_px is not None and said.size_px != own:
        (wide, high), (width, height) = said.size_px, own
        raise SessionError(
            f"{session.path}: its metadata say {wide} x {high} px (imgsz), its input is {width} x {height} px",
            "export the network again: metadata and network do not belong together",
        )


def _checked(name: str, wanted: type[AnyRecipe], session: Session, recipe: Mapping[str, Any]) -> AnyRecipe:
    try:
        return wanted.model_validate(recipe)
    except ValidationError as error:
        known = ", ".join(wanted.model_fields)
        raise BundleError(f"{session.path}: recipe: {first_fault(error)}", f"a recipe of {name} has {known}") from None


def _listed(tensors: Mapping[str, TensorSpec]) -> str:
    return ", ".join(f"{name} {spec}" for name, spec in tensors.items())


def image_size_px(session: Session) -> tuple[int, int] | None:
    """Width and height of the one input [B, 3, H, W]; None where there is no such input of fixed size."""
    return _size_px(session, 1)


def last_colour_size_px(session: Session) -> tuple[int, int] | None:
    """Width and height of the one input [B, H, W, 3]; None where there is no such input of fixed size."""
    return _size_px(session, 3)


def _size_px(session: Session, colours: int) -> tuple[int, int] | None:
    """`colours` is the axis of the three colours."""
    if len(session.inputs) != 1:
        return None
    (spec,) = session.inputs.values()
    if len(spec.shape) != 4 or spec.shape[colours] != 3 or spec.dtype.kind != "f":
        return None
    height, width = (size for axis, size in enumerate(spec.shape) if axis not in (0, colours))
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None


def rows_of(session: Session) -> dict[str, tuple[int | str, ...]]:
    """The shapes of the outputs without the axis of the batch."""
    return {name: spec.shape[1:] for name, spec in session.outputs.items()}


class InBatches(Session):
    """A session of one input that takes any number N > 0 of images, see `in_batches`.

    The session below is closed by who opened it.
    """

    def __init__(self, session: Session) -> None:
        self.path, self.metadata, self._session = session.path, session.metadata, session
        ((name, spec),) = session.inputs.items()
        self.inputs = {name: TensorSpec(np.dtype(np.float32), ("batch", *spec.shape[1:]))}
        outputs = session.outputs.items()
        self.outputs = {out: TensorSpec(own.dtype, ("batch", *own.shape[1:])) for out, own in outputs}

    def _run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        (images,) = feeds.values()
        return in_batches(self._session, images)


def in_batches(session: Session, images: Array) -> dict[str, Array]:
    """Run a network over N > 0 images (N, 3, H, W): all in one call, unless the file or `MAX_BATCH` says fewer.

    Colours last, (N, H, W, 3), are as good.

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
