import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from jotr_deploy.errors import OutputError, SourceError
from jotr_deploy.runtime.sources.opening import VideoWriter, open_source

IMAGES = "pictures are read as JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, HEIC, JPEG 2000, PBM, PGM and PPM"
NEITHER = "not a supported picture or film"
FILMS = f"{IMAGES}; films as FFmpeg reads them"
NOTHING = "give an image, a folder, a glob in quotes such as 'folder/*.png', a video, a camera number or a URL"
OPEN = "give a name that ends in .mp4 in an existing, writable folder; at most 8190 px per side"


def write_video(path, count, size_px=(32, 16), fps=12.0):
    with VideoWriter(path, fps) as writer:
        for index in range(count):
            writer.write(np.full((size_px[1], size_px[0], 3), 40 * index, np.uint8))
    return path


def write_all(path, frames):
    """Fails with StopIteration, inside the writer, when the frames run out."""
    with VideoWriter(path, 12) as writer:
        while True:
            writer.write(next(frames))


def write_png(path, value=0, size_px=(4, 3)):
    cv2.imwrite(str(path), np.full((size_px[1], size_px[0], 3), value, np.uint8))
    return path


@pytest.mark.slow
def test_ffmpeg_says_nothing_in_a_process_that_has_read_no_film(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENCV_FFMPEG_LOGLEVEL")  # the tests set it for all of theirs
    film = tmp_path / "walk.mkv"
    film.write_bytes(b"\x1aE\xdf\xa3" + bytes(100))
    code = (
        "import sys\n"
        "from jotr_deploy.errors import SourceError\n"
        "from jotr_deploy.runtime.sources.opening import open_source\n"
        "try:\n    open_source(sys.argv[1])\n"
        "except SourceError as error:\n    print(error.cause)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, film], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"{film}: a Matroska or WebM video that cannot be decoded\n", "")


def test_one_image(tmp_path):
    with open_source(write_png(tmp_path / "a.png", 7)) as source:
        assert (source.kind, source.name, source.fps, source.count, source.size_px) == (
            "image",
            "a.png",
            0.0,
            1,
            (4, 3),
        )
        (frame,) = source
        assert (frame.index, frame.name) == (0, "a.png")
        np.testing.assert_array_equal(frame.image_bgr, 7)
        assert [f.image_bgr.max() for f in source] == [7], "a second round starts anew"
        assert list(source.frame_names()) == ["a.png"]


@pytest.mark.parametrize("where", ["{}", "{}/frame*.png", "{}/**/*.png"])
def test_folders_and_globs_in_natural_order(tmp_path, where):
    for number in (10, 2, 1):
        write_png(tmp_path / f"frame{number}.png", number)
    (tmp_path / "notes.txt").write_text("x")
    write_png(tmp_path / ".hidden.png")
    with open_source(where.format(tmp_path)) as source:
        assert (source.kind, source.fps, source.count, source.size_px) == ("images", 0.0, 3, (4, 3))
        assert [(f.index, f.name, int(f.image_bgr.max())) for f in source] == [
            (0, "frame1.png", 1),
            (1, "frame2.png", 2),
            (2, "frame10.png", 10),
        ]
        assert list(source.frame_names()) == ["frame1.png", "frame2.png", "frame10.png"]


def test_brackets_in_a_real_name_are_no_pattern(tmp_path):
    with open_source(write_png(tmp_path / "a[1].png")) as source:
        assert (source.kind, source.name) == ("image", "a[1].png")


@pytest.mark.parametrize("fps", [12.0, 0.5, 23.976, 30000 / 1001, 240.0])
def test_a_video_comes_back(tmp_path, fps):
    with open_source(write_video(tmp_path / "walk.mp4", 5, fps=fps)) as source:
        assert (source.kind, source.name, source.count, source.size_px) == ("video", "walk.mp4", 5, (32, 16))
        assert source.fps == pytest.approx(fps, rel=1e-4)
        names = [f"walk_{index:012d}" for index in range(5)]
        for _ in range(2):
            frames = list(source)
            assert [f.index for f in frames] == [0, 1, 2, 3, 4]
            assert [f.name for f in frames] == names == list(source.frame_names())
            assert [round(f.image_bgr.mean() / 40) for f in frames] == [0, 1, 2, 3, 4]


def test_leaving_a_source_ends_its_iteration(tmp_path):
    with open_source(write_video(tmp_path / "a.mp4", 3)) as source:
        frames = iter(source)
        assert next(frames).index == 0
    assert list(frames) == []


@pytest.mark.parametrize(
    ("name", "content", "cause", "remedy"),
    [
        ("none.png", None, "{}: no such file or folder", NOTHING),
        ("none*.png", None, "{}: no file matches", "check the pattern, and put it in quotes"),
        ("empty.png", b"", "{}: the file is empty", "give an image or a video"),
        ("empty.mp4", b"", "{}: the file is empty", "give an image or a video"),
        ("text.png", b"text", f"{{}}: plain text, {NEITHER}", FILMS),
        ("text.mp4", b"text", f"{{}}: plain text, {NEITHER}", FILMS),
        ("notes.txt", b"text" * 1000, f"{{}}: plain text, {NEITHER}", FILMS),
        ("", None, "{}: no images in this folder", IMAGES),
    ],
)
def test_what_cannot_be_read(tmp_path, name, content, cause, remedy, capfd):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        open_source(str(path))
    assert (caught.value.cause, caught.value.remedy) == (cause.format(path), remedy)
    assert capfd.readouterr().err == ""


def test_a_damaged_video_is_refused(tmp_path, capfd):
    path = write_video(tmp_path / "a.mp4", 5)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError) as caught:
        open_source(path)
    missing = len(whole) - len(whole) // 2
    assert caught.value.cause == f"{path}: an MP4 video that is cut off: {missing} bytes are missing"
    assert caught.value.remedy == "copy or download it again"
    assert capfd.readouterr().err == ""


def test_a_video_without_frames(tmp_path):
    path = tmp_path / "sound.mp4"
    # A track without samples: the whole file but the frames that its table counts.
    data = bytearray(write_video(path, 1).read_bytes())
    start = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    data[start:end] = bytes(end - start)
    path.write_bytes(data)
    with pytest.raises(SourceError) as caught:
        open_source(path)
    assert caught.value.cause == f"{path}: the video has no frame that can be read"
    assert caught.value.remedy == "check that a video player shows it"


def test_a_later_image_that_cannot_be_read_is_named(tmp_path):
    write_png(tmp_path / "1.png")
    (tmp_path / "2.png").write_text("x")
    with (
        open_source(tmp_path) as source,
        pytest.raises(SourceError, match=r"2\.png: plain text, not a supported picture"),
    ):
        list(source)


@pytest.mark.parametrize("size_px", [(32, 16), (31, 17), (1, 1), (7, 2)])
def test_odd_sizes_grow_by_a_pixel(tmp_path, size_px):
    with open_source(write_video(tmp_path / "a.mp4", 2, size_px)) as source:
        assert source.size_px == tuple(n + n % 2 for n in size_px)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_no_frames_make_no_video(tmp_path):
    write_video(tmp_path / "a.mp4", 0)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_inside_leaves_the_old_video(tmp_path):
    path = write_video(tmp_path / "a.mp4", 2)
    before = path.read_bytes()
    frames = iter([np.zeros((16, 32, 3), np.uint8)])
    with pytest.raises(StopIteration):
        write_all(path, frames)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "size_px"),
    [("missing/a.mp4", (32, 16)), ("a.txt", (32, 16)), ("a", (32, 16)), ("a.mp4", (20000, 16))],
)
def test_a_video_that_cannot_be_opened_for_writing(tmp_path, name, size_px, capfd):
    with pytest.raises(OutputError) as caught:
        write_video(tmp_path / name, 1, size_px)
    width, height = size_px
    cause = f"{tmp_path / name}: no video of {width} x {height} px can be opened for writing"
    assert (caught.value.cause, caught.value.remedy) == (cause, OPEN)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""


def test_frames_of_another_size_are_fitted_into_the_first_ones(tmp_path, caplog):
    path = tmp_path / "a.mp4"
    sizes_px = [(64, 32), (32, 32), (128, 64), (64, 8), (1, 500), (64, 32)]
    with VideoWriter(path, 12) as writer:
        for width, height in sizes_px:
            writer.write(np.full((height, width, 3), 200, np.uint8))
    with open_source(path) as source:
        assert (source.size_px, source.count) == ((64, 32), 6)
        bright = [frame.image_bgr.mean(2) > 100 for frame in source]
    sides = [(mask.any(0).sum(), mask.any(1).sum()) for mask in bright]
    assert sides == [(64, 32), (32, 32), (64, 32), (64, 8), (1, 32), (64, 32)]
    for mask in bright[:4]:
        np.testing.assert_array_equal(mask, mask[::-1, ::-1])
    change = "the picture changes from 64 x 32 to 32 x 32 px"
    assert caplog.messages == [f"{path}: {change}; such frames are scaled to fit the video's size"]


@pytest.mark.parametrize(
    ("times_s", "greys"),
    [
        ([0], [0]),
        ([0, 0.1, 0.2], [0, 1, 2]),
        ([0, 0.5, 0.6], [0, 1, 1, 1, 1, 1, 2]),  # a wait is filled
        ([0, 0.01, 0.02, 0.1], [0, 3]),  # what comes too fast is left out
        ([0.0, 0.14, 0.26, 0.34], [0, 1, 2, 2]),
    ],
)
def test_a_video_keeps_the_time_of_its_frames(tmp_path, times_s, greys):
    path = tmp_path / "a.mp4"
    with VideoWriter(path, 10) as writer:
        for index, time_s in enumerate(times_s):
            writer.write(np.full((16, 32, 3), 40 * index, np.uint8), time_s)
    with open_source(path) as source:
        assert [round(frame.image_bgr.mean() / 40) for frame in source] == greys


@pytest.mark.parametrize("fps", [0, -1, float("nan")])
def test_a_video_needs_a_frame_rate(tmp_path, fps):
    with pytest.raises(ValueError, match="a video needs a frame rate above 0"):
        VideoWriter(tmp_path / "a.mp4", fps)


FULL_DISK = """
import json, resource, sys
from pathlib import Path
import numpy as np
from jotr_deploy.errors import OutputError
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.sources.images import write_image
from jotr_deploy.runtime.joint_files.npz_file import write_keypoints_npz
from jotr_deploy.runtime.sources.opening import VideoWriter

folder = Path(sys.argv[1])
noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

def video():
    with VideoWriter(folder / "a.mp4", 12) as writer:
        for _ in range(30):
            writer.write(noise)

def keypoints():
    people = Detections(np.zeros((50, 4)), np.random.default_rng(0).random((50, 30, 3)), np.ones(50), np.zeros(50))
    write_keypoints_npz(folder / "a.npz", [(0, people)])

causes = []
for write in (video, lambda: write_image(folder / "a.png", noise), keypoints):
    try:
        write()
        causes.append("written")
    except OutputError as error:
        causes.append(error.cause)
print(json.dumps([causes, [p.name for p in folder.iterdir()]]))
"""


def test_a_full_disk_leaves_nothing(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL_DISK, tmp_path], capture_output=True, text=True, check=True)
    causes, left = json.loads(done.stdout)
    assert causes == [
        f"{tmp_path / 'a.mp4'}: only 0 of 30 frames could be written",
        f"{tmp_path / 'a.png'}: cannot be written (File too large)",
        f"{tmp_path / 'a.npz'}: cannot be written (File too large)",
    ]
    assert left == []


def test_images_that_cannot_be_read_are_skipped_where_that_is_asked_for(tmp_path):
    for number in (1, 3):
        write_png(tmp_path / f"{number}.png", number)
    for number in (0, 2):
        (tmp_path / f"{number}.png").write_bytes(b"no picture")
    skipped = []
    with open_source(tmp_path, skipped) as source:
        for _ in range(2):
            assert [(f.index, f.name) for f in source] == [(1, "1.png"), (3, "3.png")]
    assert skipped == ["0.png", "2.png"]
    with pytest.raises(SourceError, match=r"0\.png: plain text, not a supported picture"):
        open_source(tmp_path)


def test_not_one_image_can_be_read(tmp_path):
    (tmp_path / "0.png").write_bytes(b"no picture")
    (tmp_path / "1.png").write_bytes(b"nor here")
    with pytest.raises(SourceError) as caught:
        open_source(tmp_path, [])
    why = f"{tmp_path / '0.png'}: plain text, not a supported picture"
    assert caught.value.cause == f"{tmp_path.name}: none of 2 images can be read ({why})"
    assert caught.value.remedy == IMAGES
    write_png(tmp_path / "0.png", 0)
    (tmp_path / "0.png").write_bytes((tmp_path / "0.png").read_bytes()[:-12])
    with pytest.raises(SourceError) as caught:
        open_source(tmp_path, [])
    assert caught.value.cause.endswith("can be read ({}: the PNG picture is cut off)".format(tmp_path / "0.png"))
    assert caught.value.remedy == "copy or download it again"


def test_a_folder_of_links_that_lead_nowhere(tmp_path):
    for number in (10, 2):
        (tmp_path / f"{number}.png").symlink_to("gone.png")
    with pytest.raises(SourceError) as caught:
        open_source(tmp_path)
    assert caught.value.cause == f"{tmp_path}: no images in this folder, and 2.png is a link that leads nowhere"
    assert caught.value.remedy == "put back the file that it points to, or a copy of the picture in its place"


@pytest.mark.parametrize("named", ["", "*.png"])
def test_a_link_that_leads_nowhere_beside_pictures_is_told_as_unreadable(tmp_path, named):
    write_png(tmp_path / "0.png", 0)
    (tmp_path / "1.png").symlink_to("gone.png")
    (tmp_path / "notes").symlink_to("gone")  # not named like a picture
    skipped = []
    with open_source(tmp_path / named, skipped) as source:
        assert [frame.name for frame in source] == ["0.png"]
    assert skipped == ["1.png"]
    link = tmp_path / "1.png"
    assert source.left_out == {"1.png": f"{link}: a link that leads nowhere"}
