"""Writing of frames to a video file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Protocol

import cv2

from jotr_deploy.errors import OutputError, SourceError
from jotr_deploy.runtime.sources.captures import capture_of_file, frame_count, released
from jotr_deploy.runtime.sources.ffmpeg import FFmpeg, FilmByFFmpeg, codec_of, remedy_for
from jotr_deploy.runtime.sources.frame_source import size_of
from jotr_deploy.runtime.sources.images import quiet_opencv
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.writing import aside_of, discard, written_aside


class _Film(Protocol):
    """A film being written."""

    def write(self, image_bgr: Array) -> None:
        """Append (H, W, 3) uint8 BGR of the film's size; raises OSError on failure."""
        ...

    def close(self) -> str | None:
        """Complete the film; returns the error, if one is known."""
        ...

    def abandon(self) -> str:
        """Stop, remove the film, and return the last message about it."""
        ...


class _FilmByOpenCV:
    """MPEG-4 Part 2, which video players show and browsers do not. OpenCV does not report a full disk."""

    def __init__(self, path: Path, size_px: tuple[int, int], fps: float) -> None:
        self._path = path
        with quiet_opencv():
            self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size_px)
        self.opened = self._writer.isOpened()

    def write(self, image_bgr: Array) -> None:
        self._writer.write(image_bgr)

    def close(self) -> str | None:
        self._writer.release()
        return None

    def abandon(self) -> str:
        self._writer.release()
        discard(self._path)
        return ""


class VideoWriter:
    """Writes frames to an mp4 file, which appears whole when `with` ends without an error, and not at all otherwise.

    With `ffmpeg` the film plays in browsers, if one of its encoders works at this size; else OpenCV writes it.

    The first frame sets the size. Odd sizes grow by one pixel, as the codec requires even ones. Later frames of
    another size are scaled to fit, with their aspect ratio kept and black bars added.
    """

    def __init__(self, path: Path, fps: float, ffmpeg: FFmpeg | None = None) -> None:
        if not fps > 0:
            raise ValueError(f"a video needs a frame rate above 0, not {fps}")
        self.path, self.fps = path, fps
        self.count = 0  # frames in the file
        self.codec: str | None = None  # and the program that writes it; None before the first frame
        self._ffmpeg = ffmpeg
        self._film: _Film | None = None
        self._size_px = (0, 0)
        self._start_s: float | None = None
        self._told = False

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, image_bgr: Array, time_s: float | None = None) -> None:
        """Append (H, W, 3) uint8 BGR.

        With its time it is repeated as often as needed to reach that time at `fps`, which is not at all for frames that
        come faster: a stream then plays at its original speed.

        Raises:
            OutputError: the file cannot be opened, or no longer be written.
        """
        if self._film is None:
            self._film = self._opened(size_of(image_bgr))
            self._start_s = time_s
        if size_of(image_bgr) != self._size_px:
            self._tell(size_of(image_bgr))
            image_bgr = fitted(image_bgr, self._size_px)
        width, height = self._size_px
        even = cv2.copyMakeBorder(image_bgr, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        since_s = None if time_s is None else time_s - (self._start_s or 0.0)
        for _ in range(1 if since_s is None else round(since_s * self.fps) + 1 - self.count):
            try:
                self._film.write(even)
            except OSError:
                said, self._film = self._film.abandon(), None
                raise self._broken(said) from None
            self.count += 1

    def _opened(self, size_px: tuple[int, int]) -> _Film:
        width, height = self._size_px = size_px
        even = (width + width % 2, height + height % 2)
        aside = aside_of(self.path)
        if self._ffmpeg is not None and self.path.parent.is_dir():
            encoder = self._ffmpeg.encoder_for(even, self.fps)
            if encoder is not None:
                self.codec = f"{codec_of(encoder)} by ffmpeg"
                return FilmByFFmpeg(self._ffmpeg, encoder, aside, even, self.fps)
        self.codec = "mp4v by OpenCV"
        film = _FilmByOpenCV(aside, even, self.fps)
        if not film.opened:
            raise OutputError(
                f"{self.path}: no video of {_text(size_px)} px can be opened for writing",
                "give a name that ends in .mp4 in an existing, writable folder; at most 8190 px per side",
            )
        return film

    def _broken(self, said: str) -> OutputError:
        why = f" ({said})" if said else ""
        return OutputError(
            f"{self.path}: ffmpeg ended after {self.count} frames{why}",
            remedy_for(said),
        )

    def _tell(self, size_px: tuple[int, int]) -> None:
        if not self._told:
            logging.getLogger("jotr_deploy").warning(
                "%s: the picture changes from %s to %s px; such frames are scaled to fit the video's size",
                *(self.path, _text(self._size_px), _text(size_px)),
            )
        self._told = True

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        film, self._film = self._film, None
        if film is None:
            return
        if kind is not None:
            film.abandon()
            return
        with written_aside(self.path) as aside:
            fault = film.close()
            if fault is not None:
                raise self._broken(fault)
            self._check(aside)

    def _check(self, aside: Path) -> None:
        try:
            with released(capture_of_file(aside)) as capture:
                arrived = frame_count(capture) or 0
        except SourceError:
            arrived = 0
        if arrived != self.count:
            raise OutputError(f"{self.path}: only {arrived} of {self.count} frames could be written", "free disk space")


def fitted(image_bgr: Array, size_px: tuple[int, int]) -> Array:
    """An image (H, W, 3) scaled to fit a size (width, height), aspect ratio kept, centred between black bars."""
    (width, height), (old_width, old_height) = size_px, size_of(image_bgr)
    scale = min(width / old_width, height / old_height)
    new_width, new_height = max(1, round(scale * old_width)), max(1, round(scale * old_height))
    left, top = (width - new_width) // 2, (height - new_height) // 2
    image_bgr = cv2.resize(
        image_bgr, (new_width, new_height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    borders = (top, height - new_height - top, left, width - new_width - left)
    return cv2.copyMakeBorder(image_bgr, *borders, cv2.BORDER_CONSTANT, value=(0, 0, 0))


def _text(size_px: tuple[int, int]) -> str:
    return f"{size_px[0]} x {size_px[1]}"
