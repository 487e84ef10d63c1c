import threading

import cv2
import numpy as np
import pytest
from streams import ByHand, camera, index_first, jpeg, never, plays, says, served

from jotr_deploy.errors import SourceError
from jotr_deploy.runtime.sources.live_stream import Stream
from jotr_deploy.runtime.sources.opening import VideoWriter, open_source

STALL_S = 1.0
CHECK = "check the camera and its connection"
STEP = 12  # of grey, from one frame to the next


def image(number):
    return np.full((48, 64, 3), STEP * number, np.uint8)


def greys(frames):
    return [round(frame.image_bgr.mean() / STEP) for frame in frames]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A video with enough in it that it does not arrive at once."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    noise = np.random.default_rng(0).integers(0, 30, (480, 640, 3), np.uint8)
    with VideoWriter(path, 10) as writer:
        for number in range(18):
            writer.write(noise + np.uint8(STEP * number))
    return path.read_bytes()


def test_a_video_behind_a_url_is_a_video(clip, capfd):
    with served(plays(clip)) as url, open_source(f"{url}/clip.mp4?key=1", every=4) as source:
        assert (source.kind, source.name, source.fps, source.total, source.count) == ("video", "clip.mp4", 10, 18, 5)
        assert source.size_px == (640, 480)
        for _ in range(2):
            frames = list(source)
            assert [frame.index for frame in frames] == [0, 4, 8, 12, 16]
            assert [frame.name for frame in frames] == list(source.frame_names())[::4]
            assert [frame.time_s for frame in frames] == [0, 0.4, 0.8, 1.2, 1.6]
        assert (source.fault, source.dropped) == (None, 0)
    assert capfd.readouterr().err == ""


def test_an_image_behind_a_url_is_an_image(capfd):
    with served(plays(jpeg(120))) as url, open_source(f"{url}/photo.jpg") as source:
        assert (source.kind, source.name, source.fps, source.count) == ("image", "photo.jpg", 0, 1)
        (frame,) = source
        assert (frame.index, frame.name, frame.time_s, frame.image_bgr.shape) == (0, "photo.jpg", None, (48, 64, 3))
        assert abs(int(frame.image_bgr.mean()) - 120) <= 2
    assert capfd.readouterr().err == ""


def test_a_video_that_stalls(clip, caplog, capfd):
    clip = index_first(clip)
    with (
        served(plays(clip, len(clip) // 2, "stall")) as url,
        open_source(f"{url}/clip.mp4", stall_s=STALL_S) as source,
    ):
        frames = list(source)
        assert [frame.index for frame in frames] == list(range(len(frames)))
        assert 0 < len(frames) < 18
        cause = f"{url}/clip.mp4: ends after {len(frames)} of 18 frames, no data for {STALL_S:g} s"
        assert (source.fault.cause, source.fault.remedy) == (cause, "check the connection")
    assert caplog.messages == []  # who reads on is told by the fault
    assert capfd.readouterr().err == ""


def test_a_connection_that_breaks(clip, caplog):
    clip = index_first(clip)
    with served(plays(clip, len(clip) // 2)) as url, open_source(f"{url}/clip.mp4") as source:
        frames = list(source)
        assert 0 < len(frames) < 18
    assert caplog.messages == [f"{url}/clip.mp4: ends after {len(frames)} of 18 frames; the file may be damaged"]


@pytest.mark.parametrize(("then", "why"), [("close", "the stream ended"), ("stall", f"no frame for {STALL_S:g} s")])
def test_a_network_camera_until_it_is_gone(then, why, caplog, capfd):
    images = [jpeg(STEP * number) for number in range(20)]
    with served(camera(images, then)) as url, open_source(f"{url}/cam", stall_s=STALL_S) as source:
        assert (source.kind, source.name, source.total, source.count) == ("stream", "cam", None, None)
        assert (source.size_px, list(source.frame_names())) == ((64, 48), [])
        frames = list(source)
        assert greys(frames)[-1] == 19, "the newest frame is always given"
        assert greys(frames) == sorted(set(greys(frames)))
        assert [frame.name for frame in frames] == [f"cam_{frame.index:012d}" for frame in frames]
        assert frames[-1].index + 1 == len(frames) + source.dropped
        cause = f"{url}/cam: {why}, after {len(frames)} frames"
        assert (source.fault.cause, source.fault.remedy) == (cause, CHECK)
    assert caplog.messages == []
    assert capfd.readouterr().err == ""


def test_broken_images_of_a_network_camera_are_passed_over():
    images = [jpeg(STEP * number) for number in range(20)]
    images[8], images[11] = b"no picture" * 20, images[11][:100]
    with served(camera(images)) as url, open_source(f"{url}/cam") as source:
        seen = greys(source)
    assert seen[-1] == 19
    assert 8 not in seen


@pytest.mark.parametrize(
    ("answer", "why", "remedy"),
    [
        (never, f"no answer within {STALL_S:g} s", "check the address and the network"),
        (camera([], "stall"), f"no answer within {STALL_S:g} s", "check the address and the network"),
        (says(404), "cannot be opened", "check the address, and that it serves a video or an image"),
        (says(200, b"text"), "cannot be opened", "check the address, and that it serves a video or an image"),
        (says(200), "cannot be opened", "check the address, and that it serves a video or an image"),
    ],
)
def test_a_url_that_cannot_be_opened(answer, why, remedy, capfd):
    with served(answer) as url, pytest.raises(SourceError) as caught:
        open_source(url.replace("://", "://me:secret@") + "/cam?key=secret", stall_s=STALL_S)
    assert (caught.value.cause, caught.value.remedy) == (f"{url}/cam: {why}", remedy)
    assert capfd.readouterr().err == ""


def test_nobody_listens(capfd):
    with served(never) as url:
        pass
    with pytest.raises(SourceError, match="cannot be opened"):
        open_source(f"{url}/cam")
    assert capfd.readouterr().err == ""


class Held:
    """A stream of a camera by hand, its first frame already there."""

    def __init__(self, every=1, stall_s=60.0):
        self.camera = ByHand()
        first = threading.Thread(target=self.camera.give, args=(image(0),))
        first.start()
        self.source = Stream(self.camera, "camera_0", "camera 0", every, stall_s)
        first.join()

    def __enter__(self):
        return self.camera, self.source

    def __exit__(self, *_):
        self.camera.give_up()
        self.source.close()
        assert self.camera.released.is_set()


def test_the_newest_frame_wins_and_the_others_are_counted():
    with Held() as (camera, source):
        assert (source.kind, source.name, source.fps, source.size_px) == ("stream", "camera_0", 30, (64, 48))
        frames = iter(source)
        assert greys([next(frames)]) == [0]
        camera.give(*map(image, (1, 2, 3)))
        third = next(frames)
        assert (greys([third]), third.index, third.name, source.dropped) == ([3], 3, "camera_0_000000000003", 2)
        camera.give(image(4), "broken", "broken", image(5))
        fifth = next(frames)
        assert (greys([fifth]), fifth.index, source.dropped) == ([5], 5, 3)
        assert 0 < third.time_s < fifth.time_s


def test_frames_before_the_first_one_is_asked_for_do_not_count():
    with Held(every=2) as (camera, source):
        camera.give(*map(image, range(1, 10)))
        frames = iter(source)
        first = next(frames)
        assert (greys([first]), first.index, first.time_s, source.dropped) == ([8], 0, 0.0, 0)
        camera.give(*map(image, range(10, 13)))  # number 1 to 3
        second = next(frames)
        assert (greys([second]), second.index, source.dropped) == ([11], 2, 0)


def test_iterating_again_goes_on_as_time_does():
    with Held() as (camera, source):
        next(iter(source))
        camera.give(image(1), image(2))
        again = next(iter(source))
        assert (greys([again]), again.index, again.time_s, source.dropped) == ([2], 0, 0.0, 0)


def test_a_camera_that_disappears(caplog):
    with Held() as (camera, source):
        frames = iter(source)
        next(frames)
        camera.give(image(1))
        next(frames)
        camera.give_up()
        assert list(frames) == []
        assert source.fault.cause == "camera 0: the stream ended, after 2 frames"
    assert caplog.messages == []


@pytest.mark.parametrize("frozen", [False, True])
def test_a_camera_that_stalls(frozen):
    with Held(stall_s=0.5) as (camera, source):
        frames = iter(source)
        next(frames)
        if frozen:  # it says that there are frames, and shows none
            camera.give("dark", "dark")
        assert list(frames) == []
        assert source.fault.cause == "camera 0: no frame for 0.5 s, after 1 frame"


def test_what_a_camera_raises_is_raised():
    camera = ByHand()
    thread = threading.Thread(target=camera.give, args=(cv2.error("torn"),))
    thread.start()
    with pytest.raises(cv2.error, match="torn"):
        Stream(camera, "camera_0", "camera 0", 1, 60.0)
    thread.join()
    assert camera.released.is_set()


def test_a_camera_without_a_frame():
    with pytest.raises(SourceError) as caught:
        Stream(ByHand(), "camera_0", "camera 0", 1, 0.05)
    assert (caught.value.cause, caught.value.remedy) == ("camera 0: no frame within 0.05 s", CHECK)
