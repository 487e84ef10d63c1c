"""Films as cameras and phones really write them."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mp4_boxes import boxed, inside, with_box, with_steps
from streams import index_first

from jotr_deploy.errors import SourceError
from jotr_deploy.runtime.sources import captures
from jotr_deploy.runtime.sources.containers import bytes_missing, matroska_tracks_of, tracks_of
from jotr_deploy.runtime.sources.opening import VideoWriter, open_source
from jotr_deploy.runtime.sources.video_file import _Clock

HERE = Path(__file__).parent


def write_video(path, count=6, size_px=(64, 32), fps=8.0):
    with VideoWriter(path, fps) as writer:
        for index in range(count):
            writer.write(np.full((size_px[1], size_px[0], 3), 20 * index, np.uint8))
    return path


def trimmed(mp4, first, count):
    """Only `count` frames from frame `first` on are shown, as a phone trims: an edit list hides the others."""
    at, _ = inside(mp4, b"moov", b"trak", b"mdia", b"mdhd")
    scale, length = (int.from_bytes(mp4[at + 20 + 4 * i : at + 24 + 4 * i], "big") for i in range(2))
    frames = int.from_bytes(mp4[mp4.index(b"stsz") + 12 :][:4], "big")
    movie = int.from_bytes(mp4[mp4.index(b"mvhd") + 16 :][:4], "big")
    shown = (count * length // frames * movie // scale).to_bytes(4, "big")
    entry = shown + (first * length // frames).to_bytes(4, "big") + bytes([0, 1, 0, 0])
    edits = boxed(b"edts", boxed(b"elst", bytes(4) + (1).to_bytes(4, "big") + entry))
    mp4 = mp4.replace(b"edts", b"free")
    return with_box(mp4, edits, b"moov", b"trak")


def test_a_trimmed_film_is_intact(tmp_path, caplog):
    path = write_video(tmp_path / "a.mp4", 12)
    path.write_bytes(trimmed(path.read_bytes(), 4, 5))
    with open_source(path) as source:
        assert source.total == 12, "by its table"
        frames = list(source)
        assert [frame.index for frame in frames] == list(range(len(frames)))
        assert 0 < len(frames) < 12
        assert (source.total, source.count, source.read, source.damage) == (len(frames),) * 3 + (None,)
        assert list(source.frame_names()) == [frame.name for frame in frames]
    assert caplog.messages == []


@pytest.mark.parametrize(("count", "given"), [(9, 6), (4, 6)])
def test_a_wrong_estimate_of_the_frame_count_is_no_damage(tmp_path, count, given, monkeypatch, caplog):
    path = write_video(tmp_path / "a.avi.mp4", given)
    monkeypatch.setattr("jotr_deploy.runtime.sources.video_file.frame_count", lambda _: count)
    monkeypatch.setattr("jotr_deploy.runtime.sources.video_file.is_mp4", lambda _: False)  # whose count is no estimate
    with open_source(path) as source:
        assert source.total == count
        assert len(list(source)) == given
        assert (source.total, source.damage) == (given, None)
    assert caplog.messages == []


def test_a_film_that_is_cut_off_says_how_much_is_missing(tmp_path, caplog):
    path = write_video(tmp_path / "a.mp4", 12)
    whole = index_first(path.read_bytes())
    path.write_bytes(whole[:-40])
    assert bytes_missing(path) == 40
    with open_source(path, []) as source:
        count = len(list(source))
        assert 0 < count < 12
        assert source.damage == f"{path}: ends after {count} of 12 frames; the file is cut off: 40 bytes are missing"
    assert caplog.messages == [source.damage]


def test_interlaced_frames_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("interlaced.mp4", "it's interlaced.mp4"):
        Path(name).write_bytes((HERE / "interlaced.mp4").read_bytes())
        with pytest.raises(SourceError) as caught:
            open_source(name)
        assert caught.value.cause == f"{name}: the video is interlaced, which is not supported"
    quoted = "'it'\"'\"'s interlaced.mp4' -vf yadif 'it'\"'\"'s interlaced_converted.mp4'"
    assert caught.value.remedy == f"deinterlace it: ffmpeg -i {quoted}"


def test_the_terminal_stays_clean():
    """In a process of its own: FFmpeg logs to the descriptors of the process."""
    script = f"""
from jotr_deploy.runtime.sources.opening import open_source
from jotr_deploy.errors import SourceError
try:
    open_source({str(HERE / "interlaced.mp4")!r})
except SourceError as error:
    print("interlaced" in error.cause)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("True\n", "")


class Unwritten:
    """A capture that hands over what `images` holds, and complains as FFmpeg does from frame `bad` on."""

    def __init__(self, images, sar=(1, 1), turned=0):
        self.images, self.at = images, -1
        self.known = {cv2.CAP_PROP_SAR_NUM: sar[0], cv2.CAP_PROP_SAR_DEN: sar[1], cv2.CAP_PROP_ORIENTATION_META: turned}

    def grab(self):
        self.at += 1
        return self.at < len(self.images)

    def retrieve(self):
        return True, self.images[self.at].copy()

    def get(self, prop):
        return self.known.get(prop, 0.0)

    def release(self): ...


@pytest.mark.parametrize(
    ("complaint", "cause"),
    [
        ("Cannot convert interlaced to progressive frames", "the video is interlaced, which is not supported"),
        ("[swscaler] unsupported fmt:x2rgb10", "its pixels cannot be converted"),
    ],
)
def test_a_frame_that_equals_the_one_before_is_asked_about(complaint, cause, monkeypatch):
    same, other = np.full((32, 32, 3), 7, np.uint8), np.full((32, 32, 3), 8, np.uint8)
    asked, said = [], []

    class Log:
        def __enter__(self):
            asked.append(len(seen))
            return said

        def __exit__(self, *_): ...

    monkeypatch.setattr(captures, "decoder_log", Log)
    film = captures.Film(Unwritten([same, other, same, same, other, other]), "a.mp4", False)
    seen = []
    while film.grab() and len(seen) < 5:
        seen.append(film.retrieve())
    assert asked == [0, 3]
    said.append(complaint)
    with pytest.raises(SourceError) as caught:
        film.retrieve()
    assert caught.value.cause == f"a.mp4: {cause}"


@pytest.mark.parametrize(
    ("sar", "turned", "square", "size_px"),
    [
        ((1, 1), 0, True, (40, 30)),
        ((0, 1), 0, True, (40, 30)),  # unknown
        ((1280, 1279), 0, True, (40, 30)),  # rounding
        ((1000, 1), 0, True, (40, 30)),  # nonsense
        ((16, 15), 0, True, (43, 30)),
        ((8, 9), 0, True, (40, 34)),
        ((4, 3), 90, True, (40, 40)),  # of the picture before it was turned
        ((2, 1), 180, True, (80, 30)),
        ((2, 1), 0, False, (40, 30)),
    ],
)
def test_pixels_become_square(sar, turned, square, size_px, caplog):
    film = captures.Film(Unwritten([np.zeros((30, 40, 3), np.uint8)], sar, turned), "a.mp4", square)
    assert film.grab()
    _, image_bgr = film.retrieve()
    assert (image_bgr.shape[1], image_bgr.shape[0]) == size_px
    left = [] if square else ["a.mp4: pixels of 2 to 1 are left as they are: shapes are distorted by that much"]
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == left


@pytest.mark.parametrize(
    ("fps", "said_s", "time_s"),
    [
        (10, [], []),
        (10, [0, 0.1, 0.2], [0, 0.1, 0.2]),
        (10, [0, 0.04, 0.5, 0.54], [0, 0.04, 0.5, 0.54]),  # as filmed
        (10, [0, 0, 0, 0], [0, 0.1, 0.2, 0.3]),  # never said
        (10, [0, 0.1, 0], [0, 0.1, 0.2]),  # not of the last one
        (10, [0, 0.5, 0.4, 0.7], [0, 0.5, 0.6, 0.7]),  # backwards
        (10, [-1e9, 1e12], [0, 0.1]),
        (0, [0, 0.3, 0], [0, 0.3, 0.6]),
        (0, [0, 0, 0], [0, None, None]),
    ],
)
def test_times_of_frames(fps, said_s, time_s):
    clock = _Clock(fps)
    assert [clock.time_s(index, each) for index, each in enumerate(said_s)] == pytest.approx(time_s)


def test_a_variable_frame_rate_keeps_its_times(tmp_path):
    path = write_video(tmp_path / "a.mp4", 6, fps=8)
    path.write_bytes(with_steps(path.read_bytes(), [(2, 1), (4, 3)]))
    with open_source(path) as source:
        assert [frame.time_s for frame in source] == pytest.approx([0, 0.125, 0.25, 0.625, 1.0, 1.375])


def test_of_two_video_streams_the_larger_is_read(tmp_path):
    small, large = (write_video(tmp_path / f"{n}.mp4", 4, (n, n // 2)) for n in (32, 128))
    path = tmp_path / "it's two.mp4"
    path.write_bytes(both(small.read_bytes(), large.read_bytes()))
    assert [(track.id, track.is_video, track.size_px) for track in tracks_of(path)] == [
        (1, True, (32, 16)),
        (2, True, (128, 64)),
    ]
    with open_source(path) as source:
        assert source.size_px == (128, 64)
        assert [round(frame.image_bgr.mean() / 20) for frame in source] == [0, 1, 2, 3]


def element(kind, content):
    return bytes.fromhex(kind) + (0x4000 | len(content)).to_bytes(2, "big") + content


def matroska(*sizes_px):
    """The head of a Matroska file with video tracks of these sizes, after one of sound."""
    tracks = element("ae", element("d7", b"\1") + element("83", b"\2"))
    for number, (width, height) in enumerate(sizes_px, 2):
        video = element("b0", width.to_bytes(2, "big")) + element("ba", height.to_bytes(2, "big"))
        tracks += element("ae", element("d7", bytes([number])) + element("83", b"\1") + element("e0", video))
    content = element("ec", bytes(9)) + element("1654ae6b", tracks)
    return element("1a45dfa3", b"") + bytes.fromhex("1853806701ffffffffffffff") + content


def test_a_larger_second_stream_of_matroska_is_refused(tmp_path):
    path = tmp_path / "a.mkv"
    path.write_bytes(matroska((32, 16), (640, 480)))
    assert [(track.id, track.is_video, track.size_px) for track in matroska_tracks_of(path)] == [
        (1, False, (0, 0)),
        (2, True, (32, 16)),
        (3, True, (640, 480)),
    ]
    with pytest.raises(SourceError) as caught:
        open_source(path)
    first = "the largest of its 2 video streams is not the first, and only that one can be read"
    assert caught.value.cause == f"{path}: {first}"
    assert caught.value.remedy == f"extract the largest stream: ffmpeg -i {path} -map 0:v:1 a_converted.mp4"
    for cut in range(0, path.stat().st_size, 5):
        path.write_bytes(matroska((32, 16), (640, 480))[:cut])
        assert all(track.size_px[0] <= 640 for track in matroska_tracks_of(path))


def both(first, second):
    """Two mp4 files as the two tracks of one."""
    at, size = inside(second, b"moov", b"trak")
    track = bytearray(second[at : at + size])
    place = track.index(b"tkhd") + 16
    track[place : place + 4] = (2).to_bytes(4, "big")
    frames = second[: inside(second, b"moov")[0]]
    at, size = inside(first, b"moov")
    start = int.from_bytes(track[track.index(b"stco") + 12 :][:4], "big")
    end = first[:at] + boxed(b"free", frames)  # frames of the second one, then the index of both
    place = track.index(b"stco") + 12
    track[place : place + 4] = (start + at + 8).to_bytes(4, "big")
    moov = first[at + 8 : at + size] + bytes(track)
    return end + boxed(b"moov", moov)


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\0\0\0\1ftyp", b"\0\0\0\x10moov" + bytes(8), b"\0\0\0\x18moov\0\0\0\x10trak" + b"x" * 8]
)
def test_damaged_containers_have_no_tracks(tmp_path, data):
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    assert [track.is_video for track in tracks_of(path)] in ([], [False])
    assert bytes_missing(path) == 0


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("walk.mp4", b"<html><body>", "an HTML page (a download page rather than the file)"),
        ("walk.mp4", b"ID3" + bytes(100), "an MP3 sound, not a supported picture or film"),
        ("walk.mkv", b"\x1aE\xdf\xa3" + bytes(100), "a Matroska or WebM video that cannot be decoded"),
        ("scene.exr", b"v/1\x01" + bytes(100), "an OpenEXR picture, which is not supported"),
        ("a.txt", b"0123456789\n" * 1000, "plain text, not a supported picture or film"),
    ],
)
def test_a_film_that_is_none(tmp_path, name, content, cause, capfd):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        open_source(path)
    assert caught.value.cause == f"{path}: {cause}"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("degrees", "orientation"), [(0, 1), (90, 6), (180, 3), (270, 8)])
def test_a_turned_film_says_how_it_was_turned(tmp_path, degrees, orientation):
    path = write_video(tmp_path / "a.mp4")
    mp4 = bytearray(path.read_bytes())
    cosine, sine = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    at = mp4.index(b"tkhd") + 44
    matrix = [cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30]
    mp4[at : at + 36] = b"".join(number.to_bytes(4, "big", signed=True) for number in matrix)
    path.write_bytes(mp4)
    with open_source(path) as source:
        assert source.orientation_of(0) == orientation
        assert source.size_px == ((32, 64) if degrees in (90, 270) else (64, 32))


def test_the_frames_of_a_trimmed_film_are_counted_where_it_matters(tmp_path):
    path = write_video(tmp_path / "a.mp4", 12)
    path.write_bytes(trimmed(path.read_bytes(), 4, 5))
    with open_source(path) as source:
        assert source.total == 12, "by its table"
        shown = source.settle_total()
        assert shown == source.total == len(list(source.frame_names())) == len(list(source)) < 12
