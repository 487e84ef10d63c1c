"""The mesh files of a bundle that this machine can open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from jotr_deploy.bundle import Bundle, FileEntry
from jotr_deploy.errors import BundleError, MissingDependency, SessionError
from jotr_deploy.evaluation.fit_stage import FitStage, open_fit
from jotr_deploy.people import People
from jotr_deploy.runtime.body_session import open_body
from jotr_deploy.runtime.crops import Crops
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.mesh import MeshNetwork
from jotr_deploy.runtime.motion.alignment.aligner import Aligner
from jotr_deploy.runtime.sessions import Session, open_session
from jotr_deploy.support.choices import FitChoice
from jotr_deploy.support.precisions import Precision

T = TypeVar("T")


class AlignedNetwork(MeshNetwork):
    """Mesh file followed by alignment of its people to their joints, each in the camera of their crop."""

    def __init__(self, session: Session, aligner: Aligner) -> None:
        super().__init__(session)
        self._aligner = aligner

    def __call__(self, crops: Crops, detections: Detections) -> People:
        """Predictions for a batch, as `MeshNetwork` gives them."""
        return self._aligner(super().__call__(crops, detections))


@dataclass(frozen=True)
class OpenFile:
    """Mesh file that is open, ready for crops."""

    entry: FileEntry
    network: MeshNetwork

    @property
    def device(self) -> str:
        """Device that it runs on."""
        return str(getattr(self.network.session, "device", "cpu"))


@dataclass(frozen=True)
class OpenFiles:
    """The file that is measured, and for drift all files that can be compared."""

    measured: OpenFile
    reference: OpenFile | None  # the fp32 file, where a drift is asked for
    compared: tuple[OpenFile, ...]  # the other files
    not_run: Mapping[str, str]  # file -> reason
    fit: FitStage | None = None  # that follows every file

    @property
    def all(self) -> tuple[OpenFile, ...]:
        """All files, each once, the measured one first."""
        files = (self.measured, *((self.reference,) if self.reference else ()), *self.compared)
        return tuple({file.entry.name: file for file in files}.values())

    def by_name(self, values: Sequence[T]) -> dict[str, T]:
        """Values for `all` files by their names."""
        return dict(zip((file.entry.name for file in self.all), values, strict=True))


@contextmanager
def open_files(
    bundle: Bundle,
    name: str | None = None,
    every: bool = False,
    device: str = "auto",
    threads: int | None = None,
    align: bool = False,
    fit: FitChoice | None = None,
    tf32: bool = False,
) -> Iterator[OpenFiles]:
    """Open the mesh file called `name`, or the first; with `every` the others too. `align` aligns people to joints,
    `fit` follows.

    Raises:
        BundleError: no such file; it is missing or changed; it was exported without a body; with `every`, there is no
            fp32 file.
        SessionError, MissingDependency: the measured file, or the fp32 file, cannot be opened here.
        JotrDeployError: no fit is possible, see `fitting.fitter.open_fitter`.
    """
    with ExitStack() as stack:
        fitted = stack.enter_context(open_fit(bundle, fit, device, threads))
        aligner = Aligner(stack.enter_context(open_body(bundle, threads))) if align else None

        def opened(entry: FileEntry) -> OpenFile:
            path = bundle.file("mesh", entry.name)
            session = stack.enter_context(open_session(path, device=device, threads=threads, tf32=tf32))
            return OpenFile(entry, AlignedNetwork(session, aligner) if aligner else MeshNetwork(session))

        chosen = bundle.entry("mesh", name)
        measured = opened(chosen)
        if not every:
            yield OpenFiles(measured, None, (), {}, fitted)
            return
        first = _reference(bundle)
        reference = measured if first == chosen else opened(first)
        compared, not_run = [], {}
        for entry in bundle.manifest.files:
            if entry.role != "mesh" or entry == first:
                continue
            if entry == chosen:
                compared.append(measured)
                continue
            if entry.only_parsed:
                not_run[entry.name] = f"made for the parser of {entry.backend}, not to be run"
                continue
            try:
                compared.append(opened(entry))
            except (SessionError, MissingDependency, BundleError) as error:
                not_run[entry.name] = error.cause
        yield OpenFiles(measured, reference, tuple(compared), not_run, fitted)


def _reference(bundle: Bundle) -> FileEntry:
    for entry in bundle.manifest.files:
        if entry.role == "mesh" and entry.precision == Precision.FP32 and not entry.only_parsed:
            return entry
    raise BundleError(
        f"{bundle.path}: the bundle has no fp32 mesh file to compare the others with",
        "export it again: jotr-deploy export CHECKPOINT -o BUNDLE",
    )
