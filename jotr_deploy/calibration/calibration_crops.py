"""Crops to calibrate a network with: from pictures or synthetic scenes, through the runtime's own preprocessing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jotr_deploy.bundle import Bundle
from jotr_deploy.config import ModelConfig
from jotr_deploy.errors import JotrDeployError
from jotr_deploy.evaluation.held_out_scenes import held_out
from jotr_deploy.runtime.crops import Crops, make_crops
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.finding.people_networks import ROLES, open_people_networks
from jotr_deploy.runtime.finding.people_source import file_use, open_people_source
from jotr_deploy.runtime.joint_files.usage import FileUse
from jotr_deploy.runtime.sources.opening import open_source
from jotr_deploy.support.aliases import Array, Progress

SEED = 3000
"""Seed of calibration scenes: used neither in training (below 1000) nor by `eval` by default."""
ENOUGH = 128
"""Fewest crops whose ranges suit other pictures too."""
BATCH = 8


@dataclass(frozen=True)
class CropSet:
    """Crops in a fixed order."""

    feeds: Mapping[str, Array]  # the network's inputs by name, N of each
    what: str  # description of their source
    skipped: tuple[str, ...] = ()  # pictures that could not be read

    def __len__(self) -> int:
        return len(self.feeds["image"])

    @property
    def sha256(self) -> str:
        """Hash of all numbers: two sets with the same hash calibrate alike."""
        digest = hashlib.sha256()
        for array in self.feeds.values():
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def batches(self, chosen: Array) -> list[dict[str, Array]]:
        """Feeds of the network for these crops, `BATCH` at a time."""
        parts = [chosen[start : start + BATCH] for start in range(0, len(chosen), BATCH)]
        return [{name: feed[part] for name, feed in self.feeds.items()} for part in parts]

    def split(self) -> tuple[Array, Array]:
        """Numbers of the crops to calibrate with and of those held out to measure the drift: every fourth."""
        held = np.arange(len(self)) % 4 == 3
        return np.flatnonzero(~held), np.flatnonzero(held)


def synthetic_crops(count: int, config: ModelConfig, progress: Progress = lambda step, done, total: None) -> CropSet:
    """The first people of synthetic scenes, with true boxes and noisy joints."""

    def people() -> Iterator[tuple[Array, Detections]]:
        index = 0
        while True:
            scene = held_out(SEED, index, config.crop_factor)
            yield scene.image_bgr, scene.given[np.flatnonzero(scene.counted)]
            index += 1

    return _collected(people(), count, config.crop_side, f"synthetic scenes of seed {SEED}", [], progress)


def crops_of_pictures(
    bundle: Bundle,
    source: Path,
    keypoints: Path | None,
    count: int,
    progress: Progress = lambda step, done, total: None,
) -> CropSet:
    """Crops of the people in pictures, up to `count`: by keypoints, else as `open_people_source` finds them.

    Pictures that cannot be read are left out and named in the result.

    Raises:
        JotrDeployError: nothing can be read, or nobody is found.
    """
    skipped: list[str] = []
    config = bundle.manifest.model
    with ExitStack() as stack:
        frames = stack.enter_context(open_source(source, skipped, upright=True))
        roles = ROLES if keypoints is None else ()
        networks = stack.enter_context(open_people_networks(bundle, roles, device="cpu"))
        find = open_people_source(frames, keypoints, None, None, networks, crop_factor=config.crop_factor)
        people = ((frame.image_bgr, find(frame.image_bgr, frame.name, frame.index)) for frame in frames)
        return _collected(
            people, count, config.crop_side, f"pictures of {frames.name}", skipped, progress, file_use(find)
        )


def _collected(
    people: Iterator[tuple[Array, Detections]],
    count: int,
    side: int,
    what: str,
    skipped: list[str],
    progress: Progress,
    use: FileUse | None = None,
) -> CropSet:
    parts: list[Crops] = []
    found = 0
    progress("crops", 0, count)
    for image_bgr, detections in people:
        parts.append(make_crops(image_bgr, detections, side))
        found += len(parts[-1])
        progress("crops", min(found, count), count)
        if found >= count:
            break
    if not found:
        if use is not None:
            use.check_somebody()  # the fault may be that of the file
        raise JotrDeployError(f"{what}: nobody to calibrate with", "give pictures of people, or --synthetic 256")
    feeds = {name: np.concatenate([part.feeds[name] for part in parts])[:count] for name in parts[0].feeds}
    return CropSet(feeds, what, tuple(skipped))
