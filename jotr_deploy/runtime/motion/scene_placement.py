"""The stage after the mesh network: people are placed before the picture's camera and aligned to their joints."""

from __future__ import annotations

import numpy as np

from jotr_deploy.geometry.scene_frame import before_camera
from jotr_deploy.people import People
from jotr_deploy.runtime.motion.alignment.aligner import Aligner
from jotr_deploy.runtime.sources.frame_source import Frame
from jotr_deploy.runtime.sources.scene_camera import CameraChoice
from jotr_deploy.support.spans import Spans


class Standing:
    """Places the people of one stream, or one picture, in the scene; `aligner` remembers the people of a stream."""

    def __init__(self, camera: CameraChoice, aligner: Aligner | None = None, spans: Spans | None = None) -> None:
        self._camera, self._aligner, self._spans = camera, aligner, spans or Spans()

    def __call__(self, frame: Frame, people: People) -> People:
        """The people of a frame, placed in the scene; the frame's image is undistorted.

        Raises:
            SourceError: the camera file is for pictures of another aspect ratio.
        """
        camera = self._camera(frame)
        if camera is not None:
            with self._spans("place", frame.index):
                people = before_camera(people, camera.focal_px, np.asarray(camera.principal_px))
        if self._aligner is not None:
            with self._spans("align", frame.index):
                people = self._aligner(people, frame.index)
        return people
