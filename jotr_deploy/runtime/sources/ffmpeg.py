"""Films encoded by the program `ffmpeg`, if it is on the PATH: H.264 or VP9, which browsers play.

The program is optional and separate: without it OpenCV writes the film. Frames are sent to it through a pipe.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from threading import Timer
from typing import IO, Any

import numpy as np

from jotr_deploy.support.aliases import Array
from jotr_deploy.support.writing import discard

ANSWER_S = 30.0
"""Time limit for the list of encoders, and for trying one."""
FRAME_S = 120.0
"""Time limit for accepting one frame."""
ENDING_S = 5.0
"""Time limit for ending after it has closed the pipe."""
END_S = 600.0
"""Time limit for completing a film, when its index moves to the front."""
PIPE_BYTES = 1 << 20
"""Size of the pipe to `ffmpeg` if it can be had, so that a frame passes in few pieces."""

# Quality options for the encoders that need them. Others, on graphics cards, get a bit rate.
_QUALITY = {
    # Compared with the preset superfast, which also uses B-frames: about 0.6 of the time, 10 to 40 % more bytes.
    "libx264": (
        *("-preset", "ultrafast", "-crf", "21"),
        *("-x264-params", "no-deblock=0:8x8dct=1:subme=1"),
    ),
    "libvpx-vp9": ("-crf", "32", "-b:v", "0", "-deadline", "realtime", "-cpu-used", "6", "-row-mt", "1"),
}
# What ffmpeg says, or what ended it, and the remedy; the first that matches.
_REMEDIES = (
    (r"no space left|quota exceeded", "free disk space, or choose another -o"),
    (r"file too large|SIGXFSZ", "allow larger files there, or choose another -o"),
    (r"SIGKILL|cannot allocate memory", "free memory, or draw a smaller picture with --overlay-scale"),
    (r"", "mend that ffmpeg, or remove it from the PATH: OpenCV then writes the video"),
)
_BITS_PER_PIXEL = 0.15
_LEAST_BITS_PER_S = 1_000_000
# Colour metadata, so that players show the film in its intended colours.
_COLOURS = (
    *("-vf", "scale=out_color_matrix=bt709:out_range=tv", "-pix_fmt", "yuv420p"),
    *("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"),
)


@dataclass(frozen=True)
class FFmpeg:
    """An `ffmpeg` with its encoders for films that browsers play, best first."""

    program: str
    encoders: tuple[str, ...]

    def encoder_for(self, size_px: tuple[int, int], fps: float) -> str | None:
        """The first encoder that works at this size; hardware encoders are listed even without the hardware."""
        with tempfile.TemporaryDirectory(prefix="jotr-deploy-film-") as folder:
            for encoder in self.encoders:
                target = Path(folder) / f"{encoder}.mp4"
                frames = bytes(2 * 3 * size_px[0] * size_px[1])
                command = film_command(self.program, encoder, target, size_px, fps)
                if _answer(command, frames) is not None and target.is_file() and target.stat().st_size:
                    return encoder
        return None


class FilmByFFmpeg:
    """A film being written: `write` its frames in order, then `close`, or `abandon` it on a failure."""

    def __init__(self, ffmpeg: FFmpeg, encoder: str, path: Path, size_px: tuple[int, int], fps: float) -> None:
        """Start a film at `path`, which ends in .mp4; width and height are even."""
        self._path, self._said = path, tempfile.TemporaryFile()  # noqa: SIM115 (closed at the end of the film)
        self._waited_s: float | None = None  # in vain, after which the program was killed
        command = film_command(ffmpeg.program, encoder, path, size_px, fps)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._said, **_OF_ITS_OWN
        )
        _widen(self._pipe)

    def write(self, image_bgr: Array) -> None:
        """Append (H, W, 3) uint8 BGR of the film's size.

        Raises:
            OSError: the program has ended, or accepts no more data.
        """
        try:
            with self._killed_after(FRAME_S):
                self._pipe.write(np.ascontiguousarray(image_bgr).data)
        except OSError:
            try:  # its own exit code tells more than that of a kill
                self._process.wait(ENDING_S)
            except subprocess.TimeoutExpired:
                self._waited_s = ENDING_S
            raise

    def close(self) -> str | None:
        """Complete the film; returns the error, if any."""
        with self._killed_after(END_S):
            with suppress(OSError):  # it ended early, as its exit code will tell
                self._pipe.close()
            code = self._process.wait()
        said = self._last_line()
        self._said.close()
        if code and self._waited_s is not None:
            return f"it did not answer for {self._waited_s:g} s"
        return (said or _ending(code)) if code else None

    def abandon(self) -> str:
        """End the program, remove its output, and return its last message."""
        self._process.kill()
        said = self.close() or ""
        discard(self._path)
        return said

    @contextmanager
    def _killed_after(self, limit_s: float) -> Iterator[None]:
        def kill() -> None:
            self._waited_s = limit_s
            self._process.kill()

        timer = Timer(limit_s, kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    @property
    def _pipe(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _last_line(self) -> str:
        self._said.seek(0)
        lines = self._said.read()[-4000:].decode("utf-8", "replace").splitlines()
        return next(("".join(filter(str.isprintable, line)).strip() for line in reversed(lines) if line.strip()), "")


def _widen(pipe: IO[bytes]) -> None:
    """Make a pipe larger, if the system and the user's limits allow it."""
    with suppress(ImportError, AttributeError, OSError):  # no POSIX; no Linux; too many or too large for this user
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


# Ctrl-C ends a run after writing the results so far: it must not end the program that writes them.
_OF_ITS_OWN: dict[str, Any] = (
    {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    if hasattr(subprocess, "CREATE_NEW_PROCESS_GROUP")
    else {"start_new_session": True}
)


def find_ffmpeg() -> FFmpeg | None:
    """The `ffmpeg` on the PATH; None if there is none, it does not work, or it has no encoder for browsers."""
    program = shutil.which("ffmpeg")
    if program is None:
        return None
    listed = _answer([program, "-hide_banner", "-loglevel", "error", "-encoders"])
    if listed is None:
        return None
    names = re.findall(r"^\s*V[A-Z.]{5}\s+(\S+)", listed.decode("utf-8", "replace"), re.M)
    wanted = ("libx264", "libopenh264", *(name for name in names if name.startswith("h264_")), "libvpx-vp9")
    encoders = tuple(name for name in wanted if name in names)
    return FFmpeg(program, encoders) if encoders else None


def film_command(program: str, encoder: str, path: Path, size_px: tuple[int, int], fps: float) -> list[str]:
    """The command that encodes raw frames from its standard input as a film."""
    rate = Fraction(fps).limit_denominator(100_000)
    bits_per_s = max(_LEAST_BITS_PER_S, round(_BITS_PER_PIXEL * size_px[0] * size_px[1] * fps))
    return [
        program, "-hide_banner", "-loglevel", "error", "-y",
        "-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{size_px[0]}x{size_px[1]}", "-r", str(rate), "-i", "pipe:0",
        "-c:v", encoder, *_QUALITY.get(encoder, ("-b:v", str(bits_per_s))), *_COLOURS,
        "-movflags", "+faststart", "-f", "mp4", f"file:{path.absolute()}",
    ]  # fmt: skip


def codec_of(encoder: str) -> str:
    """The codec's own name."""
    return "VP9" if "vp9" in encoder else "H.264"


def _answer(command: Sequence[str], given: bytes = b"") -> bytes | None:
    """The output of a program; None if it cannot be started, fails, or does not end in time."""
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=ANSWER_S, check=True, **_OF_ITS_OWN)
    except (OSError, subprocess.SubprocessError):
        return None
    return bytes(done.stdout)


def remedy_for(said: str) -> str:
    """Remedy for an error that `FilmByFFmpeg.close` or `abandon` returned."""
    return next(remedy for pattern, remedy in _REMEDIES if re.search(pattern, said, re.I))


def _ending(code: int) -> str:
    """Exit code of a program in words; those below zero are signals."""
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"exit code {code}"
