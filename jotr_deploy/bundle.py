"""The bundle: a directory with everything a machine needs to run; nothing else is passed between verbs."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, field_validator

from jotr_deploy.config import ModelConfig, first_fault
from jotr_deploy.errors import UPGRADE, BundleError, JotrDeployError, OutputError, first_line, one_line
from jotr_deploy.support.choices import BACKENDS
from jotr_deploy.support.file_kinds import advice, describe_file
from jotr_deploy.support.file_names import path_inside, shown_name
from jotr_deploy.support.precisions import Precision
from jotr_deploy.support.writing import folder_made, output_errors, written_aside

MANIFEST = "bundle.json"
STARTER = "starter"
"""The word for the bundle inside this package, accepted wherever a bundle is named, if the package has one."""
FORMAT = 4
"""2: `align`; 3: `model.crop_factor`; 4: the roles of a fit. Older manifests are accepted, and
written in the newest format."""
STAND_IN_LABEL = "stand-in body"
"""Label of a bundle whose meshes are those of the body inside this package."""
_EXPORT_AGAIN = "export it again: jotr-deploy export CHECKPOINT -o BUNDLE"
_INSTALL_AGAIN = "install the package again"
FIT_ROLES = ("features", "kernels", "bank")
"""Roles of the files of a fit (docs/fitting.md), which are added to a bundle together."""
FEATURES_AGAIN = "put trained features in: jotr-deploy add BUNDLE --features WEIGHTS"


Line = Annotated[str, AfterValidator(one_line)]
"""A text that is displayed as it is."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Licence(_Strict):
    """One licensed asset inside the bundle's files."""

    asset: Line
    terms: Line
    redistributable: bool


class Error(_Strict):
    """Measured distance of a file's vertices from the PyTorch reference, millimetres."""

    mean: float
    max: float


class FileEntry(_Strict):
    """One file of the bundle."""

    role: Literal["mesh", "faces", "detector", "pose", "features", "kernels", "bank"]
    name: str
    sha256: str
    precision: Line | None = None
    backend: Line | None = None
    recipe: dict[str, Any] = {}
    batch: Line | None = None
    built_with: dict[Line, Line] = {}
    error_mm: Error | None = None

    @property
    def only_parsed(self) -> bool:
        """True for an ONNX file in TensorRT's dialect, from which an engine was built: it cannot be run as it is."""
        return self.backend == "tensorrt" and self.name.endswith(".onnx")


class Manifest(_Strict):
    """`bundle.json`: no timestamps, no timings; unknown fields are refused."""

    format: Literal[1, 2, 3, 4] = 4
    model: ModelConfig
    source_sha256: str
    labels: tuple[Line, ...] = ()
    """Warnings to show wherever a result appears: "stand-in body", "untrained: pose is meaningless"."""
    licences: tuple[Licence, ...] = ()
    align: bool = False
    """Default of `run --align` (docs/alignment.md)."""
    files: tuple[FileEntry, ...]
    """Entries with distinct bare file names: no path, no duplicate, not the manifest's own name."""

    @field_validator("files")
    @classmethod
    def _plain_names(cls, files: tuple[FileEntry, ...]) -> tuple[FileEntry, ...]:
        seen = {MANIFEST: "is that of the manifest"}
        for entry in files:
            path_inside(Path(), entry.name)
            key = unicodedata.normalize("NFC", entry.name).casefold()  # some systems treat these as one name
            if key in seen:
                raise ValueError(f"the file name {shown_name(entry.name)} {seen[key]}")
            seen[key] = "is listed twice"
        return files


@dataclass(frozen=True)
class Bundle:
    """An opened bundle."""

    path: Path
    manifest: Manifest

    def has(self, role: str) -> bool:
        """True if a file of that role is listed."""
        return any(entry.role == role for entry in self.manifest.files)

    def entry(self, role: str, name: str | None = None) -> FileEntry:
        """The file of a role: the one called `name`, else the first listed."""
        found = [e for e in self.manifest.files if e.role == role and name in (None, e.name)]
        if not found:
            wanted = f"{name} of role {role}" if name else f"{role} file"
            others = ", ".join(e.name for e in self.manifest.files if e.role == role)
            remedy = f"it has {others}" if name and others else _again(role)
            raise BundleError(f"{self.path}: the bundle has no {wanted}", remedy)
        return found[0]

    def place(self, name: str) -> Path:
        """The path of a file of that name in the bundle's folder, whether or not it exists yet.

        Raises:
            BundleError: not a bare file name.
        """
        try:
            return path_inside(self.path, name)
        except ValueError as error:
            raise BundleError(f"{self.path}: {error}", _EXPORT_AGAIN) from None

    def file(self, role: str, name: str | None = None) -> Path:
        """The path of a file, once its bytes are checked against the manifest.

        Raises:
            BundleError: not listed, missing or changed.
        """
        entry = self.entry(role, name)
        path = self.place(entry.name)
        again = _whole_again(self, entry)
        if not path.is_file():
            raise BundleError(f"{self.path}: {entry.name} is listed in the manifest but missing", again)
        with _unreadable(path):
            unchanged = sha256_of(path) == entry.sha256
        if not unchanged and (instead := advice(path)):
            raise BundleError(f"{path}: the file has changed since it was made: it is {describe_file(path)}", instead)
        if not unchanged:
            raise BundleError(f"{path}: the file has changed since it was made (sha256 differs)", again)
        return path


def _export_again(path: Path) -> str:
    """The remedy for what `export` writes; the bundle inside this package is not exported."""
    return _INSTALL_AGAIN if path == starter_path() else _EXPORT_AGAIN


def _again(role: str) -> str:
    """The command that adds a file of this role to a bundle."""
    if role in FIT_ROLES:
        return FEATURES_AGAIN
    return f"put it in: jotr-deploy add BUNDLE --{role} FILE" if role in ("detector", "pose") else _EXPORT_AGAIN


def _whole_again(bundle: Bundle, entry: FileEntry) -> str:
    """The remedy for a listed file that is missing or damaged."""
    if bundle.path == starter_path():
        return _INSTALL_AGAIN
    return _again(entry.role) if entry == bundle.entry(entry.role) else _made_again(entry)


def _made_again(entry: FileEntry) -> str:
    """The command that makes a file listed after another of its role: a calibrated one, or one made for an engine."""
    backend = {"onnx": "onnxruntime"}.get(entry.backend or "", entry.backend)
    if entry.precision not in tuple(Precision) or backend not in BACKENDS:
        return _again(entry.role)
    if Precision(entry.precision).calibrated and entry.name == Precision(entry.precision).file():
        bits = " --weight-bits 7" if entry.recipe.get("weight_bits") == 7 else ""
        return f"make it again: jotr-deploy calibrate BUNDLE --synthetic 256 --precision {entry.precision}{bits}"
    attention = " --attention" if ".attention." in entry.name else ""
    options = f"--network {entry.role} --backend {backend} --precision {entry.precision}{attention}"
    return f"make it again: jotr-deploy build-engine BUNDLE {options}"


@contextmanager
def _unreadable(path: Path) -> Iterator[None]:
    """Convert system errors while a bundle's file is read to a BundleError."""
    try:
        yield
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})", "check its permissions") from error


def open_bundle(path: Path) -> Bundle:
    """Read and check the manifest; the files themselves are checked when they are used.

    Args:
        path: the directory, or the word `starter` for the bundle inside this package, if it has one and no bundle of
            that name exists here.

    Raises:
        BundleError: not a bundle, damaged, or in a newer format.
    """
    if str(path) == STARTER and not (path / MANIFEST).exists() and starter_path().is_dir():
        path = starter_path()
    manifest = path / MANIFEST
    try:
        if manifest.exists() and not manifest.is_file():  # reading a pipe or a device would block
            raise OSError("not a file")
        content = json.loads(manifest.read_text(encoding="utf-8-sig"))
        json.dumps(content, ensure_ascii=False).encode()  # lone surrogates could neither be shown nor written again
    except (FileNotFoundError, NotADirectoryError):
        raise _no_bundle(path) from None
    except (OSError, ValueError, RecursionError) as error:
        instead = advice(manifest)
        reason = f"it is {describe_file(manifest)}" if instead else first_line(error)
        raise BundleError(f"{manifest}: not readable ({reason})", instead or _export_again(path)) from None
    version = content.get("format") if isinstance(content, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise BundleError(f"{path}: bundle format {version}, this version reads up to {FORMAT}", UPGRADE)
    try:
        return Bundle(path, Manifest.model_validate(content))
    except ValidationError as error:
        raise BundleError(f"{manifest}: {first_fault(error, 'manifest')}", _export_again(path)) from None


def _no_bundle(path: Path) -> BundleError:
    """The error for a path that is not a bundle's folder, with a hint at where the bundle may be."""
    if not path.exists():
        starter = f", or use {STARTER}, the bundle inside this package" if starter_path().is_dir() else ""
        return BundleError(f"{path}: no such folder", f"check the path{starter}")
    instead = "make one: jotr-deploy export CHECKPOINT -o BUNDLE; or use the bundle of this package: starter"
    what = f"no {MANIFEST}"
    if path.is_file():
        what = f"it is {describe_file(path)}"
        beside = path.with_name(MANIFEST).is_file()
        instead = f"give its folder: {path.parent}" if beside else advice(path) or instead
    elif path.is_dir():
        with suppress(OSError):
            inside = sorted(folder for folder in path.iterdir() if (folder / MANIFEST).is_file())
            instead = f"give the folder inside it: {inside[0]}" if len(inside) == 1 else instead
    return BundleError(f"{path}: not a bundle ({what})", instead)


def starter_path() -> Path:
    """The path of the bundle inside this package."""
    return Path(__file__).with_name(STARTER)


@contextmanager
def to_write(path: Path, output: Path | None = None) -> Iterator[Bundle]:
    """The bundle that a verb adds files to: itself, or with `output` a copy that appears whole or not at all.

    Raises:
        BundleError: not a bundle, or the one inside this package without `output`.
        OutputError: see `new_directory`.
    """
    bundle = open_bundle(path)
    if output is not None:
        with new_directory(output, replace=None) as directory:
            copy = Bundle(directory, bundle.manifest)
            for entry in bundle.manifest.files:
                _copy(bundle, entry, copy)
            write_manifest(directory, bundle.manifest)
            try:
                yield copy
            except JotrDeployError as error:  # the copy is deleted; name the bundle, where the fault is
                remedy = _export_again(bundle.path) if error.remedy == _EXPORT_AGAIN else error.remedy
                raise type(error)(error.cause.replace(str(directory), str(path)), remedy) from error
    elif bundle.path == starter_path():
        raise BundleError(f"{path}: the bundle inside this package cannot be changed", "give -o DIR to write a copy")
    else:
        yield bundle


def _copy(bundle: Bundle, entry: FileEntry, copy: Bundle) -> None:
    """Copy one file; a link that leads out of the bundle is refused, as its target is not the bundle's to share."""
    file = bundle.place(entry.name)
    if not file.resolve().is_relative_to(bundle.path.resolve()):
        raise BundleError(f"{file}: is a link that leads out of the bundle", "replace it with the file itself")
    if not file.is_file():
        cause = f"{bundle.path}: {entry.name} is listed in the manifest but missing"
        raise BundleError(cause, _whole_again(bundle, entry))
    with copy.place(entry.name).open("wb") as target:
        target.writelines(_blocks(file))


def _blocks(path: Path) -> Iterator[bytes]:
    """The bytes of a bundle's file; errors of whoever writes them are not errors of reading."""
    with _unreadable(path), path.open("rb") as file:
        while block := file.read(1 << 20):
            yield block


@contextmanager
def new_directory(path: Path, replace: bool | None = False) -> Iterator[Path]:
    """A directory built in a temporary place and renamed to `path` at the end; on failure nothing has changed.

    Args:
        path: of the directory.
        replace: overwrite an existing bundle; None if the verb has no such option.

    Raises:
        OutputError: `path` exists (and `replace` is not set), or cannot be written.
    """
    place = path.resolve()  # "." has no name; and a link's target is replaced, not the link
    with output_errors(path):
        if place.exists() and not (place / MANIFEST).is_file():
            raise OutputError(f"{path}: already exists and is not a bundle", "choose another -o")
        if place.exists() and not replace:
            force = "" if replace is None else ", or add --force to replace the bundle"
            raise OutputError(f"{path}: already exists", f"choose another -o{force}")
    with output_errors(path), folder_made(place.parent):
        aside = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
        new, old = aside / "new", aside / "old"
        try:
            new.mkdir()
            yield new
            if place.exists():
                place.rename(old)
            new.rename(place)
        finally:
            if old.exists() and not place.exists():
                old.rename(place)
            shutil.rmtree(aside, ignore_errors=True)


def replace_file(bundle: Bundle, name: str, make: Callable[[Path], FileEntry]) -> Bundle:
    """Make or replace one file; see `replace_files`."""
    return replace_files(bundle, {name: make})


def replace_files(
    bundle: Bundle,
    files: Mapping[str, Callable[[Path], FileEntry]],
    old: Collection[str] = (),
    licences: Sequence[Licence] | None = None,
) -> Bundle:
    """Add, replace and remove files; at no moment does the manifest describe bytes that are not there.

    Args:
        bundle: as opened; the updated bundle is returned.
        files: by name inside the bundle, functions that write the file at a given path and return its entry; `sha256`
            is filled in here.
        old: names of files to remove; existing files with the names in `files` are replaced in any case.
        licences: of the updated bundle; unchanged by default.

    Raises:
        OutputError: not writable. The old files and their entries are unchanged or, once old bytes are gone, both
            are removed from the bundle.
    """
    gone = {*old, *files}
    with ExitStack() as stack:
        asides = {name: stack.enter_context(written_aside(bundle.place(name))) for name in files}
        made = []
        for name, aside in asides.items():
            with output_errors(bundle.place(name)):  # names the file that failed
                entry = files[name](aside)
                made.append(entry.model_copy(update={"name": name, "sha256": sha256_of(aside)}))
        others = tuple(entry for entry in bundle.manifest.files if entry.name not in gone)
        write_manifest(bundle.path, bundle.manifest.model_copy(update={"files": others}))
    for name in gone - files.keys():
        with output_errors(bundle.place(name)):
            bundle.place(name).unlink(missing_ok=True)
    changes: dict[str, Any] = {"files": (*others, *made)}
    manifest = bundle.manifest.model_copy(update=changes if licences is None else {**changes, "licences": (*licences,)})
    write_manifest(bundle.path, manifest)
    return Bundle(bundle.path, manifest)


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write `bundle.json` (deterministic bytes)."""
    with written_aside(directory / MANIFEST) as aside:
        written = manifest.model_copy(update={"format": FORMAT})
        aside.write_text(written.model_dump_json(indent=2) + "\n", encoding="utf-8")


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
