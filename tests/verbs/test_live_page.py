"""`run --live`: the page, what it shows of a run, and how both end."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import cv2
import numpy as np
import pytest
from outcome import tree
from pictures import noise, video
from streams import camera, served
from visual.chromium_page import PROGRAM, ChromiumPage
from visual.crowd import FACES, crowd

from jotr_deploy.bundle import open_bundle
from jotr_deploy.people import People
from jotr_deploy.runtime.live_preview import LONGER_SIDE_PX, small_overlay
from jotr_deploy.runtime.run import RunOptions, run
from jotr_deploy.verbs.live_page import LivePage
from jotr_deploy.visual.overlay import draw_people

ROOT = Path(__file__).parents[2]
GREY = np.full((60, 80, 3), 90, np.uint8)
needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="Chromium is missing: apt-get install chromium")


class Stream:
    """Pictures as a browser reads them from the page's stream."""

    def __init__(self, url: str) -> None:
        self._answer = urlopen(f"{url}stream", timeout=60)
        boundary = self._answer.headers.get_param("boundary")
        self._between = f"\r\n--{boundary}\r\nContent-Type: image/jpeg\r\n\r\n".encode()
        assert self._answer.read(len(self._between)) == self._between

    def __iter__(self) -> Iterator[np.ndarray]:
        """Each as soon as the head of the next has come, which is when Chromium shows it."""
        read = b""
        while more := self._answer.read1():
            *jpegs, read = (read + more).split(self._between)
            for jpeg in jpegs:
                yield cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert read == b""


@contextmanager
def reading(page: LivePage) -> Iterator[Iterator[np.ndarray]]:
    """Its pictures, once the page knows that somebody reads them."""
    stream = iter(Stream(page.url))
    with page._changed:
        assert page._changed.wait_for(lambda: page._watchers, 30)
    yield stream


def test_a_reader_sees_every_picture_it_waits_for_and_then_the_end() -> None:
    with LivePage() as page:
        assert not page.watched
        with reading(page) as pictures:
            assert page.watched
            for level in (10, 200):
                page.show(np.full((60, 80, 3), level, np.uint8))
                seen = next(pictures)
                assert seen.shape == (60, 80, 3)
                assert abs(seen.astype(int) - level).max() <= 2
            page.close()
            assert list(pictures) == []


def test_who_comes_after_the_last_picture_sees_it() -> None:
    with LivePage() as page:
        page.show(GREY)
        with reading(page) as pictures:
            np.testing.assert_allclose(next(pictures), GREY, atol=2)


def test_the_address_is_of_this_machine_and_not_to_be_guessed() -> None:
    with LivePage() as page, LivePage() as other:
        host, port = re.fullmatch(r"http://(127\.0\.0\.1):([0-9]+)/[0-9a-f]{16}/", page.url).groups()
        assert page._server.server_address == (host, int(port))
        assert page.url.split("/")[3] != other.url.split("/")[3]
        with urlopen(page.url, timeout=60) as answer:
            assert f'src="/{page.url.split("/")[3]}/stream"' in answer.read().decode()
        for path in ("", "stream", "../stream", f"{'0' * 16}/stream"):
            with pytest.raises(HTTPError) as refusal:
                urlopen(f"http://{host}:{port}/{path}", timeout=60)
            assert refusal.value.code == 404
    with pytest.raises(OSError), socket.create_connection((host, int(port)), timeout=60):  # noqa: PT011
        pass


def test_a_browser_is_opened_once_there_is_a_picture() -> None:
    opened: list[str] = []
    with LivePage(opened.append) as page:
        assert page.watched  # somebody will
        assert opened == []
        page.show(GREY)
        with reading(page) as pictures:
            next(pictures)
            page.show(GREY)
            next(pictures)
            page.last_look()
        assert opened == [page.url]


@pytest.mark.parametrize("size", [(80, 60), (2 * LONGER_SIDE_PX, LONGER_SIDE_PX)])
def test_small_overlays_show_people_where_large_ones_do(size: tuple[int, int]) -> None:
    image = np.full((size[1], size[0], 3), 90, np.uint8)
    people = crowd([(size[0] // 8, 5, size[0] // 8 + size[1] // 2, 5 + size[1] // 2)])
    small = small_overlay(image, people, FACES, None)
    assert max(small.shape) <= LONGER_SIDE_PX
    large = cv2.resize(draw_people(image, people, FACES), small.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert (small != 90).any(-1).mean() > 0.02
    assert abs(small.astype(int) - large).mean() < 0.4
    assert (small_overlay(image, People.none(), FACES, None) == 90).all()


class Album:
    """A watcher that keeps what it is shown."""

    def __init__(self, watched: bool) -> None:
        self.watched, self.pictures = watched, []

    def show(self, picture_bgr: np.ndarray) -> None:
        self.pictures.append(picture_bgr)


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("watched", [False, True])
def test_a_film_plays_for_whoever_watches(tiny_bundle: Path, tmp_path: Path, watched: bool, write: bool) -> None:
    film, album = video(tmp_path / "clip.mp4", 3), Album(watched)
    options = RunOptions(people="frame", write=write)
    summary = run(open_bundle(tiny_bundle), str(film), tmp_path / "new", options, watcher=album)
    assert [picture.shape for picture in album.pictures] == [(60, 80, 3)] * (3 if watched else 0)
    assert ("show" in summary.milliseconds_per_frame) == watched
    assert (tmp_path / "new").exists() == write


@contextmanager
def live(*arguments: object, cwd: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`run --live` in a process of its own, and the address that it says first."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from jotr_deploy.cli import main; main()"
    command = [sys.executable, "-c", code, "run", *map(str, arguments), "--live"]
    heard = {} if sys.platform == "win32" else {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    process = subprocess.Popen(command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **heard)
    try:
        said = iter(process.stderr.readline, "")
        yield process, next(line.split()[1] for line in said if line.startswith("open "))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is another thing on Windows")
def test_a_camera_is_shown_at_once_and_ctrl_c_ends_it(tiny_bundle: Path, tmp_path: Path) -> None:
    images = [cv2.imencode(".jpg", noise(seed))[1].tobytes() for seed in range(4)]
    with (
        served(camera(images * 500)) as url,
        live(tiny_bundle, f"{url}/c.mjpg", "--people", "frame", cwd=tmp_path) as ran,
    ):
        process, address = ran
        pictures = iter(Stream(address))
        assert [next(pictures).shape for _ in range(3)] == [(60, 80, 3)] * 3
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert "nothing written" in out
        assert "frames/s" in err
        assert "Traceback" not in err
        for _ in pictures:
            pass  # to its end
    assert tree(tmp_path) == {}


@needs_chromium
def test_a_browser_shows_the_newest_picture_at_once(tmp_path: Path) -> None:
    with LivePage() as page, ChromiumPage(page.url, tmp_path / "profile", (500, 400)) as tab:
        for level in (60, 220):
            page.show(np.full((60, 80, 3), level, np.uint8))
            tab.until("document.images.length && document.images[0].naturalWidth == 80", "a picture")
            _shows(tab, level)
        assert tab.complaints == []
        assert {request.split("/")[2] for request in tab.requests} == {page.url.split("/")[2]}


def _shows(tab: ChromiumPage, level: int) -> None:
    for _ in range(100):
        seen = tab.picture()
        if abs(seen[seen.shape[0] // 2, seen.shape[1] // 2].astype(int) - level).max() <= 4:
            return
        time.sleep(0.05)
    raise AssertionError(f"the page never showed grey {level}")
