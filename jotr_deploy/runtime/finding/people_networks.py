"""Detector and pose network that find people: choosing them from a bundle or the fetched ones, and opening them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jotr_deploy.bundle import Bundle, FileEntry, starter_path
from jotr_deploy.errors import JotrDeployError
from jotr_deploy.runtime.finding.fetched_networks import FetchedPeople, fetched_people, require_fetched
from jotr_deploy.runtime.sessions import Opener, open_session
from jotr_deploy.support.precisions import Precision

if TYPE_CHECKING:  # the formats are imported once a network is opened
    from jotr_deploy.runtime.finding.detection import Detector
    from jotr_deploy.runtime.finding.pose import PoseNetwork

Role = Literal["detector", "pose"]
ROLES: tuple[Role, ...] = ("detector", "pose")


@dataclass(frozen=True)
class NetworkFile:
    """File of a network that finds people, checked against its recorded hash."""

    role: Role
    path: Path
    name: str  # as recorded in results
    sha256: str
    recipe: Mapping[str, Any]

    def open(
        self, device: str = "auto", threads: int | None = None, tf32: bool = False, opener: Opener | None = None
    ) -> AbstractContextManager[Detector | PoseNetwork]:
        """Open the network; `open_network` with these files."""
        return open_network(self.role, self.path, self.recipe, device, threads, tf32, opener)


@dataclass(frozen=True)
class PeopleNetworks:
    """Opened networks that find people; either may be missing."""

    detector: Detector | None = None
    pose: PoseNetwork | None = None

    @classmethod
    def of(cls, opened: Iterable[Detector | PoseNetwork]) -> PeopleNetworks:
        """Networks by kind, from at most one of each."""
        from jotr_deploy.runtime.finding.detection import Detector
        from jotr_deploy.runtime.finding.pose import PoseNetwork

        networks = list(opened)
        return cls(
            next((each for each in networks if isinstance(each, Detector)), None),
            next((each for each in networks if isinstance(each, PoseNetwork)), None),
        )

    @property
    def skeleton(self) -> str | None:
        """Order of the joints that they find, a key of `SKELETONS`; None if neither finds joints."""
        from jotr_deploy.runtime.finding.detection.one_stage import OneStage

        if self.pose is not None:
            return self.pose.skeleton
        return self.detector.skeleton if isinstance(self.detector, OneStage) else None


def own_networks(bundle: Bundle, roles: Sequence[Role] = ROLES, device: str = "auto") -> list[NetworkFile]:
    """The bundle's own networks among `roles`, each as the file that suits this machine.

    Raises:
        BundleError: a file is missing or has changed.
    """
    entries = [(role, file_for(bundle, role, device)) for role in roles if bundle.has(role)]
    return [NetworkFile(role, bundle.file(role, own.name), own.name, own.sha256, own.recipe) for role, own in entries]


def file_for(bundle: Bundle, role: Role | Literal["features"], device: str = "auto") -> FileEntry:
    """File of a role that suits this machine best.

    The first file listed is the original from `add`, followed by the files that `build-engine` made from it. A TensorRT
    engine for this GPU is preferred to other derived files that run here, a newer one to an older one, and any of them
    to the original. Eight bits are for those who ask for them.

    Raises:
        BundleError: the bundle has none.
    """
    first = bundle.entry(role)
    made = [entry for entry in bundle.manifest.files if entry.role == role and entry != first]
    eight_bits = [str(precision) for precision in Precision if precision.calibrated]
    made = [entry for entry in made if not entry.only_parsed and entry.precision not in eight_bits]
    fit = [entry for entry in made if _is_for_this(entry, device)]
    return max(reversed(fit), key=lambda entry: entry.backend == "tensorrt", default=first)


def _is_for_this(entry: FileEntry, device: str) -> bool:
    """True if a file made by `build-engine` is meant for this machine's hardware and libraries.

    The file is not opened: one meant for this machine that cannot be opened later is an error like any other.
    """
    if entry.backend == "tensorrt":
        from jotr_deploy.runtime.sessions.tensorrt_engine import environment, mismatch

        try:
            return device != "cpu" and not mismatch(entry.built_with, environment())
        except JotrDeployError:  # no TensorRT, or no GPU
            return False
    from jotr_deploy.runtime.sessions import cuda
    from jotr_deploy.runtime.sessions.onnxruntime import has_cuda

    gpu = device != "cpu" and has_cuda() and cuda.available()
    if entry.backend != "openvino":
        return gpu
    from jotr_deploy.runtime.sessions.openvino import computes_bfloat16

    return device != "cuda" and not gpu and computes_bfloat16()


def networks_by(people: str, bundle: Bundle, device: str = "auto") -> list[NetworkFile]:
    """The networks that find people as `PeopleBy` says: the bundle's own, or BlazePose's that were fetched.

    "blazepose" prefers the bundle's own pair if it has one. "auto" uses the fetched pair only for the bundle inside
    this package, whose own networks are trained on drawn people.

    Raises:
        BundleError: "blazepose" is requested but was never fetched, or a file is damaged.
    """
    if people == "blazepose" and not has_blazepose(bundle):
        return _networks_of(require_fetched())
    fetched = fetched_people() if people == "auto" and bundle.path == starter_path() else None
    return own_networks(bundle, device=device) if fetched is None else _networks_of(fetched)


def has_blazepose(bundle: Bundle) -> bool:
    """True if both networks of the bundle are BlazePose's, as `add` records them."""
    from jotr_deploy.runtime.finding.detection.blazepose import BlazePoseDetector

    return all(bundle.has(role) and bundle.entry(role).recipe.get("format") == BlazePoseDetector.name for role in ROLES)


def _networks_of(fetched: FetchedPeople) -> list[NetworkFile]:
    files: dict[Role, Path] = {"detector": fetched.detector, "pose": fetched.landmarks}
    return [
        NetworkFile(role, path, f"{fetched.folder.name}/{path.name}", fetched.sha256[path.name], {})
        for role, path in files.items()
    ]


@contextmanager
def open_network(
    role: Role,
    path: Path,
    recipe: Mapping[str, Any],
    device: str = "auto",
    threads: int | None = None,
    tf32: bool = False,
    opener: Opener | None = None,
) -> Iterator[Detector | PoseNetwork]:
    """Open the network of a file in its format; its session ends with the block.

    Raises:
        BundleError, SessionError: the file or the recipe cannot be used.
    """
    from jotr_deploy.runtime.finding.detection import open_detector
    from jotr_deploy.runtime.finding.pose import open_pose_network

    opened = (
        open_session(path, device=device, threads=threads, tf32=tf32)
        if opener is None
        else opener(role, path, device, threads)
    )
    with opened as session:
        yield (open_detector if role == "detector" else open_pose_network)(session, recipe)


@contextmanager
def open_people_networks(
    bundle: Bundle,
    roles: Sequence[Role] = ROLES,
    device: str = "auto",
    threads: int | None = None,
    tf32: bool = False,
) -> Iterator[PeopleNetworks]:
    """Open the bundle's own networks, as far as it has them; their sessions end with the block.

    Raises:
        BundleError, SessionError: a file is damaged, or in an unknown format.
    """
    with ExitStack() as stack:
        files = own_networks(bundle, roles, device)
        yield PeopleNetworks.of([stack.enter_context(file.open(device, threads, tf32)) for file in files])
