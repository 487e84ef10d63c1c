"""Camera intrinsics and distortion from a file in OpenCV's `FileStorage` format: YAML, XML or JSON."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jotr_deploy.errors import SourceError
from jotr_deploy.runtime.sources.images import quiet_opencv

# Keys in lower case, without underscores.
MATRIX = re.compile(r"k|mtx|matrix|cameramatrix|intrinsics?|intrinsic(s?)matrix")
DISTORTION = re.compile(r"d|dist(?!ortionmodel).*")
WIDTH, HEIGHT, FISHEYE = (re.compile(key) for key in ("(image)?width", "(image)?height", "fisheyemodel"))
MODEL = re.compile("(distortion|camera)?model")
COUNTS = (0, 4, 5, 8, 12, 14)
"""Numbers of distortion coefficients that OpenCV's pinhole model may have."""
_MOST_BYTES, _MOST_NESTED = 1 << 16, 32
_REMEDY = "give a file with camera_matrix (3 x 3) and distortion_coefficients, as OpenCV's calibration writes it"


@dataclass(frozen=True)
class CameraFile:
    """A calibrated camera."""

    path: Path
    focal_px: tuple[float, float]  # horizontal and vertical
    principal_px: tuple[float, float]
    distortion: tuple[float, ...] = ()  # OpenCV's k1 k2 p1 p2 k3 ...; empty if all are 0
    size_px: tuple[int, int] | None = None  # width, height of the pictures it was calibrated with


def read_camera(path: Path) -> CameraFile:
    """Read a camera.

    Raises:
        SourceError: not readable, not a camera file, or not a pinhole camera with OpenCV's distortion model.
    """
    text = _text(path)
    import cv2

    try:
        with quiet_opencv():
            storage = cv2.FileStorage(text, cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
            try:
                return _camera(path, storage)
            finally:
                storage.release()
    except (cv2.error, SystemError, UnicodeError):
        raise SourceError(f"{path}: not a camera file, or a damaged one", _REMEDY) from None


def lens_facts(file: CameraFile) -> dict[str, Any]:
    """A camera in the form in which a result file stores it, as JSON."""
    return {name: value for name, value in asdict(file).items() if name != "path"}


def lens_of_facts(facts: Any, path: Path) -> CameraFile:
    """The camera stored in the result file at this path.

    Raises:
        SourceError: not a valid camera.
    """
    try:
        size_px = None if facts["size_px"] is None else (int(facts["size_px"][0]), int(facts["size_px"][1]))
        (across, down), (x, y) = facts["focal_px"], facts["principal_px"]
        file = CameraFile(
            path, (float(across), float(down)), (float(x), float(y)), tuple(map(float, facts["distortion"])), size_px
        )
        sound = all(map(math.isfinite, (*file.focal_px, *file.principal_px, *file.distortion)))
        if not sound or len(file.distortion) not in COUNTS or min(file.focal_px) <= 0 or min(size_px or (1,)) <= 0:
            raise ValueError
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        raise SourceError(f"{path}: the stored lens parameters are damaged", "run it again") from None
    return file


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})", "check the path and its permissions") from None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = ""
    if not text.strip() or len(data) > _MOST_BYTES or "\0" in text:
        raise SourceError(f"{path}: not a camera file", _REMEDY)
    depth = deepest = 0
    for mark in re.findall(r"</|<(?![?!])|[\[{(]|[\]})]|/>", text):  # OpenCV's reader is recursive
        depth += -1 if mark in ("</", "/>", "]", "}", ")") else 1
        deepest = max(deepest, depth)
    if deepest > _MOST_NESTED:
        raise SourceError(f"{path}: nested {deepest} levels deep, as no camera file is", _REMEDY)
    start = text.lstrip()
    if not start.startswith(("%YAML", "<", "{")):  # ROS and others omit OpenCV's first line
        text = f"%YAML:1.0\n---\n{text.removeprefix('---')}"
    return text


def _camera(path: Path, storage: Any) -> CameraFile:
    model, fisheye = _node(storage, MODEL)[1], _node(storage, FISHEYE)[1]
    kind = model.string().lower() if model.isString() else ""
    if kind in ("equidistant", "fisheye", "omni", "omnidirectional") or (fisheye.isInt() and fisheye.real() != 0):
        raise SourceError(
            f"{path}: the camera is a fisheye, which the pinhole model does not cover",
            "undistort the pictures first: cv2.fisheye.undistortImage",
        )
    name, matrix = _numbers(path, storage, MATRIX)
    if not name:
        raise SourceError(f"{path}: has no camera_matrix", _REMEDY)
    if len(matrix) != 9:
        raise SourceError(f"{path}: {name} has {len(matrix)} numbers, not 3 x 3", _REMEDY)
    focal_px, principal_px = (matrix[0], matrix[4]), (matrix[2], matrix[5])
    if not min(focal_px) > 0 or max(map(abs, (matrix[1], matrix[3]))) > 1e-3 * matrix[0] or matrix[6:] != [0, 0, 1]:
        raise SourceError(f"{path}: {name} is not that of a pinhole camera", "give fx 0 cx, 0 fy cy, 0 0 1")
    name, distortion = _numbers(path, storage, DISTORTION)
    if len(distortion) not in COUNTS:
        counts = ", ".join(map(str, COUNTS[1:-1]))
        raise SourceError(
            f"{path}: {name} has {len(distortion)} numbers", f"give {counts} or {COUNTS[-1]} of them, as OpenCV does"
        )
    width, height = (_node(storage, side)[1] for side in (WIDTH, HEIGHT))
    size_px = (int(width.real()), int(height.real())) if width.isInt() and height.isInt() else None
    return CameraFile(
        path, focal_px, principal_px, tuple(distortion) if any(distortion) else (),
        size_px if size_px and min(size_px) > 0 else None,
    )  # fmt: skip


def _node(storage: Any, wanted: re.Pattern[str]) -> tuple[str, Any]:
    """The first key in the file that matches, and its value; an empty key if there is none."""
    found = (key for key in storage.root().keys() if wanted.fullmatch(key.lower().replace("_", "")))  # noqa: SIM118
    key = next(found, "")
    return key, storage.getNode(key)


def _numbers(path: Path, storage: Any, wanted: re.Pattern[str]) -> tuple[str, list[float]]:
    """A key and its numbers: a matrix, or a list of numbers or of rows.

    A matrix is read number by number: OpenCV would allocate a matrix of whatever size the file claims.
    """
    name, node = _node(storage, wanted)
    if not name:
        return "", []
    if node.isMap():
        node = node.getNode("data")
    values = []
    for place in range(min(node.size(), 64) if node.isSeq() else 0):
        row = node.at(place)
        values += [row.at(k) for k in range(min(row.size(), 64))] if row.isSeq() else [row]
    if not all(value.isReal() or value.isInt() for value in values):
        raise SourceError(f"{path}: {name} contains something other than numbers", _REMEDY)
    numbers = [value.real() for value in values]
    if not all(map(math.isfinite, numbers)):
        raise SourceError(f"{path}: {name} contains a number that is not finite", _REMEDY)
    return name, numbers
