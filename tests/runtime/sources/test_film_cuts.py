"""Parts of a film: read from the middle where its frames are even in time, and counted from the start elsewhere."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from mp4_boxes import with_steps
from pictures import noise

from jotr_deploy.runtime.sources.opening import VideoWriter, open_source
from jotr_deploy.runtime.sources.video_file import Video

FRAMES = 40


def film(path: Path, variable: bool = False) -> Path:
    with VideoWriter(path, 8.0) as writer:
        for seed in range(FRAMES):
            writer.write(noise(seed))
    if variable:
        path.write_bytes(with_steps(path.read_bytes(), [(1, 1 + (frame % 5 == 3)) for frame in range(FRAMES)]))
    return path


@pytest.mark.parametrize("variable", [False, True])
@pytest.mark.parametrize("every", [1, 3])
def test_parts_are_the_film(tmp_path: Path, variable: bool, every: int) -> None:
    path = film(tmp_path / "a.mp4", variable)
    with open_source(path, every=every) as source:
        whole = [(frame.index, frame.name, frame.time_s, frame.image_bgr.tobytes()) for frame in source]
    found, seams = [], []
    for first, end in ((0, 10), (10, 20), (20, 37), (37, 50), (50, None)):
        with open_source(path, every=every) as source:
            assert isinstance(source, Video)
            assert source.probe() is not variable
            source.first, source.end, source.even = first, end, not variable
            found += [(frame.index, frame.name, frame.time_s, frame.image_bgr.tobytes()) for frame in source]
            seams.append((source.seam, source.next_seam))
    assert found == whole
    assert all(before[1] == after[0] for before, after in pairwise(seams))
    numbers = [None if seam is None else seam[0] for seam, _ in seams]
    assert numbers == {1: [None, 10, 20, 37, None], 3: [None, 12, 21, 39, None]}[every]


def test_seeking_is_not_believed_where_times_are_uneven(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", variable=True)
    with open_source(path) as source:
        assert isinstance(source, Video)
        whole = [frame.image_bgr.tobytes() for frame in source]
        for first in range(1, FRAMES, 7):
            source.first, source.even = first, True
            rest = [frame.image_bgr.tobytes() for frame in source]
            seam = source.seam
            source.even = False
            counted = [frame.image_bgr.tobytes() for frame in source]
            assert counted == whole[first:]
            assert rest == counted or seam != source.seam
