"""A clip as a file of people, for the tests of the viewer."""

from __future__ import annotations

import numpy as np
from crowd import FACES, crowd

from jotr_deploy.people import People
from jotr_deploy.visual.result_files import PeopleFile, PeopleWriter

SIZE = (640, 480)
LEFT, RIGHT = (40, 100, 240, 300), (400, 60, 500, 160)


def recording(frames, count=None, faces=FACES, labels=("stand-in body",)):
    """The people of numbered frames as a file of people holds them."""
    people = People.concatenate(list(frames.values()))
    frame = np.repeat(np.array(list(frames), np.int64), [len(part) for part in frames.values()])
    numbers = np.arange(max(frames, default=-1) + 1 if count is None else count)
    return PeopleFile(people, frame, numbers, faces.astype(np.int32), "clip.mp4", SIZE, 10.0, labels, 256)


CLIP = {0: crowd([LEFT]), 1: crowd([LEFT, RIGHT], z_m=[40.0, 44.0]), 3: crowd([RIGHT])}  # nobody in frame 2


def write(path, content):
    about = {
        name: getattr(content, name) for name in ("faces", "source", "image_size_px", "fps", "labels", "crop_side")
    }
    with PeopleWriter(path, **about) as writer:
        for index in content.numbers.tolist():
            writer.append(index, content.at(index))


def plain(grey, width=64, height=48):
    """A picture of one grey."""
    return np.full((height, width, 3), grey, np.uint8)
