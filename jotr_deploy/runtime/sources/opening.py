"""Images, folders, globs, videos, cameras and URLs as one iterator of numbered frames."""

from __future__ import annotations

import glob
import re
import unicodedata
from functools import partial
from pathlib import Path
from urllib.error import URLError
from urllib.parse import unquote, urlsplit
from urllib.request import urlopen

from jotr_deploy.errors import SourceError
from jotr_deploy.runtime.sources.captures import (
    capture_of_camera,
    capture_of_file,
    capture_of_url,
    frame_count,
    name_of_url,
    shown,
)
from jotr_deploy.runtime.sources.frame_source import Frame, FrameSource
from jotr_deploy.runtime.sources.images import count_pictures, natural_order
from jotr_deploy.runtime.sources.live_stream import Stream
from jotr_deploy.runtime.sources.picture_kinds import HEAD_BYTES, is_motion_jpeg, kind_of_file, picture_kind
from jotr_deploy.runtime.sources.stills import Still, Stills, stills_in
from jotr_deploy.runtime.sources.video_file import Video
from jotr_deploy.runtime.sources.video_writer import VideoWriter

__all__ = ["Frame", "FrameSource", "VideoWriter", "open_source"]

STALL_S = 10.0
"""Time limit for a camera or a URL to answer, and for every frame after that."""
_MOST_BYTES = 1 << 28
"""Size limit for a picture at a URL."""
_ANIMATED = ("GIF", "PNG", "WebP", "AVIF")
_MOTION_JPEG = (".mjpeg", ".mjpg")
_PLAYED = ("GIF", "PNG", "JPEG")  # animations that FFmpeg reads completely


def open_source(
    path_or_url: str | Path,
    skipped: list[str] | None = None,
    *,
    every: int = 1,
    stall_s: float = STALL_S,
    upright: bool = False,
) -> FrameSource:
    """Open an image, a folder of images, a glob of images, a video file, a camera or a URL.

    Images and videos are told apart by content, not by suffix; an animation is a video. Folders and globs are in
    natural order (2 before 10). A number of up to three digits that is not a file is a camera. A URL is anything with
    `://` that OpenCV opens through FFmpeg, or a picture.

    Args:
        path_or_url: one of these.
        skipped: collects the names of unreadable frames, which are then left out; without it they raise an error.
        every: process every Nth frame: 0, every, 2 * every ...
        stall_s: time limit for a camera or a URL to answer, and for every frame after that.
        upright: as viewers display it: image files rotated by their EXIF data, and videos resampled to square pixels.
            Otherwise pixels are used as stored.

    Raises:
        SourceError: nothing there, or nothing readable in it.
        MissingDependency: an image format that needs an extra package.
    """
    if every < 1:
        raise ValueError(f"every={every}: must be 1 or more")
    name = str(path_or_url)
    if name.startswith("file://"):
        name = unquote(urlsplit(name).path)
    if "://" in name:
        return _open_url(name, skipped, every, stall_s, upright)
    path = Path(name)
    try:
        path = spelt_on_disk(path)
        if path.is_dir():
            stills, left_out = stills_in(path)
            return Stills("images", path.resolve().name, stills, skipped, every, upright, left_out)
        if path.is_file():
            return _open_file(path, skipped, every, upright)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})", "check the path and its permissions") from error
    if re.fullmatch(r"[0-9]{1,3}", name):
        index = int(name)
        return Stream(capture_of_camera(index), f"camera_{index}", f"camera {index}", every, stall_s)
    stills = [Still.of_file(match) for match in files_of_glob(path)]
    return Stills("images", name, stills, skipped, every, upright)


def _open_file(path: Path, skipped: list[str] | None, every: int, upright: bool) -> FrameSource:
    if path.stat().st_size == 0:
        raise SourceError(f"{path}: the file is empty", "give an image or a video")
    kind = kind_of_file(path)
    animated = kind in _ANIMATED and count_pictures(path.read_bytes(), str(path)) > 1
    if kind == "JPEG" and is_motion_jpeg(path.read_bytes()):
        if path.suffix.lower() not in _MOTION_JPEG:  # otherwise FFmpeg only gives the first picture
            raise SourceError(f"{path}: a sequence of JPEG pictures, that is a motion JPEG film", "call it .mjpeg")
        animated = True
    if animated and kind not in _PLAYED:
        raise SourceError(f"{path}: an animated {kind} picture, which is not supported", "save it as GIF or MP4")
    if kind is not None and not animated:
        return Stills("image", path.name, [Still.of_file(path)], None, every, upright)
    return Video(partial(capture_of_file, path, upright, animated), str(path), path.name, skipped, every)


def _open_url(url: str, skipped: list[str] | None, every: int, stall_s: float, upright: bool) -> FrameSource:
    """Open a URL; if its number of frames is unknown it is a live stream, which drops frames."""
    name = name_of_url(url)
    picture = _picture_behind(url, stall_s)
    if picture is not None:
        return Stills("image", name, [Still(name, shown(url), lambda: picture)], None, every, upright)
    capture = capture_of_url(url, stall_s, upright)
    if frame_count(capture) is None:
        return Stream(capture, name, shown(url), every, stall_s)
    capture.release()
    return Video(partial(capture_of_url, url, stall_s, upright), shown(url), name, skipped, every, stall_s)


def _picture_behind(url: str, limit_s: float) -> bytes | None:
    """The bytes of a picture on a web server; None if there is none, as FFmpeg gives better error messages.

    Raises:
        SourceError: no answer in time.
    """
    if not url.startswith(("http://", "https://")):
        return None
    try:
        with urlopen(url, timeout=limit_s) as answer:
            if answer.headers.get_content_maintype() in ("multipart", "video"):
                return None
            head = answer.read(HEAD_BYTES)
            if picture_kind(head) is None:
                return None
            return bytes(head + answer.read(_MOST_BYTES))
    except TimeoutError as error:
        raise _no_answer(url, limit_s) from error
    except URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise _no_answer(url, limit_s) from error
        return None
    except (OSError, ValueError):
        return None


def _no_answer(url: str, limit_s: float) -> SourceError:
    return SourceError(f"{shown(url)}: no answer within {limit_s:g} s", "check the address and the network")


def spelt_on_disk(path: Path) -> Path:
    """The intended file if its name is stored in another of Unicode's two forms of accented letters."""
    if path.exists():
        return path
    at = Path(path.anchor)
    for part in path.parts[1 if path.anchor else 0 :]:
        if not (at / part).exists() and at.is_dir():
            same = (each.name for each in at.iterdir() if _composed(each.name) == _composed(part))
            part = next(same, part)
        at /= part
    return at if at.exists() else path


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def files_of_glob(pattern: Path) -> list[Path]:
    """The files that match a glob, in natural order.

    Raises:
        SourceError: none, or not a glob.
    """
    if not glob.has_magic(str(pattern)):
        raise SourceError(
            f"{pattern}: no such file or folder",
            "give an image, a folder, a glob in quotes such as 'folder/*.png', a video, a camera number or a URL",
        )
    spellings = dict.fromkeys((str(pattern), *(unicodedata.normalize(form, str(pattern)) for form in ("NFC", "NFD"))))
    matches = {match for text in spellings for match in glob.glob(text, recursive=True)}  # noqa: PTH207 (Path.glob: no absolute)
    # Reading a link that leads nowhere says what is wrong.
    files = [path for path in map(Path, matches) if path.is_file() or (path.is_symlink() and not path.exists())]
    if not files:
        raise SourceError(f"{pattern}: no file matches", "check the pattern, and put it in quotes")
    return natural_order(files)
