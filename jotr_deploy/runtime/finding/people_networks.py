"""The networks of a bundle that find people: its detector and its pose network, either of which may be missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jotr_deploy.bundle import Bundle
from jotr_deploy.runtime.finding.detection import Detector, open_detector
from jotr_deploy.runtime.finding.detection.one_stage import OneStage
from jotr_deploy.runtime.finding.pose import PoseNetwork, open_pose_network
from jotr_deploy.runtime.sessions import Session, open_session

ROLES = ("detector", "pose")


@dataclass(frozen=True)
class PeopleNetworks:
    """What there is to find people with."""

    detector: Detector | None = None
    pose: PoseNetwork | None = None

    @property
    def skeleton(self) -> str | None:
        """The order of the joints that they find, a key of `SKELETONS`; None where none finds joints."""
        if self.pose is not None:
            return self.pose.skeleton
        return self.detector.skeleton if isinstance(self.detector, OneStage) else None


@contextmanager
def open_people_networks(
    bundle: Bundle, roles: Sequence[str] = ROLES, device: str = "auto", threads: int | None = None
) -> Iterator[PeopleNetworks]:
    """Those of `roles` that the bundle has; their sessions end with the block.

    Raises:
        BundleError, SessionError: a file that is not intact, or of a format that is not known.
    """
    with ExitStack() as stack:

        def opened(role: str) -> tuple[Session, dict[str, Any]] | None:
            if role not in roles or not bundle.has(role):
                return None
            path: Path = bundle.file(role)
            return stack.enter_context(open_session(path, device=device, threads=threads)), bundle.entry(role).recipe

        detector, pose = opened("detector"), opened("pose")
        yield PeopleNetworks(
            detector=None if detector is None else open_detector(*detector),
            pose=None if pose is None else open_pose_network(*pose),
        )
