"""The camera of a picture: what tells it, in which order, and what is refused."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from jotr_deploy.errors import SourceError
from jotr_deploy.runtime.sources.camera_files import read_camera
from jotr_deploy.runtime.sources.exif import FULL_FRAME_MM, exif_fields, focal_length
from jotr_deploy.runtime.sources.frame_source import Frame
from jotr_deploy.runtime.sources.scene_camera import choose_camera

K = [[1000.0, 0, 630], [0, 1000, 370], [0, 0, 1]]
BENT = [0.12, -0.2, 0.001, -0.002, 0.05]
WIDE = np.zeros((720, 1280, 3), np.uint8)
IMAGE = np.zeros((300, 400, 3), np.uint8)


def frame(image_bgr: np.ndarray = WIDE, path: Path | None = None) -> Frame:
    return Frame(0, "a.jpg", image_bgr, path=path)


def tiff(order: str, **fields: Any) -> bytes:
    """An EXIF block; names are the tags in hexadecimal, a pair is a rational."""
    entries, far = b"", b""
    start = 8 + 2 + 12 + 4
    base = start + 2 + 12 * len(fields) + 4
    for name, value in fields.items():
        tag = int(name.removeprefix("x"), 16)
        if isinstance(value, tuple):
            entries += struct.pack(f"{order}HHII", tag, 5, 1, base + len(far))
            far += struct.pack(f"{order}II", *value)
        else:
            entries += struct.pack(f"{order}HHIH2x", tag, 3, 1, value)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    main = struct.pack(f"{order}HHHIII", 1, 0x8769, 4, 1, start, 0)
    return head + main + struct.pack(f"{order}H", len(fields)) + entries + struct.pack(f"{order}I", 0) + far


def stored_picture(path: Path, block: bytes, kind: str = "JPEG") -> Path:
    Image.new("RGB", (400, 300)).save(path, kind, exif=b"Exif\0\0" + block)
    return path


DIAGONAL = 500 / FULL_FRAME_MM  # of a picture of 400 x 300


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_focal_length_is_read_from_every_kind_of_file(kind: str, order: str, tmp_path: Path) -> None:
    found = focal_length(stored_picture(tmp_path / "a", tiff(order, xA405=26), kind), (400, 300))
    assert found is not None
    assert (found.px, found.text) == (pytest.approx(26 * DIAGONAL), "EXIF, 26 mm (35 mm equivalent)")


@pytest.mark.parametrize(
    ("fields", "size_px", "expected_px"),
    [
        ({}, (400, 300), None),
        ({"xA405": 0}, (400, 300), None),
        ({"xA405": 26}, (300, 400), 26 * DIAGONAL),  # turned upright
        ({"xA405": 26, "xA002": 4000, "xA003": 3000}, (400, 300), 26 * DIAGONAL),  # resized
        ({"xA405": 26, "xA002": 4000, "xA003": 3000}, (300, 400), 26 * DIAGONAL),  # and turned
        ({"xA405": 26, "xA002": 400, "xA003": 300}, (200, 300), 26 * DIAGONAL),  # cropped
        ({"x920A": (50, 10)}, (400, 300), None),  # nothing of the sensor
        ({"x920A": (50, 10), "xA20E": (2000, 1), "xA210": 3}, (400, 300), 1000.0),  # 5 mm, 200 px a mm
        ({"x920A": (50, 10), "xA20E": (5080, 1)}, (400, 300), 1000.0),  # inches, where nothing is said
        ({"x920A": (50, 10), "xA20E": (20000, 1), "xA210": 3, "xA002": 4000, "xA003": 3000}, (400, 300), 1000.0),
        ({"x920A": (50, 0), "xA20E": (5080, 0)}, (400, 300), None),
        ({"x920A": (50, 10), "xA20E": (5080, 1), "xA210": 9}, (400, 300), None),
        ({"x920A": (50, 10), "xA20E": (72, 1)}, (400, 300), None),  # dots of a printer
    ],
)  # fmt: skip
def test_which_focal_length_that_is_in_the_picture(
    fields: Any, size_px: tuple[int, int], expected_px: float | None, tmp_path: Path
) -> None:
    found = focal_length(stored_picture(tmp_path / "a.jpg", tiff("<", **fields)), size_px)
    assert (found and found.px) == (None if expected_px is None else pytest.approx(expected_px))


def test_damaged_data_tell_nothing(tmp_path: Path) -> None:
    block = tiff("<", xA405=26, x920A=(5, 1))
    assert exif_fields(stored_picture(tmp_path / "a.jpg", block)) == {0xA405: 26, 0x920A: 5}
    rng = np.random.default_rng(0)
    for end in rng.integers(0, len(block), 20):
        exif_fields(stored_picture(tmp_path / "a.jpg", block[:end]))
    for _ in range(50):
        damaged = bytearray(block)
        damaged[rng.integers(4, len(block))] = rng.integers(256)
        exif_fields(stored_picture(tmp_path / "a.jpg", bytes(damaged)))
    for content in (b"", b"\xff\xd8\xff\xe1\xff\xff", b"\x89PNG\r\n\x1a\n"):
        (tmp_path / "b.jpg").write_bytes(content)
        assert exif_fields(tmp_path / "b.jpg") == {}
    assert exif_fields(tmp_path / "none.jpg") == {}


def test_what_tells_the_camera_and_in_which_order(tmp_path: Path) -> None:
    path = stored_picture(tmp_path / "a.jpg", tiff("<", xA405=26))
    guess = choose_camera()(frame(IMAGE))
    assert guess is not None
    assert guess.source == "guessed: 60 degrees across the longer side"
    assert guess.focal_px == pytest.approx(200 / math.tan(math.radians(30)))
    assert guess.principal_px == (199.5, 149.5)
    for choice, focal_px, source in (
        (choose_camera(), 26 * DIAGONAL, "EXIF, 26 mm (35 mm equivalent)"),
        (choose_camera(fov_deg=90), 200, "--fov 90"),
        (choose_camera(focal_px=321.5), 321.5, "--focal 321.5"),
        (choose_camera(stored(tmp_path / "own.json", K)), 1000 * 400 / 1280, "own.json"),
    ):
        image_bgr = IMAGE if choice.file is None else WIDE[::4, ::4][:, :320]
        camera = choice(frame(image_bgr, path))
        assert camera is not None
        wanted = focal_px if choice.file is None else 250
        assert (camera.focal_px, camera.source) == (pytest.approx(wanted), source)
    assert choose_camera("published")(frame()) is None
    tall = choose_camera(fov_deg=90)(frame(np.zeros((400, 300, 3), np.uint8)))
    assert tall is not None
    assert tall.focal_px == pytest.approx(200)  # the longer side, however it is turned


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        ({"fov_deg": 60, "focal_px": 1000}, "--fov and --focal are given"),
        ({"camera": "published", "fov_deg": 60}, "--camera and --fov are given"),
        ({"fov_deg": 0}, "--fov 0: not a field of view"),
        ({"fov_deg": 180}, "--fov 180: not a field of view"),
        ({"fov_deg": math.nan}, "--fov nan: not a field of view"),
        ({"focal_px": -5}, "--focal -5: not a focal length"),
        ({"focal_px": math.inf}, "--focal inf: not a focal length"),
    ],
)
def test_what_is_no_camera_is_refused(given: Any, cause: str) -> None:
    with pytest.raises(SourceError) as refused:
        choose_camera(**given)
    assert refused.value.cause == cause


def stored(
    path: Path, matrix: Any = K, distortion: Any = None, size_px: Any = (1280, 720), names: Any = ("camera_matrix", "D")
) -> Path:
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    storage.write(names[0], np.array(matrix, np.float64))
    if distortion is not None:
        storage.write(names[1], np.array(distortion, np.float64))
    if size_px is not None:
        storage.write("image_width", size_px[0])
        storage.write("image_height", size_px[1])
    storage.release()
    return path


ROS = """image_width: 1280
image_height: 720
camera_name: left
camera_matrix:
  rows: 3
  cols: 3
  data: [1000.0, 0, 630, 0, 1000, 370, 0, 0, 1]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [0.12, -0.2, 0.001, -0.002, 0.05]
"""


@pytest.mark.parametrize("suffix", ["yml", "xml", "json"])
@pytest.mark.parametrize(
    "names", [("camera_matrix", "distortion_coefficients"), ("cameraMatrix", "distCoeffs"), ("K", "D"), ("mtx", "dist")]
)
def test_cameras_are_read_as_opencv_writes_them(suffix: str, names: tuple[str, str], tmp_path: Path) -> None:
    camera = read_camera(stored(tmp_path / f"a.{suffix}", K, [BENT], names=names))
    assert (camera.focal_px, camera.principal_px) == ((1000, 1000), (630, 370))
    assert (camera.distortion, camera.size_px) == (tuple(BENT), (1280, 720))


@pytest.mark.parametrize(
    "text", [ROS, '{"K": [[1000, 0, 630], [0, 1000, 370], [0, 0, 1]], "dist": [0.12, -0.2, 0.001, -0.002, 0.05]}']
)
def test_and_as_others_do(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    camera = read_camera(tmp_path / "a.yaml")
    assert (camera.focal_px, camera.principal_px, camera.distortion) == ((1000, 1000), (630, 370), tuple(BENT))


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "not a camera file"),
        (b"\xff\xd8\xff", "not a camera file"),
        (b"x" * 70000, "not a camera file"),
        (b"hello", "not a camera file, or a damaged one"),
        (b"[1, 2]", "not a camera file, or a damaged one"),
        (b"<?xml version='1.0'?><opencv_storage><K type_id='opencv-mat", "not a camera file, or a damaged one"),
        (b"{}", "has no camera_matrix"),
        (b"%YAML:1.0\n---\nK: " + b"[" * 20000, "nested 20000 levels deep, as no camera file is"),
        (b"<opencv_storage>" + b"<a>" * 9000, "nested 9001 levels deep, as no camera file is"),
        (b"K: !!opencv-matrix\n  rows: 2000000000\n  cols: 2000000000\n  dt: d\n  data: [1, 2]\n",
         "K has 2 numbers, not 3 x 3"),
        (b'{"K": ["a"]}', "K contains something other than numbers"),
        (b"K: [.Nan, 0, 0, 0, 1, 0, 0, 0, 1]\n", "K contains a number that is not finite"),
        (b"K: [0, 0, 9, 0, 1, 9, 0, 0, 1]\n", "K is not that of a pinhole camera"),
        (b"K: [9, 5, 9, 0, 9, 9, 0, 0, 1]\n", "K is not that of a pinhole camera"),
        (b"K: [9, 0, 9, 0, 9, 9, 0, 0, 1]\nD: [1, 2]\n", "D has 2 numbers"),
        (b"K: [9, 0, 9, 0, 9, 9, 0, 0, 1]\nfisheye_model: 1\n",
         "the camera is a fisheye, which the pinhole model does not cover"),
        (ROS.replace("plumb_bob", "equidistant").encode(),
         "the camera is a fisheye, which the pinhole model does not cover"),
    ],
)  # fmt: skip
def test_files_that_are_no_camera_are_refused(content: bytes, cause: str, tmp_path: Path) -> None:
    path = tmp_path / "camera.yml"
    path.write_bytes(content)
    with pytest.raises(SourceError) as refused:
        choose_camera(path)
    assert refused.value.cause == f"{path}: {cause}"
    assert refused.value.remedy


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read"):
        choose_camera(tmp_path / "none.yml")


@pytest.mark.parametrize(
    ("size_px", "image_size_px", "cause"),
    [
        ((1280, 720), (720, 1280), "is for 1280 x 720 px, the picture has 720 x 1280"),
        ((1280, 720), (1280, 960), "is for 1280 x 720 px, the picture has 1280 x 960"),
        (None, (640, 360), "its principal point (630, 370) lies outside the picture of 640 x 360 px"),
    ],
)
def test_a_camera_of_other_pictures_is_refused(size_px: Any, image_size_px: Any, cause: str, tmp_path: Path) -> None:
    path = stored(tmp_path / "a.yml", K, size_px=size_px)
    with pytest.raises(SourceError) as refused:
        choose_camera(path)(frame(np.zeros((image_size_px[1], image_size_px[0], 3), np.uint8)))
    assert refused.value.cause == f"{path}: {cause}"


@pytest.mark.parametrize("scale", [1, 0.5])
def test_undistorted_pixels_are_those_of_the_undistorted_picture(scale: float, tmp_path: Path) -> None:
    """Points of a scene, seen through the lens and through the pinhole."""
    bent = [[1000.0, 0, 630], [0, 1010, 370], [0, 0, 1]]
    choice = choose_camera(stored(tmp_path / "a.yml", bent, BENT))
    image_bgr = np.zeros((int(720 * scale), int(1280 * scale), 3), np.uint8)
    size_px = (image_bgr.shape[1], image_bgr.shape[0])
    rng = np.random.default_rng(0)
    points_m = np.column_stack([rng.uniform(-1, 1, 20), rng.uniform(-0.6, 0.6, 20), rng.uniform(2.5, 4, 20)])
    taken_px = cv2.projectPoints(points_m, np.zeros(3), np.zeros(3), np.array(bent), np.array(BENT))[0][:, 0]
    taken_px = (taken_px + 0.5) * scale - 0.5
    camera = choice(frame(image_bgr))
    assert camera is not None
    seen_px = points_m[:, :2] / points_m[:, 2:] * camera.focal_px + camera.principal_px
    np.testing.assert_allclose(choice.undistorted_px(taken_px, size_px), seen_px, atol=0.01)
    for x, y in taken_px:
        cv2.circle(image_bgr, (round(x * 16), round(y * 16)), 48, (255, 255, 255), -1, cv2.LINE_AA, 4)
    pinhole = choice.undistorted(image_bgr)
    for x, y in seen_px[((seen_px > 8) & (seen_px < np.array(size_px) - 8)).all(1)]:
        assert pinhole[round(y), round(x)].min() > 200


def test_without_distortion_pictures_stay_as_they_are(tmp_path: Path) -> None:
    choice = choose_camera(stored(tmp_path / "a.yml", K, [0, 0, 0, 0, 0]))
    points_px = np.array([[3.0, 4.0]])
    assert choice.undistorted(WIDE) is WIDE
    assert choice.undistorted_px(points_px, (1280, 720)) is points_px


def test_the_content_of_a_file_tells_the_same_as_the_file(tmp_path: Path) -> None:
    path = stored_picture(tmp_path / "a.jpg", tiff("<", xA405=26))
    assert focal_length(path.read_bytes(), (400, 300)) == focal_length(path, (400, 300)) is not None
    assert focal_length(b"", (400, 300)) is None
