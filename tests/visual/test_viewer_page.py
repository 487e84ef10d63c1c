"""The page of the viewer: without a browser, in Chromium, and as the command serves it."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from chromium_page import PROGRAM, ChromiumPage
from crowd import FACES, crowd
from viewer_clip import CLIP, LEFT, RIGHT, SIZE, plain, recording, write

from jotr_deploy.errors import MissingDependency, SourceError
from jotr_deploy.geometry.camera import project_px
from jotr_deploy.geometry.raster import rasterize
from jotr_deploy.geometry.scene_frame import image_centre_px
from jotr_deploy.people import People
from jotr_deploy.verbs.view import view
from jotr_deploy.visual.viewer import EVERYONE, OTHERS_OPACITY, Viewer
from jotr_deploy.visual.viewer_data import Pictures, description, scene_camera, shown_at

needs_viser = pytest.mark.skipif(
    importlib.util.find_spec("viser") is None, reason="viser is missing: pip install '.[viewer]'"
)
needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="Chromium is missing: apt-get install chromium")


# The page, without a browser


@needs_viser
def test_the_page_follows_its_controls_with_one_mesh_a_place():
    clip = recording(CLIP)
    camera = scene_camera(clip)
    with Viewer(clip, port=0) as viewer:
        for place in (0, 1, 2, 3, 1):
            viewer.frame.value = place
            viewer.refresh()
            shown = shown_at(clip, camera, place)
            visible = [person for person in viewer.people if person.visible]
            assert len(visible) == len(shown.people)
            for k, person in enumerate(visible):
                np.testing.assert_array_equal(person.vertices, shown.people.vertices_m[k])
                np.testing.assert_allclose(person.position, shown.places_m[k])
                assert person.color == tuple(shown.colours_rgb[k])
            assert viewer.about.content == f"frame {place}, {place / 10:.2f} s\n\n{description(shown, None)}"
        assert len(viewer.people) == 2
        viewer.who.value = "person 1"
        viewer.refresh()
        assert [person.opacity for person in viewer.people] == [OTHERS_OPACITY, None]
        assert viewer.about.content.startswith("frame 1, 0.10 s\n\n| person 1 |")
        viewer.show_people.value = False
        viewer.refresh()
        assert not any(person.visible for person in viewer.people)


@needs_viser
@pytest.mark.parametrize(
    ("clip", "slider"),
    [
        (recording({}), False),
        (recording({0: People.none()}), False),
        (recording({0: People.none(), 1: People.none()}), True),
        (recording({0: crowd([LEFT, RIGHT])}), False),
    ],
    ids=["no frame", "nobody", "nobody in a clip", "one picture"],
)
def test_a_slider_only_where_there_is_time(clip, slider):
    with Viewer(clip, port=0) as viewer:
        assert (viewer.frame is not None) == slider
        assert len(viewer.people) == len(clip.people)


@needs_viser
def test_without_faces_people_are_points():
    with Viewer(recording(CLIP, faces=np.zeros((0, 3))), port=0) as viewer:
        np.testing.assert_array_equal(viewer.people[0].points, CLIP[0].vertices_m[0])
        assert viewer.people[0].visible


@needs_viser
def test_pictures_come_when_they_are_read_and_may_differ_in_size():
    clip = recording(CLIP)
    pictures = Pictures(iter([(0, plain(99, *SIZE)), (1, plain(99, 320, 480))]), np.arange(4))
    with Viewer(clip, pictures, port=0) as viewer:
        assert viewer.frustum.image is None
        pictures.read_next()
        viewer.refresh()
        assert viewer.frustum.image.shape == (480, 640, 3)
        viewer.show_picture.value = False
        viewer.refresh()
        assert viewer.frustum.image is None
        pictures.read_next()
        viewer.show_picture.value, viewer.frame.value = True, 1
        viewer.refresh()
        assert viewer.frustum.image.shape == (480, 320, 3)
        assert viewer.frustum.aspect == pytest.approx(320 / 480)
        viewer.frame.value = 2
        viewer.refresh()
        assert viewer.frustum.image is None
        assert viewer.frustum.aspect == pytest.approx(640 / 480)


# The page in a browser


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The viewer of CLIP, being served, and a browser that has its page open."""
    bad = '<b onclick="f()">{document.title = "run"}'
    with Viewer(recording(CLIP, labels=("stand-in body", bad)), port=0) as viewer:
        server = threading.Thread(target=viewer.serve)
        server.start()
        with ChromiumPage(viewer.url, tmp_path_factory.mktemp("chromium") / "profile", (900, 700)) as tab:
            tab.until("document.querySelectorAll('[role=slider]').length > 1", "its controls")
            soon(viewer.server.get_clients, "a visitor")
            yield viewer, tab
    server.join(30)
    assert not server.is_alive()


def soon(question, what):
    until = time.monotonic() + 60
    while time.monotonic() < until:
        answer = question()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"there never was {what}")


def through_the_camera(viewer):
    """(H, W) bool: where the browser draws somebody, seen by the scene camera itself."""
    (client,) = viewer.server.get_clients().values()
    camera = scene_camera(viewer._recording)
    eye = {"wxyz": (1.0, 0.0, 0.0, 0.0), "position": (0.0, 0.0, 0.0), "fov": camera.fov_rad}
    seen = client.get_render(SIZE[1], SIZE[0], transport_format="png", timeout=120, **eye)
    return seen[..., 3] > 127


def expected(viewer, k):
    """The same from the rasteriser."""
    clip = viewer._recording
    camera = scene_camera(clip)
    shown = shown_at(clip, camera, k)
    mask = np.zeros((SIZE[1], SIZE[0]), bool)
    for mesh in shown.people.vertices_m + shown.places_m[:, None]:
        pixels = project_px(mesh[None], np.array([camera.focal_px]), image_centre_px(SIZE)[None])[0]
        mask |= rasterize(np.column_stack([pixels, mesh[:, 2]]), FACES, SIZE).face >= 0
    return mask


@needs_viser
@pytest.mark.slow
@needs_chromium
def test_the_browser_draws_people_where_the_camera_saw_them(page):
    viewer, tab = page
    viewer.show_camera.value = False
    viewer.server.scene.set_background_image(None)
    for k in (0, 1, 2, 3):
        viewer.frame.value = k
        wanted = expected(viewer, k)
        soon(lambda wanted=wanted: overlap(through_the_camera(viewer), wanted) > 0.95, f"frame {k} as expected")
    assert tab.complaints == []


def overlap(a, b):
    """Of two masks, 0..1: what both cover of what either does."""
    return (a & b).sum() / (a | b).sum() if (a | b).any() else 1.0


@needs_viser
@pytest.mark.slow
@needs_chromium
def test_slider_play_and_clicks_of_the_page(page):
    viewer, tab = page
    viewer.frame.value = 0
    slider = "document.querySelectorAll('[role=slider]')[0]"
    tab.until(f"{slider}.getAttribute('aria-valuenow') === '0'", "frame 0")
    tab.run(f"{slider}.focus()")
    tab.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight", code="ArrowRight", windowsVirtualKeyCode=39)
    soon(lambda: viewer.frame.value == 1, "frame 1 by the slider")
    soon(lambda: len([person for person in viewer.people if person.visible]) == 2, "both people")

    (client,) = viewer.server.get_clients().values()
    eye, (x, y, z) = client.camera, viewer.people[0].position
    to_px = eye.image_height / 2 / np.tan(eye.fov / 2) / z
    spot = float(eye.image_width / 2 + x * to_px), float(eye.image_height / 2 + y * to_px)
    soon(lambda: (tab.click(*spot), time.sleep(0.3), viewer.who.value == "person 0")[-1], "a person picked by a click")
    viewer.who.value = EVERYONE

    tab.run("[...document.querySelectorAll('button')].find(b => b.innerText.trim() == 'Play').click()")
    soon(lambda: viewer.frame.value not in (0, 1), "a later frame by playing")
    tab.until("[...document.querySelectorAll('button')].some(b => b.innerText.trim() == 'Pause')", "a pause button")
    tab.run("[...document.querySelectorAll('button')].find(b => b.innerText.trim() == 'Pause').click()")
    tab.until("[...document.querySelectorAll('button')].some(b => b.innerText.trim() == 'Play')", "a play button")


@needs_viser
@pytest.mark.slow
@needs_chromium
def test_the_page_shows_its_labels_as_text_and_asks_nobody_else(page, tmp_path):
    viewer, tab = page
    text = tab.until("document.body.innerText", "text")
    assert 'stand-in body · <b onclick="f()">{document.title = "run"}' in text
    assert tab.run("document.title") != "run"
    assert tab.requests
    assert all(url.split("://")[1].startswith(viewer.url.split("://")[1]) for url in tab.requests), tab.requests
    picture = tab.picture(tmp_path / "page.png")
    assert len(np.unique(cv2.resize(picture, (200, 150)).reshape(-1, 3), axis=0)) > 50


# The command


@needs_viser
@pytest.mark.parametrize(
    ("size_px", "note"),
    [
        (SIZE, ""),
        ((64, 32), "note clip: its pictures cannot be used (64 x 32 px, the result has 640 x 480), "
                   "only meshes are shown; give --source\n"),
        (None, "note clip is not found, only meshes are shown; give --source\n"),
    ],
)  # fmt: skip
def test_the_command_says_where_and_ends_with_an_interrupt(tmp_path, size_px, note):
    write(tmp_path / "clip.npz", replace(recording(CLIP), source="clip"))
    if size_px is not None:
        (tmp_path / "clip").mkdir()
        for k in range(4):
            cv2.imwrite(str(tmp_path / "clip" / f"{k}.png"), plain(40 * k, *size_px))
    program = "import typer; from jotr_deploy.verbs.view import view; typer.run(view)"
    command = [sys.executable, "-c", program, str(tmp_path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=quiet()) as process:
        line = process.stdout.readline()
        assert re.fullmatch(r"open http://127\.0\.0\.1:\d+ \(4 meshes in 4 frames; Ctrl-C ends it\)\n", line)
        process.send_signal(signal.SIGINT)
        rest, notes = process.communicate(timeout=60)
    assert (process.returncode, rest) == (0, "")
    assert notes == note


def quiet():
    return {**os.environ, "NO_COLOR": "1", "TERM": "dumb"}


@needs_viser
def test_pictures_of_something_else_are_refused(tmp_path):
    write(tmp_path / "clip.npz", recording(CLIP))
    cv2.imwrite(str(tmp_path / "other.png"), plain(0, 30, 20))
    with pytest.raises(SourceError) as caught:
        view(tmp_path, source=str(tmp_path / "other.png"))
    assert caught.value.cause == (
        f"{tmp_path / 'other.png'}: its pictures are 30 x 20 px, those of {tmp_path / 'clip.npz'} were 640 x 480 px"
    )
    assert caught.value.remedy == "give the source of the run, or leave --source out"


def test_without_viser(monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "viser" else find(name))
    with pytest.raises(MissingDependency) as caught:
        view(tmp_path)
    assert caught.value.cause == "view needs viser"
    assert caught.value.remedy == "pip install '.[viewer]' in a clone of jotr-deploy"
