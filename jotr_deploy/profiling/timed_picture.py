"""Picture that is timed, and the stages of a frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jotr_deploy.config import ModelConfig
from jotr_deploy.errors import KeypointFileError, SourceError
from jotr_deploy.fitting.fitter import cells_inside
from jotr_deploy.people import People
from jotr_deploy.profiling.interleave import Job
from jotr_deploy.profiling.quiet_samples import Key
from jotr_deploy.runtime.crops import make_crops
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.finding.blazepose.source import BlazePosePeople
from jotr_deploy.runtime.finding.people_networks import PeopleNetworks
from jotr_deploy.runtime.finding.people_source import (
    Finder,
    PeopleSource,
    WholeFrame,
    file_use,
    found_by,
    open_people_source,
)
from jotr_deploy.runtime.mesh import MeshNetwork, require_mesh_network
from jotr_deploy.runtime.sessions import Session
from jotr_deploy.runtime.sources.images import read_image
from jotr_deploy.runtime.sources.opening import open_source
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.spans import Spans
from jotr_deploy.visual.overlay import draw_people

if TYPE_CHECKING:
    from jotr_deploy.fitting.bundle_fitter import BundleFitter

FIT_STAGES = ("features", "render", "backward", "rest of the fit")
FOUND_NOBODY = (
    "the bundle's detector finds nobody in the picture of this package: its people are taken from a file, and no "
    "detection is timed"
)

SEARCHED_AS_A_STILL = (
    "BlazePose searches this picture as a still, in every window; on video, where people are tracked, it takes less"
)


@dataclass(frozen=True)
class Scene:
    """Picture with its people."""

    path: Path
    size_px: tuple[int, int]  # width, height
    people: Detections
    feeds: Mapping[str, Array]  # of the network, for everyone in the picture
    finder: Finder | None = None  # finds them; None if they come from a file
    notes: tuple[str, ...] = ()

    def batch(self, count: int) -> dict[str, Array]:
        """Feeds of this many people: those of the picture, repeated."""
        rows = np.arange(count) % len(self.people)
        return {name: feed[rows] for name, feed in self.feeds.items()}


@contextmanager
def default_scene() -> Iterator[tuple[Path, Path]]:
    """Picture inside this package, with two people who overlap, and its keypoint file."""
    folder = resources.files("jotr_deploy.visual")
    with (
        resources.as_file(folder / "scene.jpg") as picture,
        resources.as_file(folder / "scene_keypoints.json") as keypoints,
    ):
        yield picture, keypoints


@contextmanager
def open_scene(
    source: Path | None,
    keypoints: Path | None,
    config: ModelConfig,
    networks: PeopleNetworks = PeopleNetworks(),  # noqa: B008
) -> Iterator[Scene]:
    """Open the user's picture, or the one inside this package.

    Args:
        source: user's picture.
        keypoints: its people; without them people are found by the networks, and without a detector a file gives
            the people of this package's picture, and any other picture is treated as one person.
        config: of the mesh network.
        networks: those of the bundle that find people.

    Raises:
        SourceError, KeypointFileError: unreadable or mismatched files, or nobody in the picture.
    """
    if source is None:
        if keypoints is not None:
            raise KeypointFileError(f"{keypoints}: keypoints without their picture", "give the picture: --source IMAGE")
        with default_scene() as (picture, joints):
            if networks.detector is None:
                yield _read(picture, joints, config, networks)
                return
            try:
                scene = _read(picture, None, config, networks)
            except SourceError:
                scene = replace(_read(picture, joints, config, networks), notes=(FOUND_NOBODY,))
            yield scene
    else:
        yield _read(source, keypoints, config, networks)


def _read(path: Path, keypoints: Path | None, config: ModelConfig, networks: PeopleNetworks) -> Scene:
    finder = None
    with open_source(str(path)) as source:
        if source.kind != "image":
            raise SourceError(
                f"{path}: one picture is timed, not a folder or a video", "give a picture: --source IMAGE"
            )
        people_source: PeopleSource = WholeFrame(crop_factor=config.crop_factor)
        if keypoints is not None:
            people_source = open_people_source(source, keypoints, crop_factor=config.crop_factor)
        elif networks.detector is not None:
            people_source = finder = found_by(networks, crop_factor=config.crop_factor)
    image_bgr = read_image(path)
    people = people_source(image_bgr, path.name, 0)
    if not len(people):
        if (use := file_use(people_source)) is not None:
            use.check_somebody()  # the fault may be that of the file
        raise SourceError(
            f"{path}: no people found in this picture", "give one with people: --source IMAGE --keypoints FILE"
        )
    size_px = (image_bgr.shape[1], image_bgr.shape[0])
    notes = (SEARCHED_AS_A_STILL,) if isinstance(finder, BlazePosePeople) else ()
    return Scene(path, size_px, people, make_crops(image_bgr, people, config.crop_side).feeds, finder, notes)


def stages(scene: Scene, draws: bool, fits: bool = False) -> tuple[str, ...]:
    """Stages of a frame of this scene, in order."""
    finds = () if scene.finder is None else scene.finder.stages
    return ("decode", *finds, "crop", "network", *(FIT_STAGES if fits else ()), *(("draw",) if draws else ()))


def frame_job(scene: Scene, session: Session, faces: Array | None, fitter: BundleFitter | None = None) -> Job:
    """Job of a frame through every stage in sequence, as in `run`; a bundle without body draws nothing.

    Args:
        scene: picture and people.
        session: the network.
        faces: (F, 3) of the body, None where the network has none.
        fitter: fits the people, if the network has a body.
    """
    require_mesh_network(session)
    crop_side = int(session.inputs["image"].shape[-1])
    names = stages(scene, faces is not None, fitter is not None)

    def run() -> Mapping[Key, float]:
        spans, of_fit = Spans(), dict[str, float]()
        with spans("decode"):
            image_bgr = read_image(scene.path)
        found = scene.people if scene.finder is None else replace(scene.finder, spans=spans)(image_bgr, "", 0)
        with spans("crop"):
            crops = make_crops(image_bgr, found, crop_side)
        if faces is None:
            with spans("network"):
                session(crops.feeds)
        else:
            with spans("network"):
                people = MeshNetwork(session)(crops, found)
            if fitter is not None:
                people, of_fit = _fitted(fitter, image_bgr, found, people, spans)
            with spans("draw"):
                draw_people(image_bgr, people, faces)
        return {("stage", name): of_fit.get(name, spans.total(name)) for name in names}

    return Job(tuple(("stage", name) for name in names), run)


def _fitted(
    fitter: BundleFitter, image_bgr: Array, found: Detections, people: People, spans: Spans
) -> tuple[People, dict[str, float]]:
    """People after the fit, and the seconds of its stages; the last of them is what the others leave of its time."""
    with spans("crop"):
        crops = make_crops(image_bgr, found, fitter.side)
        inside = cells_inside(found.boxes_px, (image_bgr.shape[1], image_bgr.shape[0]), fitter.cells)
    own = Spans()
    with own("fit"):
        fits = fitter(crops, people, inside, spans=own)
    *parts, rest = FIT_STAGES
    seconds = {name: own.total(name) for name in parts}
    return fits.people, {**seconds, rest: own.total("fit") - sum(seconds.values())}
