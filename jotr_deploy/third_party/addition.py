"""Adding a third-party detector and 2-D pose network to a bundle, each tried before anything is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from jotr_deploy.bundle import Bundle, FileEntry, Licence, replace_files
from jotr_deploy.errors import BundleError, JotrDeployError, SessionError, first_line
from jotr_deploy.runtime.finding.detection.blazepose import BlazePoseDetector
from jotr_deploy.runtime.finding.people_networks import (
    ROLES,
    PeopleNetworks,
    Role,
    open_network,
    own_networks,
)
from jotr_deploy.runtime.finding.people_source import ONLY_BOTH, PUT_BOTH_IN
from jotr_deploy.runtime.finding.pose.blazepose import BlazePoseLandmarks
from jotr_deploy.runtime.sessions import OPENVINO_FILE, Session, open_session
from jotr_deploy.runtime.sources.images import read_image, write_image
from jotr_deploy.support.aliases import Say
from jotr_deploy.support.read_errors import read_onnx
from jotr_deploy.third_party.trial import Outcome, Person, drawn, look, try_detector, try_pose

NOT_STATED = "unknown: not stated"


@dataclass(frozen=True)
class NewNetwork:
    """File to add to a bundle as its detector or pose network."""

    role: Role
    file: Path
    recipe: Mapping[str, Any]  # the user's settings: the format and its options


@dataclass(frozen=True)
class Tried:
    """Result of opening a file and running it once."""

    about: str  # its format, size, classes or joints
    outcome: Outcome  # for the picture inside this package
    recipe: dict[str, Any]
    batch: str  # `dynamic` or a number


@dataclass(frozen=True)
class TriedPicture:
    """User's test picture, and the people found in it."""

    picture: str
    drawing: str  # file of the picture with the people drawn
    people: tuple[Person, ...]


@dataclass(frozen=True)
class Added:
    """Network as added to the bundle."""

    role: Role
    name: str
    about: str
    found: str
    size_bytes: int
    licence: Licence
    replaced: tuple[str, ...]  # previous files of the same role
    tried: TriedPicture | None = None


def add_networks(
    bundle: Bundle,
    networks: Sequence[NewNetwork],
    terms: str | None = None,
    redistributable: bool = False,
    say: Say = lambda step: None,
    picture: Path | None = None,
) -> list[Added]:
    """Try the files, then put all of them (or none) into the bundle, replacing those with the same roles.

    Args:
        bundle: see `bundle.to_write`.
        networks: at most one per role.
        terms: licence of the files; recorded as unknown if None.
        redistributable: whether the licence permits redistribution.
        say: called with each step as it starts.
        picture: user's picture with people in it: the networks are tried on it, and the people found are drawn into a
            file in the current folder. A detector may then miss the people in the picture inside this package.

    Raises:
        SessionError: a file cannot be opened, is in no known format, contradicts its metadata, does not run, finds
            boxes where there are no people, or finds nobody in `picture`.
        SourceError: `picture` cannot be read.
        BundleError: options that the format does not have.
        OutputError: the bundle cannot be written.
    """
    tried = []
    for each in networks:
        say(f"trying {each.file}")
        tried.append(_tried(each))
        _refuse_if_wrong(each, tried[-1], picture)
    _refuse_half_of_blazepose(bundle, networks, tried)
    looked = None if picture is None else _look(bundle, networks, picture, say)
    say(f"writing {bundle.path}")
    names = [f"{each.role}{_suffix(each.file)}" for each in networks]
    roles = {each.role for each in networks}
    old = {entry.name: entry.role for entry in bundle.manifest.files if entry.role in roles}
    new = [_licence(each, terms, redistributable) for each in networks]
    others = [known for known in bundle.manifest.licences if known.asset.split(":")[0] not in roles]
    makers = {name: _maker(each, found) for name, each, found in zip(names, networks, tried, strict=True)}
    replace_files(bundle, makers, old.keys(), [*others, *new])
    return [
        Added(
            role=each.role, name=name, about=found.about, found=found.outcome.words, licence=licence, tried=looked,
            size_bytes=bundle.place(name).stat().st_size,
            replaced=tuple(file for file, role in old.items() if role == each.role),
        )
        for each, name, found, licence in zip(networks, names, tried, new, strict=True)
    ]  # fmt: skip


def recipes_of(settings: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Settings `ROLE.KEY=VALUE` -> recipe for each role; values are parsed as JSON if possible, else taken as text.

    Raises:
        BundleError: a setting is malformed, or given twice.

    >>> recipes_of(["detector.threshold=0.4", "pose.decode=udp"])
    {'detector': {'threshold': 0.4}, 'pose': {'decode': 'udp'}}
    """
    recipes: dict[str, dict[str, Any]] = {role: {} for role in ROLES}
    for setting in settings:
        place, equals, value = setting.partition("=")
        role, dot, key = place.partition(".")
        if not (equals and dot and key) or role not in recipes:
            raise BundleError(
                f"--set {setting}: not of the form ROLE.KEY=VALUE", "give one such as detector.threshold=0.4"
            )
        if key in recipes[role]:
            raise BundleError(f"{place} is given twice", "give it once")
        try:
            recipes[role][key] = json.loads(value)
        except ValueError:
            recipes[role][key] = value
    return recipes


def _tried(network: NewNetwork) -> Tried:
    with open_session(network.file) as session:
        try:
            opened, outcome = (try_detector if network.role == "detector" else try_pose)(session, network.recipe)
        except JotrDeployError:
            raise
        except Exception as error:  # engines raise their own exception classes
            raise SessionError(
                f"{network.file}: opens but does not run ({first_line(error)})",
                "check that its exporter supports this engine, and export it again",
            ) from error
        return Tried(opened.about, outcome, {"format": opened.name, **network.recipe}, _batch(session))


def _refuse_if_wrong(network: NewNetwork, tried: Tried, picture: Path | None) -> None:
    """Refuse implausible outputs, and a detector whose boxes miss the people; a pose network may miss them."""
    outcome, read = tried.outcome, f"{network.file}: read as {tried.about}, but "
    if outcome.state == "odd":
        raise SessionError(
            f"{read}{outcome.reason}", "it must be in another format: give one of those in docs/formats.md"
        )
    if outcome.state == "missed" and network.role == "detector" and picture is None:
        raise SessionError(
            f"{read}{outcome.reason}",
            "if it is in another format, name it with --detector-format; else show that it finds people: --try PHOTO",
        )


def _refuse_half_of_blazepose(bundle: Bundle, networks: Sequence[NewNetwork], tried: Sequence[Tried]) -> None:
    """Refuse to leave BlazePose's detector in the bundle without its own landmark network."""
    formats = {role: bundle.entry(role).recipe.get("format") for role in ROLES if bundle.has(role)}
    formats |= {each.role: found.recipe["format"] for each, found in zip(networks, tried, strict=True)}
    if formats.get("detector") != BlazePoseDetector.name or formats.get("pose") == BlazePoseLandmarks.name:
        return
    for each in networks:
        if each.role == "detector":
            raise BundleError(f"{each.file}: {ONLY_BOTH}", PUT_BOTH_IN)
    raise BundleError(f"the bundle keeps its detector: {ONLY_BOTH}", "replace the detector too: --detector FILE")


def _look(bundle: Bundle, networks: Sequence[NewNetwork], picture: Path, say: Say) -> TriedPicture:
    """Try the new networks, with the bundle's own for any other role, on the user's picture."""
    say(f"trying them on {picture}")
    image_bgr = read_image(picture)
    with ExitStack() as stack:
        given = {each.role: (each.file, each.recipe) for each in networks}
        kept = own_networks(bundle, [role for role in ROLES if role not in given])
        given |= {each.role: (each.path, each.recipe) for each in kept}
        opened = [stack.enter_context(open_network(role, *file)) for role, file in given.items()]
        seen = look(image_bgr, PeopleNetworks.of(opened))
    if not len(seen.boxes_px):
        remedy = "give a picture with fully visible people"
        if any(each.role == "detector" for each in networks):  # else its settings cannot be given
            remedy += ", or a lower threshold: --set detector.threshold=0.1"
        raise SessionError(f"{picture}: the detector finds nobody", remedy)
    drawing = Path(f"try-{picture.stem}.jpg")
    write_image(drawing, drawn(image_bgr, seen))
    return TriedPicture(str(picture), str(drawing), seen.people)


def _batch(session: Session) -> str:
    rows = next(iter(session.inputs.values())).shape[0]
    return str(rows) if isinstance(rows, int) else "dynamic"


def _suffix(file: Path) -> str:
    return OPENVINO_FILE if file.name.endswith(OPENVINO_FILE) else file.suffix.lower()


def _licence(network: NewNetwork, terms: str | None, redistributable: bool) -> Licence:
    name = network.file.name.encode(errors="backslashreplace").decode()  # file names need not be text
    return Licence(asset=f"{network.role}: {name}", terms=terms or NOT_STATED, redistributable=redistributable)


def _maker(network: NewNetwork, tried: Tried) -> Callable[[Path], FileEntry]:
    def make(path: Path) -> FileEntry:
        backend = "onnx" if network.file.suffix.lower() == ".onnx" else "tensorrt"
        if backend == "onnx":
            _copy_onnx(network.file, path)
        else:
            shutil.copyfile(network.file, path)
        return FileEntry(role=network.role, name="", sha256="", backend=backend, recipe=tried.recipe, batch=tried.batch)

    return make


def _copy_onnx(file: Path, path: Path) -> None:
    """Copy an ONNX file byte for byte, or with external weights embedded if it has any."""
    alone, whole = read_onnx(file, external=False), read_onnx(file)
    if alone == whole:
        shutil.copyfile(file, path)
        return
    try:
        onnx.save(whole, path)
    except ValueError as error:
        raise SessionError(
            f"{file}: its external weights do not fit into one file ({first_line(error)})", "give a file below 2 GB"
        ) from error
