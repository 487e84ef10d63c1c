"""Third-party networks: recognition of a file's format by its tensors, or by the bundle's recipe."""

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
from jotr_deploy.runtime.finding.variable_input_size import OfOneSize, of_one_size
from jotr_deploy.runtime.sessions import Session, TensorSpec
from jotr_deploy.support.aliases import Array

MAX_BATCH = 16
"""Largest batch of one call when the file's batch is dynamic."""


Side = Annotated[int, Field(gt=0, le=8192, multiple_of=32)]


class Recipe(BaseModel):
    """Settings that a bundle may give for a third-party network, with their defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: str | None = None
    """Name of the format; by default the first that fits."""
    size_px: tuple[Side, Side] | None = None
    """Width and height of the input, if the file leaves them open."""


@dataclass(frozen=True)
class Unread:
    """A file in a recognised but unsupported format."""

    what: str
    """The kind of file."""
    instead: str
    """Remedy: the export of it that is supported."""


class Format(ABC):
    """An opened network in one format. Each format is a class in its own file, listed in the registry of its kind."""

    name: ClassVar[str]
    recipe: ClassVar[type[Recipe]]
    task: ClassVar[str]
    """Task that metadata declare for a network of this format, if any: "detect" or "pose"."""

    def __init__(self, session: Session, recipe: Any) -> None:
        """Wrap a session that fits, with a recipe of the class above. `size_px` is width and height of the input."""
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
        """True if names and shapes of the tensors are those of this format."""

    def oddity(self, outputs: Mapping[str, Array]) -> str | None:
        """Readable reason that one output of the network cannot be of this format; None if it is plausible.

        Args:
            outputs: outputs of one call, by name, including the batch axis.
        """
        return None

    def facts(self) -> tuple[str, ...]:
        """Further readable facts about this file, a few words each."""
        return ()

    @property
    def about(self) -> str:
        """One-line readable description of the file."""
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
    """Open the network of a session in the first format that fits, or in the one that the recipe names.

    Args:
        kind: name of the kind of network, for messages.
        formats: formats in the order in which they are tried.
        session: its names, shapes and metadata determine the format.
        recipe: see `Recipe`.
        usual_px: width and height of the input if neither file nor recipe determine them.
        unread: recognises files in unsupported formats.

    Raises:
        SessionError: the file fits no format, contradicts its own metadata, or does not run at that size.
        BundleError: the recipe has a setting that the format does not have.
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
        f"{session.path}: not a {kind} in a known format (inputs {_listed(session.inputs)}; "
        f"outputs {_listed(session.outputs)}; tried {tried})",
        f"give a file in one of the formats {names}, exactly as its exporter writes it",
    )


def _with_closed_outputs(session: Session) -> Iterator[Session]:
    """The session with output sizes from a first call, if they are open although the input size is fixed."""
    size_px = image_size_px(session)
    if size_px is not None and any(isinstance(n, str) for spec in session.outputs.values() for n in spec.shape[1:]):
        try:
            yield OfOneSize(session, size_px)
        except SessionError:  # fall back to what is known without running it
            return


def _refuse_other_pictures(session: Session, said: Declared) -> None:
    if said.channels not in (None, 3):
        raise SessionError(
            f"{session.path}: its metadata declare images with {said.channels} channels",
            "give a network for colour images",
        )
    own = image_size_px(session)
    if own is not None and said.size_px is not None and said.size_px != own:
        (wide, high), (width, height) = said.size_px, own
        raise SessionError(
            f"{session.path}: its metadata declare {wide} x {high} px (imgsz), but its input is {width} x {height} px",
            "export the network again: metadata and network do not match",
        )


def _checked(name: str, wanted: type[AnyRecipe], session: Session, recipe: Mapping[str, Any]) -> AnyRecipe:
    try:
        return wanted.model_validate(recipe)
    except ValidationError as error:
        known = ", ".join(wanted.model_fields)
        raise BundleError(f"{session.path}: recipe: {first_fault(error)}", f"{name} accepts {known}") from None


def _listed(tensors: Mapping[str, TensorSpec]) -> str:
    return ", ".join(f"{name} {spec}" for name, spec in tensors.items())


def image_size_px(session: Session) -> tuple[int, int] | None:
    """Width and height of the one input [B, 3, H, W]; None if there is no such input of fixed size."""
    return _size_px(session, 1)


def last_colour_size_px(session: Session) -> tuple[int, int] | None:
    """Width and height of the one input [B, H, W, 3]; None if there is no such input of fixed size."""
    return _size_px(session, 3)


def _size_px(session: Session, colours: int) -> tuple[int, int] | None:
    """Width and height of the one image input, whose colours lie on axis `colours`."""
    if len(session.inputs) != 1:
        return None
    (spec,) = session.inputs.values()
    if len(spec.shape) != 4 or spec.shape[colours] != 3 or spec.dtype.kind != "f":
        return None
    height, width = (size for axis, size in enumerate(spec.shape) if axis not in (0, colours))
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None


def rows_of(session: Session) -> dict[str, tuple[int | str, ...]]:
    """Shapes of the outputs without the batch axis."""
    return {name: spec.shape[1:] for name, spec in session.outputs.items()}


class InBatches(Session):
    """A one-input session that accepts any number N > 0 of images, see `in_batches`.

    The wrapped session is closed by its opener.
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
    """Run a network over N > 0 images (N, 3, H, W), in one call unless the file's batch or `MAX_BATCH` is smaller.

    Channels-last images (N, H, W, 3) work as well.

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
