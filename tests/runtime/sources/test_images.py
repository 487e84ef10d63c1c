from pathlib import Path

import cv2
import numpy as np
import pytest

from jotr_deploy.errors import OutputError, SourceError
from jotr_deploy.runtime.sources.images import READ_FORMATS, natural_order, read_image, write_image

AGAIN = "download or copy it again, and compare its size with that of the original"
PAGE = "download the file itself, not the page about it"


def noise(shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (noise((5, 4, 3)), lambda a: a),  # colour
        (noise((5, 4)), lambda a: np.repeat(a[..., None], 3, 2)),  # grey
        (noise((5, 4, 4)), lambda a: a[..., :3]),  # alpha is dropped, not blended
        (noise((5, 4, 3), np.uint16), lambda a: a >> 8),  # of 16 bits the upper ones
        (noise((5, 4), np.uint16), lambda a: np.repeat(a[..., None] >> 8, 3, 2)),  # 16 bits, grey
        (np.array([[[65535, 0, 257]]], np.uint16), lambda a: a / 257),  # white stays white
        (noise((1, 1, 3)), lambda a: a),  # one pixel
    ],
)
def test_everything_becomes_8_bit_bgr(tmp_path, stored, expected):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), stored)
    image = read_image(path)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected(stored))


def test_the_exif_rotation_is_ignored(tmp_path):
    _, jpeg = cv2.imencode(".jpg", np.zeros((8, 16, 3), np.uint8))
    rotated = bytes.fromhex("4d4d002a00000008 0001 0112 0003 00000001 00060000 00000000")
    exif = b"Exif\0\0" + rotated
    data = jpeg.tobytes()
    path = tmp_path / "phone.jpg"
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:])
    assert cv2.imread(str(path)).shape == (16, 8, 3), "the rotation must be there to be ignored"
    assert read_image(path).shape == (8, 16, 3)


def test_a_very_wide_image(tmp_path):
    path = tmp_path / "wide.png"
    write_image(path, np.full((2, 20000, 3), 7, np.uint8))
    assert read_image(path).shape == (2, 20000, 3)


@pytest.mark.parametrize(
    ("name", "content", "cause", "remedy"),
    [
        ("a.png", b"", "{}: an empty file, not a supported picture", AGAIN),
        ("a.png", b"some text", "{}: plain text, not a supported picture", READ_FORMATS),
        (
            "a.jpg",
            b"<html>",
            "{}: an HTML page (a download page rather than the file), not a supported picture",
            PAGE,
        ),
        ("a.png", None, "{}: cannot be read (No such file or directory)", "check the path and its permissions"),
    ],
)
def test_what_is_no_image(tmp_path, name, content, cause, remedy, capfd):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        read_image(path)
    assert (caught.value.cause, caught.value.remedy) == (cause.format(path), remedy)
    assert capfd.readouterr().err == ""


def test_a_float_image_is_refused(tmp_path):
    path = tmp_path / "a.tiff"
    cv2.imwrite(str(path), np.ones((2, 2, 3), np.float32))
    with pytest.raises(SourceError) as caught:
        read_image(path)
    assert caught.value.cause == f"{path}: a TIFF picture, but damaged or of an unsupported variety"


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff"])
def test_written_images_come_back(tmp_path, name):
    image = noise((3, 5, 3))
    write_image(tmp_path / name, image)
    np.testing.assert_array_equal(read_image(tmp_path / name), image)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.xyz", "a"])
def test_an_unknown_format_leaves_nothing(tmp_path, name):
    with pytest.raises(OutputError) as caught:
        write_image(tmp_path / name, np.zeros((2, 3, 3), np.uint8))
    assert caught.value.cause == f"{tmp_path / name}: an image of 3 x 2 px does not fit this format"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "ordered", [[], ["f1", "f2", "f10"], ["F1", "f02", "f2", "f3"], ["1/f9", "2/f1", "10/f1"], ["f2", "f2a", "f2b"]]
)
def test_numbers_in_names_count_as_numbers(ordered):
    assert natural_order(Path(name) for name in reversed(ordered)) == [Path(name) for name in ordered]
