"""A bundle loaded for many requests at once: every network is shared, and warmed before the first request."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import jotr_deploy
from jotr_deploy.body.exported import NETWORK
from jotr_deploy.bundle import Bundle
from jotr_deploy.people import People
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.finding.people_source import PeopleBy, PeopleSource
from jotr_deploy.runtime.finding.region import MostPeople
from jotr_deploy.runtime.loaded_model import Model
from jotr_deploy.runtime.sessions import Session, TensorSpec, open_session
from jotr_deploy.runtime.sources.frame_source import Frame, size_of
from jotr_deploy.runtime.sources.images import decode_image, read_image
from jotr_deploy.runtime.sources.scene_camera import PUBLISHED
from jotr_deploy.serving.answer_formats import GLB, JPEG, NPZ, Wanted, as_json
from jotr_deploy.serving.batched_session import BatchedSession
from jotr_deploy.serving.picture_limits import check_picture
from jotr_deploy.serving.request_context import RequestContext, RequestSpans
from jotr_deploy.serving.server_metrics import ServerMetrics
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.processor import usable_cores
from jotr_deploy.visual.result_files import PeopleFile

NAME = "the picture"
"""Name of every picture in messages: a request has none."""
ON_GPU = 16
"""Pictures worked on at once where the mesh network runs on a GPU: enough to fill its batches."""
BODY = "body"


@dataclass(frozen=True)
class ModelOptions:
    """How the networks are loaded, and limits of a request's work."""

    file: str | None = None
    device: str = "auto"
    threads: int | None = None
    people: PeopleBy = "auto"
    align: bool | None = None
    at_once: int | None = None  # pictures; None leaves it to the machine
    max_pixels: int = 50_000_000
    max_people: int = 100


@dataclass(frozen=True)
class ServedNetwork:
    """A network of the bundle as clients see it: its sizes are those that the pipeline uses."""

    session: BatchedSession
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]


@dataclass
class Counted:
    """The surest people of a picture, and how many others there were."""

    people_source: PeopleSource
    limit: int
    left_out: int = field(default=0, init=False)

    def __call__(self, image_bgr: Array, name: str, frame: int) -> Detections:
        """People of a picture, the surest `limit` of them."""
        found = self.people_source(image_bgr, name, frame)
        kept = MostPeople(lambda image_bgr, name, frame: found, self.limit)(image_bgr, name, frame)
        self.left_out = len(found) - len(kept)
        return kept


class ServedModel:
    """One `Model` for all threads of the server: its sessions are `BatchedSession`s, and everything else is pure."""

    def __init__(self, bundle: Bundle, options: ModelOptions, metrics: ServerMetrics) -> None:
        """Nothing is loaded yet."""
        self.bundle, self.options, self._metrics = bundle, options, metrics
        self.networks: dict[str, BatchedSession] = {}
        self.served: dict[str, ServedNetwork] = {}
        self.loaded = False
        self._model: Model | None = None
        self._lock = threading.Lock()

    @property
    def model(self) -> Model:
        """The loaded model."""
        assert self._model is not None, "loaded"
        return self._model

    def load(self) -> None:
        """Open the networks, run the pipeline once, and warm every batch size.

        Raises:
            JotrDeployError: a bundle or a machine that cannot be used.
        """
        import cv2

        cv2.setNumThreads(1)  # requests work in parallel already
        options = self.options
        self._model = model = Model(
            self.bundle, file=options.file, device=options.device, threads=options.threads, people=options.people,
            align=options.align, spans=RequestSpans(), opener=self._open,
        )  # fmt: skip
        scene_bgr = read_image(Path(jotr_deploy.__file__).parent / "visual" / "scene.jpg")
        model(scene_bgr)
        height, width = scene_bgr.shape[:2]
        model(scene_bgr, boxes=[[width / 4, height / 4, width / 2, height - 1]])  # the pose network of given boxes
        for network in self.networks.values():
            network.warm()
        self.served = {role: _served(network) for role, network in self.networks.items() if role != BODY}
        _ = model.faces
        self.pool = ThreadPoolExecutor(self.at_once, "picture")
        self.loaded = True

    @property
    def at_once(self) -> int:
        """Number of pictures worked on at once."""
        if self.options.at_once is not None:
            return self.options.at_once
        return ON_GPU if self.networks["mesh"].on_gpu else usable_cores() + 1

    def fault(self, stalled_s: float) -> str | None:
        """Why no request can be served now; None if they can.

        Args:
            stalled_s: time after which a call of a network counts as hanging.
        """
        if not self.loaded:
            return "the networks are being loaded"
        for role, network in self.networks.items():
            if not network.alive:
                return f"the network {role} has stopped"
            if network.busy_s > stalled_s:
                return f"the network {role} does not answer"
        return None

    def close(self) -> None:
        """Free the networks."""
        if self.loaded:
            self.pool.shutdown(wait=False, cancel_futures=True)
        if self._model is not None:
            self._model.close()

    def decoded(self, data: bytes, context: RequestContext) -> Array:
        """The picture of a file, upright, (H, W, 3) uint8 BGR.

        Raises:
            Refused: not a picture, or one beyond the limits.
            SourceError: a damaged one.
        """
        check_picture(data, self.options.max_pixels)
        context.check()
        with self.model.spans("decode"):
            return decode_image(data, NAME, upright=True)

    def people(self, image_bgr: Array, data: bytes | None, most: int | None) -> tuple[People, int]:
        """Everybody in a picture, and how many were left out because of `most` or of the server's limit."""
        limit = self.options.max_people
        finder = Counted(self.model.people_source(), limit if most is None else min(most, limit))
        people = self.model(image_bgr, finder=finder, file=data)
        self._metrics.people.inc(len(people))
        return people, finder.left_out

    def people_in(self, image_bgr: Array, data: bytes | None, boxes_px: Array) -> People:
        """The people in these boxes (N, 4).

        Raises:
            KeypointFileError: not boxes.
        """
        people = self.model(image_bgr, boxes=boxes_px, file=data)
        self._metrics.people.inc(len(people))
        return people

    def answer(self, data: bytes, wanted: Wanted, most: int | None, context: RequestContext) -> bytes:
        """The answer to a picture, in the format that the client wants."""
        image_bgr = self.decoded(data, context)
        people, left_out = self.people(image_bgr, data, most)
        context.check()
        recording = self.recording(image_bgr, data, people, left_out)
        start_s = time.perf_counter()
        if wanted.media_type == NPZ:
            from jotr_deploy.visual.result_bytes import npz_bytes

            content = npz_bytes(recording, wanted.vertices or not recording.mesh_sha256)
        elif wanted.media_type == GLB:
            from jotr_deploy.visual.gltf import glb_bytes

            content = glb_bytes(recording)
        elif wanted.media_type == JPEG:
            import cv2

            drawn_bgr = self.model.draw(image_bgr, people)
            content = cv2.imencode(".jpg", drawn_bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        else:
            stages = {stage: round(1000 * took_s, 2) for stage, took_s in context.stages_s.items()}
            facts = {"skeleton": "smpl30", "left_out": left_out, "ms": stages}
            content = as_json(recording, wanted, facts)
        self.model.spans.record("encode", 0, start_s)
        return content

    def recording(self, image_bgr: Array, data: bytes | None, people: People, left_out: int) -> PeopleFile:
        """The people of one picture with everything that belongs beside them."""
        model = self.model
        image_bgr = model.camera.undistorted(image_bgr) if model.camera.bends else image_bgr
        camera = model.camera(Frame(0, NAME, image_bgr, path=data))
        mesh = next((f.sha256 for f in self.bundle.manifest.files if (f.role, f.name) == ("mesh", NETWORK)), "")
        return PeopleFile(
            people=people,
            frame=np.zeros(len(people), np.int64),
            numbers=np.zeros(1, np.int64),
            faces=model.faces,
            source="picture",
            image_size_px=size_of(image_bgr),
            fps=0.0,
            labels=model.labels,
            crop_side=self.bundle.manifest.model.crop_side,
            names=("picture",),
            times_s=np.full(1, np.nan),
            mesh_sha256=mesh,
            facts={
                "networks": model.files_used,
                "camera": [PUBLISHED if camera is None else camera.source],
                "skeleton": model.skeleton,
                "left_out": left_out,
            },
        )

    def _open(self, role: str, path: Path, device: str, threads: int | None) -> Session:
        def opened() -> Session:
            return open_session(path, device=device, threads=threads, spinning=False)

        with self._lock:
            name = role if role not in self.networks else f"{role}_of_boxes"  # a second pose network is for given boxes
            self.networks[name] = session = BatchedSession(opened, self._metrics.observer(name))
        return session


def _served(session: BatchedSession) -> ServedNetwork:
    """The tensors of a network, with the sizes of the pipeline's feeds in place of open ones."""
    sample = session.sample or {}

    def fixed(name: str, spec: TensorSpec) -> TensorSpec:
        if name not in sample or isinstance(spec.shape[0], int):
            return spec
        return TensorSpec(spec.dtype, (spec.shape[0], *sample[name].shape[1:]))

    inputs = {name: fixed(name, spec) for name, spec in session.inputs.items()}
    return ServedNetwork(session, inputs, dict(session.outputs))


def wire_shape(spec: TensorSpec) -> list[int]:
    """A shape in the Open Inference Protocol: -1 for an open size."""
    return [size if isinstance(size, int) else -1 for size in spec.shape]


def checked_feeds(network: ServedNetwork, feeds: dict[str, Any], most_rows: int) -> dict[str, Array]:
    """Feeds of a client, in the order of the network's inputs.

    Raises:
        ValueError: with what is wrong.
    """
    wanted = ", ".join(f"{name} {spec.dtype.name} {wire_shape(spec)}" for name, spec in network.inputs.items())
    if feeds.keys() != network.inputs.keys():
        raise ValueError(f"the inputs are {', '.join(sorted(map(repr, feeds)))[:200]}; this network takes {wanted}")
    rows = {len(array) if array.ndim else 0 for array in feeds.values()}
    for name, spec in network.inputs.items():
        shape, array = wire_shape(spec), feeds[name]
        alike = len(shape) == array.ndim and all(w in (-1, s) for w, s in zip(shape, array.shape, strict=True))
        if array.dtype != spec.dtype or not alike:
            raise ValueError(f"input {name} is {array.dtype.name} {list(array.shape)}; this network takes {wanted}")
    if len(rows) != 1 or not 1 <= min(rows) <= most_rows:
        raise ValueError(f"the inputs have {sorted(rows)} rows; give 1 to {most_rows}, equally many for every input")
    return {name: feeds[name] for name in network.inputs}
