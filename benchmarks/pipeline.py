"""Cost of a frame outside its networks, and the gain from overlapping the stages of frames.

jotr-deploy export --stand-in -o full && python benchmarks/pipeline.py full

First, the share of a frame that is not spent in a session (resizing, cropping, decoding of outputs, tracking,
smoothing), with detection by a network like YOLOX-s, joints by one like RTMPose-m (see shaped.py) and meshes by the
bundle's file. Then a stream with overlap against one without, interleaved: with sessions that wait as if for an
accelerator and use no CPU, and with the real ones, which `run` overlaps only on request.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
from shaped import like_rtmpose_m, like_yolox_s

from jotr_deploy.bundle import Bundle, open_bundle
from jotr_deploy.profiling.environment import environment, load_average
from jotr_deploy.profiling.timed_picture import default_scene
from jotr_deploy.runtime.body_session import open_body
from jotr_deploy.runtime.finding.detection import open_detector
from jotr_deploy.runtime.finding.people_source import DetectedPeople
from jotr_deploy.runtime.finding.pose import open_pose_network
from jotr_deploy.runtime.mesh import MeshNetwork
from jotr_deploy.runtime.motion.smoothing import Smoother, open_smoother
from jotr_deploy.runtime.motion.tracking import Tracker
from jotr_deploy.runtime.pipeline import Pipeline
from jotr_deploy.runtime.sessions import Session, open_session
from jotr_deploy.runtime.sources.images import read_image
from jotr_deploy.runtime.sources.opening import VideoWriter, open_source
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.spans import Spans
from jotr_deploy.visual.overlay import draw_people

FPS = 25.0
BOXES_PX = np.array([[150, 160, 260, 460], [300, 140, 420, 470], [430, 180, 540, 450]], np.float32)  # on the canvas
JOINTS = np.array(  # shares of width and height, in the order of COCO
    [[0.5, 0.12], [0.53, 0.1], [0.47, 0.1], [0.56, 0.12], [0.44, 0.12], [0.62, 0.26], [0.38, 0.26], [0.68, 0.4],
     [0.32, 0.4], [0.7, 0.53], [0.3, 0.53], [0.57, 0.54], [0.43, 0.54], [0.58, 0.72], [0.42, 0.72], [0.59, 0.9],
     [0.41, 0.9]]
)  # fmt: skip
AROUND = ("detect", "pose", "crop", "network", "track", "smooth")
WAITS_S = {"detector": 0.012, "pose": 0.008, "mesh": 0.02}


class Timed(Session):
    """Session that times the calls of another."""

    def __init__(self, inner: Session) -> None:
        self.path, self.inputs, self.outputs, self.inner = inner.path, inner.inputs, inner.outputs, inner
        self.seconds = 0.0

    def _run(self, feeds: dict[str, Any]) -> dict[str, Array]:
        start_s = time.perf_counter()
        out = self.inner(feeds)
        self.seconds += time.perf_counter() - start_s
        return out


class Waiting(Session):
    """Session that returns another's recorded result by batch size, after waiting as if for an accelerator."""

    def __init__(self, inner: Session, seconds: float) -> None:
        self.path, self.inputs, self.outputs, self.inner = inner.path, inner.inputs, inner.outputs, inner
        self.wait_s, self.known = seconds, dict[int, dict[str, Array]]()

    def _run(self, feeds: dict[str, Any]) -> dict[str, Array]:
        batch = len(next(iter(feeds.values())))
        if batch not in self.known:
            self.known[batch] = self.inner(feeds)
        time.sleep(self.wait_s)
        return {name: array.copy() for name, array in self.known[batch].items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    load = load_average()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bundle = open_bundle(arguments.bundle)
        films = {px: film(folder / f"{px}.mp4", px, arguments.frames) for px in (1280, 640)}
        files = {
            "detector": like_yolox_s(folder / "detector.onnx", BOXES_PX),
            "pose": like_rtmpose_m(folder / "pose.onnx", JOINTS),
            "mesh": bundle.file("mesh"),
        }
        sessions = {role: stack.enter_context(open_session(file, device="cpu")) for role, file in files.items()}
        shares(bundle, sessions, films[1280])
        waiting = {role: Waiting(session, WAITS_S[role]) for role, session in sessions.items()}
        overlap("sessions that wait", bundle, waiting, films[640], arguments.rounds)
        overlap("sessions on this processor", bundle, sessions, films[640], arguments.rounds)
    print(environment(None, False, load))


def film(path: Path, width: int, frames: int) -> Path:
    """Video of the package's picture, shifted a little from frame to frame."""
    with default_scene() as (picture, _):
        image = read_image(picture)
    size = (width, width * 9 // 16)
    with VideoWriter(path, FPS) as writer:
        for frame in range(frames):
            at = 4 * frame % 60
            writer.write(cv2.resize(image[at : at + 540, : image.shape[1]], size))
    return path


def made(bundle: Bundle, sessions: dict[str, Any], spans: Spans, stack: ExitStack) -> tuple[Pipeline, Smoother]:
    """Complete pipeline: detection, tracking, recovery, smoothing."""
    detector = open_detector(sessions["detector"], {"format": "yolox"})
    people = DetectedPeople(
        detector,
        open_pose_network(sessions["pose"], {"skeleton": "coco17"}),
        spans,
        crop_factor=bundle.manifest.model.crop_factor,
    )
    smoother = open_smoother("one-euro", stack.enter_context(open_body(bundle)), FPS)
    return Pipeline(MeshNetwork(sessions["mesh"]), people, spans), smoother


def go(made: tuple[Pipeline, Smoother], film: Path, faces: Array, overlapped: bool) -> int:
    """Draw and write every frame; returns the number of people."""
    (pipeline, smoother), people_seen = made, 0
    with (
        open_source(film) as source,
        VideoWriter(film.with_name("drawn.mp4"), FPS) as writer,
        closing(pipeline.stream(source, overlapped, None, Tracker(FPS), smoother)) as stream,
    ):
        for frame, people in stream:
            people_seen += len(people)
            with pipeline.spans("draw", frame.index):
                drawn = draw_people(frame.image_bgr, people, faces)
            with pipeline.spans("write", frame.index):
                writer.write(drawn)
    return people_seen


def shares(bundle: Bundle, sessions: dict[str, Session], film: Path) -> None:
    """Print the time that a frame spends outside its networks."""
    faces, timed = np.load(bundle.file("faces")), {role: Timed(session) for role, session in sessions.items()}
    with ExitStack() as stack:
        go(made(bundle, timed, Spans(), stack), film, faces, False)  # once to warm up
    inside_s = -sum(each.seconds for each in timed.values())
    with ExitStack() as stack:
        spans = Spans()
        people = go(made(bundle, timed, spans, stack), film, faces, False)
    inside_s += sum(each.seconds for each in timed.values())
    frames, frame_s = len(spans.seconds["decode"]), sum(spans.total(stage) for stage in AROUND)
    print(f"1280 x 720, {people / frames:g} people a frame, {frames} frames, milliseconds a frame, means")
    for stage in spans.seconds:
        apart = "" if stage in AROUND else "   (apart)"
        print(f"  {stage:8s} {1000 * spans.total(stage) / frames:8.2f}{apart}")
    print(f"  networks {1000 * inside_s / frames:8.2f}")
    around_s = frame_s - inside_s
    print(f"  around them {1000 * around_s / frames:.2f} of {1000 * frame_s / frames:.2f}: {around_s / frame_s:.1%}\n")


def overlap(name: str, bundle: Bundle, sessions: dict[str, Any], film: Path, rounds: int) -> None:
    """Print the ratio of interleaved times without and with overlap."""
    faces, seconds = np.load(bundle.file("faces")), defaultdict(list)
    for _ in range(rounds + 1):  # the first warms up
        for overlapped in (False, True):
            with ExitStack() as stack:
                pipeline = made(bundle, sessions, Spans(), stack)
                start_s = time.perf_counter()
                go(pipeline, film, faces, overlapped)
                seconds[overlapped].append(time.perf_counter() - start_s)
    ratios = [plain / both for plain, both in zip(seconds[False][1:], seconds[True][1:], strict=True)]
    plain, both = median(seconds[False][1:]), median(seconds[True][1:])
    print(
        f"overlap, {name}: {median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f}); "
        f"{plain:.2f} s without, {both:.2f} s with, medians of {rounds}"
    )


if __name__ == "__main__":
    main()
