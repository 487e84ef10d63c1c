"""Image to `People`: who is there, their crops, their meshes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from jotr_deploy.people import People
from jotr_deploy.runtime.crops import make_crops
from jotr_deploy.runtime.mesh import MeshNetwork
from jotr_deploy.runtime.people_source import PeopleSource
from jotr_deploy.runtime.video import Frame, FrameSource
from jotr_deploy.spans import Spans

Array = NDArray[Any]


class Pipeline:
    """Stages called in turn; each is usable alone.

    >>> with open_session(bundle.file("mesh")) as session, open_source("photo.jpg") as source:
    ...     pipeline = Pipeline(MeshNetwork(session), open_people_source(source, keypoints=Path("photo.json")))
    ...     for frame, people in pipeline.stream(source):
    ...         print(frame.name, len(people))  # doctest: +SKIP
    """

    def __init__(self, mesh: MeshNetwork, people_source: PeopleSource, spans: Spans | None = None) -> None:
        self.mesh, self.people_source = mesh, people_source
        self.spans = spans or Spans()

    def __call__(self, image_bgr: Array, name: str = "", frame: int = 0) -> People:
        """Recover everyone of one (H, W, 3) uint8 image; name and number only matter to files of joints or boxes."""
        with self.spans("people"):
            detections = self.people_source(image_bgr, name, frame)
        with self.spans("crop"):
            crops = make_crops(image_bgr, detections, self.mesh.crop_side)
        with self.spans("network"):
            return self.mesh(crops, detections)

    def stream(self, source: FrameSource) -> Iterator[tuple[Frame, People]]:
        """Every frame of a source with its people, in order."""
        frames = iter(source)
        while True:
            with self.spans("decode"):
                frame = next(frames, None)
            if frame is None:
                return
            yield frame, self(frame.image_bgr, frame.name, frame.index)
