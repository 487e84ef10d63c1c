import cv2
import numpy as np
import pytest
from streams import index_first, without_frames

from jotr_deploy.errors import SourceError
from jotr_deploy.runtime.sources.captures import name_of_url, shown
from jotr_deploy.runtime.sources.opening import VideoWriter, open_source

BROKEN = "repair the video (re-encode it with ffmpeg), or skip such frames: --keep-going"


def write_video(path, count, fps=12.0):
    with VideoWriter(path, fps) as writer:
        for index in range(count):
            writer.write(np.full((16, 32, 3), 10 * index, np.uint8))
    return path


def write_png(path, value=0, size_px=(4, 3)):
    cv2.imwrite(str(path), np.full((size_px[1], size_px[0], 3), value, np.uint8))
    return path


def greys(frames):
    return [round(frame.image_bgr.mean() / 10) for frame in frames]


@pytest.mark.parametrize("every", [1, 2, 3, 4, 9, 10, 50])
@pytest.mark.parametrize("kind", ["video", "images"])
def test_one_frame_in_every_few_keeps_its_number(tmp_path, every, kind):
    if kind == "video":
        path = write_video(tmp_path / "a.mp4", 10, fps=8)
    else:
        path = tmp_path
        for index in range(10):
            write_png(tmp_path / f"{index}.png", 10 * index)
    with open_source(path, every=every) as source:
        assert (source.kind, source.total, source.every) == (kind, 10, every)
        names = list(source.frame_names())
        for _ in range(2):
            frames = list(source)
            assert [frame.index for frame in frames] == list(range(0, 10, every)) == greys(frames)
            assert [frame.name for frame in frames] == names[::every]
            times_s = [None if kind == "images" else frame.index / 8 for frame in frames]
            assert [frame.time_s for frame in frames] == times_s
            assert source.count == len(frames)


def test_every_zeroth_frame_is_a_mistake_of_the_caller(tmp_path):
    with pytest.raises(ValueError, match=r"every=0: must be 1 or more"):
        open_source(tmp_path, every=0)


def test_one_image_has_no_time(tmp_path):
    with open_source(write_png(tmp_path / "a.png"), every=7) as source:
        assert [(frame.index, frame.time_s) for frame in source] == [(0, None)]
        assert (source.total, source.count, source.dropped, source.fault) == (1, 1, 0, None)


@pytest.mark.parametrize("lost", [[7], [4, 5], [1, 3, 8], [0]])
def test_broken_frames_of_a_video_are_named_and_left_out(tmp_path, lost, capfd, caplog):
    path = write_video(tmp_path / "walk.mp4", 12)
    path.write_bytes(without_frames(path.read_bytes(), lost))
    skipped = []
    with open_source(path, skipped) as source:
        for _ in range(2):
            assert [frame.index for frame in source] == [i for i in range(12) if i not in lost]
    assert skipped == [f"walk_{index:012d}" for index in lost]
    assert (capfd.readouterr().err, caplog.messages) == ("", [])


@pytest.mark.parametrize(("lost", "given"), [([7], 7), ([4, 5], 4), ([1, 3], 1)])
def test_a_broken_frame_of_a_video_is_an_error(tmp_path, lost, given):
    path = write_video(tmp_path / "walk.mp4", 12)
    path.write_bytes(without_frames(path.read_bytes(), lost))
    with open_source(path) as source:
        frames = iter(source)
        assert [next(frames).index for _ in range(given)] == list(range(given))
        with pytest.raises(SourceError) as caught:
            next(frames)
    assert (caught.value.cause, caught.value.remedy) == (f"{path}: frame {lost[0]} cannot be decoded", BROKEN)


def test_a_broken_frame_that_nobody_asked_for_is_no_matter(tmp_path):
    path = write_video(tmp_path / "walk.mp4", 12)
    path.write_bytes(without_frames(path.read_bytes(), [4]))
    with open_source(path, every=3) as source:
        assert [frame.index for frame in source] == [0, 3, 6, 9]


@pytest.mark.parametrize("skipped", [None, []])
def test_a_video_without_its_end_is_told(tmp_path, skipped, caplog):
    path = write_video(tmp_path / "a.mp4", 12)
    whole = index_first(path.read_bytes())
    path.write_bytes(whole)
    with open_source(path) as source:
        assert len(list(source)) == 12
    path.write_bytes(without_frames(path.read_bytes(), range(8, 12)))
    with open_source(path, skipped) as source:
        assert [frame.index for frame in source] == list(range(8))
        assert source.fault is None
    assert caplog.messages == [f"{path}: ends after 8 of 12 frames; the file may be damaged"]
    assert not skipped


def test_a_folder_may_hold_several_sizes(tmp_path):
    sizes_px = [(4, 3), (8, 3), (2, 9)]
    for number, size_px in enumerate(sizes_px):
        write_png(tmp_path / f"{number}.png", number, size_px)
    with open_source(tmp_path) as source:
        assert source.size_px == sizes_px[0]
        assert [frame.image_bgr.shape[1::-1] for frame in source] == sizes_px


def test_a_number_that_is_a_file_is_that_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "7").mkdir()
    write_png(tmp_path / "7" / "a.png")
    with open_source("7") as source:
        assert (source.kind, source.name) == ("images", "7")


def test_a_camera_that_is_not_there(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError) as caught:
        open_source("987")
    assert caught.value.cause == "camera 987: cannot be opened, and there is no file '987'"
    assert caught.value.remedy.endswith(" here; check that no other program uses the camera, and that you may read it")
    assert capfd.readouterr().err == ""


def test_four_digits_are_no_camera(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match="2024: no such file or folder"):
        open_source("2024")


@pytest.mark.parametrize(
    ("url", "text", "name"),
    [
        ("http://host/a/walk.mp4", "http://host/a/walk.mp4", "walk.mp4"),
        ("http://me:secret@host:81/live?token=secret#x", "http://host:81/live", "live"),
        ("rtsp://me:p@ss@10.0.0.7:554/", "rtsp://10.0.0.7:554/", "10_0_0_7"),
        ("http://host/a%20b%2F%C3%BC.mp4", "http://host/a%20b%2F%C3%BC.mp4", "a_b_ü.mp4"),
        ("http://host/../..", "http://host/../..", "host"),
        ("http://host/.hidden", "http://host/.hidden", "hidden"),
        ("udp://@:1234", "udp://:1234", "stream"),
    ],
)
def test_what_a_url_is_called(url, text, name):
    assert (shown(url), name_of_url(url)) == (text, name)


@pytest.mark.parametrize("name", ["0", "walk.mp4", "shots/*.png", "me@home?.png"])
def test_other_sources_are_shown_as_they_are(name):
    assert shown(name) == name


def test_what_is_no_url():
    with pytest.raises(SourceError) as caught:
        open_source("http://[me:secret@host")
    assert (caught.value.cause, caught.value.remedy) == (
        "http://: not a URL (Invalid IPv6 URL)",
        "give it as scheme://host/path",
    )
