"""Textures: drawn ones repeat to the bit, folders are read as far as they can be."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jotr_deploy.errors import SourceError
from jotr_deploy.evaluation import textures
from jotr_deploy.evaluation.textures import Textures, Window, drawn_textures, read_textures


def save(path: Path, image_rgb: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image_rgb[..., ::-1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures in folders as those of DTD are, one that is none, and a text."""
    ramp = np.zeros((30, 60, 3), np.uint8)
    ramp[..., 0] = np.arange(60)  # red grows to the right
    save(tmp_path / "woven" / "woven_2.png", ramp)
    save(tmp_path / "woven" / "woven_10.png", np.full((50, 20, 3), (9, 8, 7), np.uint8))
    (tmp_path / "dotted").mkdir()
    (tmp_path / "dotted" / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "readme.txt").write_text("none either")
    return tmp_path


def test_drawn_textures_repeat_to_the_bit() -> None:
    first, again, other = drawn_textures(3, 48, 9), drawn_textures(3, 48, 9), drawn_textures(4, 48, 9)
    assert first.names[:4] == ("noise 0", "stripes 1", "blobs 2", "noise 3")
    for one, same, different in zip(first.pictures, again.pictures, other.pictures, strict=True):
        assert (one.shape, one.dtype) == ((48, 48, 3), np.uint8)
        assert_array_equal(one, same)
        assert (one != different).mean() > 0.5


def test_drawn_textures_are_varied() -> None:
    pictures = np.stack(drawn_textures(0, 64).pictures).astype(np.float64)
    assert np.ptp(pictures.mean((1, 2)), axis=0).min() > 100  # mean colours of the pictures
    assert np.median(pictures.std((1, 2))) > 20  # and none is plain


def test_the_amplitude_falls_with_the_frequency() -> None:
    field = np.mean([np.abs(np.fft.fft2(textures._field(np.random.default_rng(k), 64, 1.0))) for k in range(40)], 0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64)))
    low, high = (field[(frequency >= at) & (frequency < 1.2 * at)].mean() for at in (0.05, 0.4))
    assert 5 < low / high < 13  # an amplitude of 1/f falls 8 times over 8 times the frequency


def test_windows_come_from_their_key_alone() -> None:
    drawn = drawn_textures(0, 32, 5)
    windows = [drawn.window((7, person, 40, 0, 0), 10) for person in range(300)]
    assert windows[4] == drawn.window((7, 4, 40, 0, 0), 10)
    assert drawn.window((7, 4, 40, 0, 1), 10) != windows[4]
    assert {window.picture for window in windows} == set(range(5))
    assert {window.x_px for window in windows} == set(range(23))  # every place where 10 of 32 px fit
    assert {window.y_px for window in windows} == set(range(23))


def test_a_patch_is_the_window_as_crops_are() -> None:
    picture = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    patch = Textures(("a",), [picture], "").patch(Window(0, 2, 1), 2, 3)
    assert (patch.shape, patch.dtype) == ((3, 3, 2), np.float32)
    assert_allclose(patch, picture[1:4, 2:4].transpose(2, 0, 1) / 255)


def test_a_folder(folder: Path) -> None:
    found = read_textures(folder, 0, 15)
    assert found.names == ("woven/woven_2.png", "woven/woven_10.png")
    assert found.source == f"2 of 3 pictures of {folder}"
    assert found.skipped == (f"{folder / 'dotted' / 'broken.jpg'}: plain text, not a supported picture",)
    wide, high = found.pictures
    assert (wide.shape, high.shape) == ((15, 30, 3), (38, 15, 3))
    assert_array_equal(high[0, 0], [9, 8, 7])  # RGB
    assert_allclose(wide[7, :, 0], 2 * np.arange(30) + 0.5, atol=0.51)  # averaged, not picked
    larger = read_textures(folder, 0, 64).pictures
    assert [min(picture.shape[:2]) for picture in larger] == [64, 64]


def test_no_more_than_fit_into_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textures, "MOST_READ", 1)
    names = {read_textures(folder, seed, 15).names for seed in range(10)}
    assert names == {("woven/woven_2.png",), ("woven/woven_10.png",)}


def test_refusals(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path, cause, remedy in (
        (folder / "none", "not a folder of textures", "give --textures a folder with pictures"),
        (folder / "readme.txt", "not a folder of textures", "give --textures a folder with pictures"),
        (tmp_path / "empty", "holds no pictures", "pictures are read as JPEG"),
        (folder / "dotted", "none of its pictures can be read", "save them as PNG or JPEG"),
    ):
        with pytest.raises(SourceError) as refused:
            read_textures(path, 0, 16)
        assert refused.value.cause == f"{path}: {cause}"
        assert refused.value.remedy.startswith(remedy)
