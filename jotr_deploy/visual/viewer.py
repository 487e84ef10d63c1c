"""Browser page that shows a result over time: meshes in front of their camera, the picture and the 2-D joints.

The page shows one frame at a time. Every position in the list of people has one mesh, whose vertices are replaced from
frame to frame, so memory in the browser does not grow with the clip. All visitors share the frame and the picked
person, but each has a viewpoint of their own.
"""

from __future__ import annotations

import errno
import html
import io
import socket
import threading
import time
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any

import numpy as np

from jotr_deploy.errors import JotrDeployError
from jotr_deploy.people import LAYOUT
from jotr_deploy.support.aliases import Array
from jotr_deploy.visual.result_files import PeopleFile
from jotr_deploy.visual.viewer_data import (
    Pictures,
    SceneCamera,
    Shown,
    all_names,
    description,
    ground_m,
    scene_camera,
    shown_at,
    with_joints,
)

EVERYONE = "everyone"
# Opacity of people other than the picked one.
OTHERS_OPACITY = 0.25
# Grey at the top and at the bottom of the window.
BACKGROUND = (236, 206)
PORTS_TRIED = 100


class Viewer:
    """Page of one result. A context manager: leaving it closes the page.

    >>> with Viewer(read_people(Path("out/clip.npz"))) as viewer:  # doctest: +SKIP
    ...     print(viewer.url)
    ...     viewer.serve()
    """

    def __init__(
        self, recording: PeopleFile, pictures: Pictures | None = None, host: str = "127.0.0.1", port: int = 8080
    ) -> None:
        """Open the page at the first free port from `port` on; 0 takes any.

        Raises:
            JotrDeployError: no port can be opened at this host.
        """
        import viser

        self._recording, self._pictures = recording, pictures
        self._camera = self._clip_camera = scene_camera(recording)
        self._changed = threading.Event()
        self._changed.set()
        port = free_port(host, port)
        with redirect_stdout(io.StringIO()):  # its own banner
            self.server: Any = viser.ViserServer(host, port, label=recording.source or "jotr-deploy", verbose=False)
        name = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, f"[{host}]" if ":" in host else host)
        self.url = f"http://{name}:{self.server.get_port()}"
        self.people: list[Any] = []  # a mesh for each place in the list of people, or points without faces
        self._names: tuple[str, ...] = ()  # of the people in sight, for clicks
        self._playing = self._closed = False
        self._add_controls()
        self._add_scene()
        self.server.on_client_connect(self._look_through_camera)
        self.refresh()

    def __enter__(self) -> Viewer:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._changed.set()
        with redirect_stdout(io.StringIO()):
            self.server.stop()

    def serve(self) -> None:
        """Serve the page, and play, until interrupted or closed."""
        next_s = time.monotonic()
        while not self._closed:
            if self._changed.is_set():
                self.refresh()
            elif self._reading():
                self._read_picture()
            if self._playing and time.monotonic() >= next_s:
                next_s = max(next_s + 1 / self.fps.value, time.monotonic())
                self._advance()
            elif not self._changed.is_set() and not self._reading():
                self._changed.wait(max(0.0, next_s - time.monotonic()) if self._playing else None)

    def refresh(self) -> None:
        """Update the page to the state of its controls."""
        self._changed.clear()
        shown, picture = self._frame_shown()
        picked = None if self.who.value == EVERYONE else self.who.value
        with self.server.atomic():
            for k in range(max(len(shown.people), len(self.people))):
                self._show_person(k, shown, picked)
            self.frustum.fov, self.frustum.aspect = self._camera.fov_rad, self._camera.aspect
            self.frustum.scale = _frustum_scale(self._camera)
            self.frustum.image = picture
            self.frustum.visible = self.show_camera.value
            self.ground.visible = self.show_grid.value
        self.about.content = f"{self._frame_title()}\n\n{description(shown, picked)}"
        self._names = shown.names

    def _frame_shown(self) -> tuple[Shown, Array | None]:
        """People of the frame, and its picture, RGB, if available and switched on."""
        frame_index = self._number
        found = self._pictures.at(frame_index) if self._pictures else None
        # Pictures of a folder may differ in size.
        self._camera = replace(self._clip_camera, size_px=found[1]) if found else self._clip_camera
        shown = shown_at(self._recording, self._camera, frame_index)
        if found is None or not self.show_picture.value:
            return shown, None
        small_bgr, size_px = found
        if self.show_joints.value:
            small_bgr = with_joints(small_bgr, size_px, shown.people)
        return shown, small_bgr[..., ::-1]

    def _show_person(self, k: int, shown: Shown, picked: str | None) -> None:
        """Show the k-th person of the frame, or hide the mesh where there are fewer."""
        if k == len(self.people):
            self.people.append(self._add_person(k))
        person = self.people[k]
        person.visible = k < len(shown.people) and self.show_people.value
        if k >= len(shown.people):
            return
        person.position = shown.places_m[k]
        if not len(self._recording.faces):
            person.points, person.colors = shown.people.vertices_m[k], shown.colours_rgb[k]
            return
        person.vertices = shown.people.vertices_m[k]
        person.color = tuple(shown.colours_rgb[k].tolist())
        person.opacity = None if picked in (None, shown.names[k]) else OTHERS_OPACITY

    def _add_person(self, k: int) -> Any:
        corners, faces = np.zeros(LAYOUT["vertices_m"][0], np.float32), self._recording.faces
        if not len(faces):
            return self.server.scene.add_point_cloud(
                f"/people/{k}", corners, (0, 0, 0), point_size=0.012, precision="float32"
            )
        mesh = self.server.scene.add_mesh_simple(f"/people/{k}", corners, faces)
        mesh.on_click(lambda _: self._pick(k))
        return mesh

    def _pick(self, k: int) -> None:
        """Pick the k-th person in sight, or everyone again."""
        if k < len(self._names):
            self.who.value = EVERYONE if self.who.value == self._names[k] else self._names[k]

    def _add_controls(self) -> None:
        gui, recording = self.server.gui, self._recording
        gui.configure_theme(show_logo=False, show_share_button=False)
        gui.main_panel.dock_right()
        notes = [*recording.labels, *([] if recording.frames else ["no frames in this file"])]
        if notes:
            words = html.escape(" · ".join(notes))  # Markdown would interpret tags in a label
            gui.add_html(f'<div style="padding: 0.3em 0.9em; font-size: 0.9em; font-weight: 600">{words}</div>')
        self.frame = (
            gui.add_slider("Frame" if self._step == 1 else "Place", 0, recording.frames - 1, 1, 0)
            if recording.frames > 1
            else None
        )
        if self.frame:
            self.play = gui.add_button("Play", icon="player-play")
            self.fps = gui.add_slider("Frames/s", 1, 60, 1, int(np.clip(round(recording.fps / self._step), 1, 60)))
            self.play.on_click(self._play_or_pause)
            self.frame.on_update(self._request)
        self.who = gui.add_dropdown("Person", (EVERYONE, *all_names(recording)))
        self.about = gui.add_markdown("")
        pictures = self._pictures is not None
        self.show_people = gui.add_checkbox("Meshes" if len(recording.faces) else "Vertices", True)
        self.show_picture = gui.add_checkbox("Picture", pictures, disabled=not pictures)
        self.show_joints = gui.add_checkbox("2-D joints", pictures, disabled=not pictures)
        self.show_camera = gui.add_checkbox("Camera", True, hint="with its picture")
        self.show_grid = gui.add_checkbox("Level ground", False)
        shows = (self.show_people, self.show_picture, self.show_joints, self.show_camera, self.show_grid)
        for control in shows:
            control.on_update(self._request)
        self.who.on_update(self._turn_to_picked)
        gui.add_button("Look through the camera").on_click(
            lambda event: self._look_through_camera(event.client) if event.client else None
        )
        gui.add_markdown("*Depth follows from how large a body looks, and is approximate.*")

    def _add_scene(self) -> None:
        scene, camera = self.server.scene, self._camera
        scene.set_up_direction("-y")
        scene.set_background_image(np.linspace(*BACKGROUND, 64).astype(np.uint8)[:, None, None].repeat(3, 2))
        self.frustum = scene.add_camera_frustum(
            "/camera", camera.fov_rad, camera.aspect, thickness=1.5, thickness_units="screen", cast_shadow=False
        )
        self.ground = scene.add_grid(
            "/ground", 12.0, 12.0, plane="xz", cell_size=0.5, section_size=1.0, visible=False,
            position=(0.0, ground_m(self._recording, camera), camera.people_m),
        )  # fmt: skip

    def _look_through_camera(self, client: Any) -> None:
        """Move a visitor's viewpoint to the camera; it then orbits around the people."""
        camera = self._camera
        with client.atomic():
            eye = client.camera
            eye.up_direction, eye.position, eye.look_at = (0.0, -1.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, camera.people_m)
            eye.fov = camera.fov_around_rad(eye.aspect)
            eye.near, eye.far = camera.people_m / 100, camera.picture_m * 10  # people can be far away: 40 m and more

    def _turn_to_picked(self, _: Any) -> None:
        """Turn every visitor's view to the picked person, around whom it then orbits."""
        self._changed.set()
        shown = shown_at(self._recording, self._camera, self._number)
        if self.who.value in shown.names:
            for client in self.server.get_clients().values():
                client.camera.look_at = shown.places_m[shown.names.index(self.who.value)]

    def _request(self, _: Any) -> None:
        self._changed.set()

    @property
    def _step(self) -> float:
        """Usual step from one frame to the next: more than 1 if the run left some out."""
        numbers = self._recording.numbers
        return float(np.median(np.diff(numbers))) if len(numbers) > 1 else 1.0

    @property
    def _number(self) -> int:
        """Number in the source of the frame shown; the slider counts processed frames."""
        place = self.frame.value if self.frame else 0
        return int(self._recording.numbers[place]) if self._recording.frames else 0

    def _frame_title(self) -> str:
        """Markdown with the frame's number in the source."""
        recording, number = self._recording, self._number
        if recording.names:
            return f"`{recording.names[self.frame.value if self.frame else 0]}`"
        time_s = recording.time_s(number)
        when = "" if time_s is None else f", {time_s:.2f} s"
        return f"frame {number}{when}" if recording.frames else ""

    def _play_or_pause(self, _: Any) -> None:
        self._playing = not self._playing
        self.play.label, self.play.icon = ("Pause", "player-pause") if self._playing else ("Play", "player-play")
        self._changed.set()

    def _advance(self) -> None:
        """Advance to the next frame; playback waits for pictures that are not read yet."""
        assert self.frame is not None
        following = (self.frame.value + 1) % self._recording.frames
        number = int(self._recording.numbers[following])
        if self._pictures is None or self._pictures.complete or self._pictures.has(number):
            self.frame.value = following

    def _reading(self) -> bool:
        return self._pictures is not None and not self._pictures.complete

    def _read_picture(self) -> None:
        assert self._pictures is not None
        if self._pictures.read_next() == self._number:
            self._changed.set()


def _frustum_scale(camera: SceneCamera) -> float:
    """Scale with which viser's frustum ends at the depth of the picture: its volume is scale cubed."""
    half_height = np.tan(camera.fov_rad / 2)
    return float(camera.picture_m * np.cbrt(half_height * half_height * camera.aspect / 3))


def free_port(host: str, port: int) -> int:
    """First port from this one on that can be opened at a host; any free one for 0.

    Raises:
        JotrDeployError: none is free, or the host is not this machine.
    """
    said = "no free port"
    for candidate in range(port, min(port + PORTS_TRIED, 65536)) if port else (0,):
        try:
            with socket.create_server((host, candidate), family=_family(host)) as opened:
                return int(opened.getsockname()[1])
        except OSError as error:
            said = error.strerror or str(error)
            if error.errno != errno.EADDRINUSE:  # no other port would work
                break
    raise JotrDeployError(
        f"{host}:{port}: cannot be opened for a page ({said})",
        "give a free --port above 1023; --host 127.0.0.1 serves this machine alone, 0.0.0.0 everybody who can reach it",
    )


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
