"""Films by an `ffmpeg` on the PATH: a stand-in for the program, in all the ways it can fail, and the real one."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from outcome import Outcome, tree
from pictures import video

from jotr_deploy.errors import OutputError
from jotr_deploy.runtime.sources import ffmpeg as films
from jotr_deploy.runtime.sources.ffmpeg import FFmpeg, film_command, find_ffmpeg
from jotr_deploy.runtime.sources.opening import VideoWriter, open_source

pytestmark = pytest.mark.slow

REMEDY = "mend that ffmpeg, or remove it from the PATH: OpenCV then writes the video"
FULL = "free disk space, or choose another -o"

# Writes a film with OpenCV out of the frames it is piped; `{broken}` runs before a frame, or before the encoders.
PROGRAM = """#!{python}
import os, sys, time
from pathlib import Path
import cv2, numpy as np
arguments = sys.argv[1:]
Path({log!r}).open("a").write(repr(arguments) + "\\n")
encoders, count = {encoders!r}, 0
if "-encoders" in arguments:
    phase = "list"
    {broken}
    print("Encoders:\\n V..... = Video\\n ------")
    print("\\n".join(f" V....D {{name:20}} {{name}} (codec)" for name in encoders))
    print(" A....D aac   AAC")
    sys.exit()
encoder = arguments[arguments.index("-c:v") + 1]
width, height = map(int, arguments[arguments.index("-s") + 1].split("x"))
rate = arguments[arguments.index("-r") + 1].split("/")
target = arguments[-1].removeprefix("file:")
phase = "trial" if "jotr-deploy-film-" in target else "film"
writer = cv2.VideoWriter(target, cv2.VideoWriter.fourcc(*"mp4v"), int(rate[0]) / int(*rate[1:] or "1"), (width, height))
while data := sys.stdin.buffer.read(3 * width * height):
    {broken}
    writer.write(np.frombuffer(data, np.uint8).reshape(height, width, 3))
    count += 1
writer.release()
phase += " end"
{broken}
"""


class Program:
    """The stand-in, alone on the PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        folder.mkdir()

    def is_put(
        self, broken: str = "pass", encoders: tuple[str, ...] = ("libx264", "libvpx-vp9"), start: str = ""
    ) -> None:
        path = self.folder / "ffmpeg"
        text = PROGRAM.format(python=sys.executable, log=str(self.log), encoders=encoders, broken=broken)
        path.write_text(start or text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    @property
    def calls(self) -> list[list[str]]:
        return [eval(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture
def program(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Program:
    folder = tmp_path_factory.mktemp("path") / "bin"
    monkeypatch.setenv("PATH", str(folder))
    return Program(folder)


def grey(value: int, size_px: tuple[int, int] = (32, 16)) -> np.ndarray:
    return np.full((size_px[1], size_px[0], 3), value, np.uint8)


def film(path: Path, count: int = 4, size_px: tuple[int, int] = (32, 16), fps: float = 12.0) -> VideoWriter:
    with VideoWriter(path, fps, find_ffmpeg()) as writer:
        for index in range(count):
            writer.write(grey(40 * index % 240, size_px))
    return writer


def greys(path: Path) -> list[int]:
    with open_source(path) as source:
        return [round(frame.image_bgr.mean() / 40) for frame in source]


@pytest.mark.skipif(sys.platform == "win32", reason="fcntl is of POSIX")
def test_a_pipe_that_may_not_grow_is_used_as_it_is(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refused(*arguments: object) -> int:
        asked.append(arguments)
        raise PermissionError("too many pages in this user's pipes")

    program.is_put()
    monkeypatch.setattr("fcntl.fcntl", refused)
    assert film(tmp_path / "film.mp4").codec == "H.264 by ffmpeg"
    assert greys(tmp_path / "film.mp4") == [0, 1, 2, 3]
    assert len(asked) == (1 if sys.platform == "linux" else 0)


@pytest.mark.parametrize("fps", [12.0, 30000 / 1001, 0.5])
@pytest.mark.parametrize("size_px", [(32, 16), (31, 17)])
def test_frames_go_through_the_program(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch, size_px: tuple[int, int], fps: float
) -> None:
    program.is_put()
    monkeypatch.chdir(tmp_path)
    assert film(Path("-a b$(x)%d.mp4"), size_px=size_px, fps=fps).codec == "H.264 by ffmpeg"
    assert [file.name for file in tmp_path.iterdir()] == ["-a b$(x)%d.mp4"]
    assert greys(tmp_path / "-a b$(x)%d.mp4") == [0, 1, 2, 3]
    with open_source(tmp_path / "-a b$(x)%d.mp4") as source:
        assert (source.size_px, source.fps) == (
            (32, 16) if size_px == (32, 16) else (32, 18),
            pytest.approx(fps, rel=1e-4),
        )
    *_, call = program.calls
    assert not any(argument.startswith("-a b") for argument in call)
    assert call[-1].startswith(f"file:{tmp_path}/.-a b$(x)%d.")
    assert ["yuv420p" in call, "+faststart" in call] == [True, True]


@pytest.mark.parametrize(
    ("encoders", "taken"),
    [
        (("aom", "libx264", "h264_nvenc", "libvpx-vp9"), ("libx264", "h264_nvenc", "libvpx-vp9")),
        (("libx264rgb", "h264_qsv", "libopenh264"), ("libopenh264", "h264_qsv")),
        (("libvpx-vp9", "vp9_qsv", "libvpx"), ("libvpx-vp9",)),
        (("mpeg4", "libx265"), None),
        ((), None),
    ],
)
def test_the_encoders_that_browsers_play_are_known(
    program: Program, encoders: tuple[str, ...], taken: tuple[str, ...] | None
) -> None:
    program.is_put(encoders=encoders)
    found = find_ffmpeg()
    assert (found.encoders if found else None) == taken


@pytest.mark.parametrize(
    ("bad", "codec"), [("libx264", "VP9 by ffmpeg"), ("libx264 libvpx-vp9", "mp4v by OpenCV"), ("", "H.264 by ffmpeg")]
)
def test_an_encoder_that_is_listed_and_does_not_work_is_passed_over(
    tmp_path: Path, program: Program, bad: str, codec: str
) -> None:
    program.is_put(f"phase != 'list' and encoder in {bad.split()} and sys.exit('no such card')")
    assert film(tmp_path / "a.mp4").codec == codec
    assert greys(tmp_path / "a.mp4") == [0, 1, 2, 3]
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    ("broken", "start"),
    [
        ("sys.exit(1)", ""),
        ("os.kill(os.getpid(), 9)", ""),
        ("phase == 'list' and (time.sleep(30))", ""),
        ("phase == 'trial' and (time.sleep(30))", ""),
        ("phase == 'trial end' and os.remove(target)", ""),
        ("phase == 'list' and (sys.stdout.buffer.write(bytes(range(256))), sys.exit())", ""),
        ("pass", "no program"),
        ("pass", "#!/no/such/interpreter\n"),
    ],
)
def test_a_program_that_does_not_work_is_not_used(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch, broken: str, start: str
) -> None:
    monkeypatch.setattr(films, "ANSWER_S", 2.0)
    program.is_put(broken, encoders=("libx264",), start=start)
    assert film(tmp_path / "a.mp4").codec == "mp4v by OpenCV"
    assert greys(tmp_path / "a.mp4") == [0, 1, 2, 3]


def test_without_a_program(tmp_path: Path, program: Program) -> None:
    assert find_ffmpeg() is None
    assert film(tmp_path / "a.mp4").codec == "mp4v by OpenCV"


@pytest.mark.parametrize(
    ("broken", "cause", "remedy"),
    [
        (
            "phase == 'film' and count == 1 and sys.exit('one\\nCodec is\\x1b odd')",
            r"ended after \d+ frames \(Codec is odd\)",
            REMEDY,
        ),
        (
            "phase == 'film' and count == 1 and sys.exit('Error closing file file:a.mp4: No space left on device')",
            r"ended after \d+ frames \(Error closing .* No space left on device\)",
            FULL,
        ),
        (
            "phase == 'film' and count == 1 and (os.close(0), time.sleep(0.5), sys.exit('slow to go'))",
            r"ended after \d+ frames \(slow to go\)",
            REMEDY,
        ),
        (
            "phase == 'film' and count == 1 and (os.close(0), time.sleep(60))",
            r"ended after \d+ frames \(it did not answer for 2 s\)",
            REMEDY,
        ),
        (
            "phase == 'film' and count == 1 and os.kill(os.getpid(), 9)",
            r"ended after \d+ frames \(ended by SIGKILL\)",
            "free memory, or draw a smaller picture with --overlay-scale",
        ),
        (
            "import signal; phase == 'film' and count == 1 and (signal.signal(25, 0), os.kill(os.getpid(), 25))",
            r"ended after \d+ frames \(ended by SIGXFSZ\)",
            "allow larger files there, or choose another -o",
        ),
        (
            "phase == 'film' and count == 1 and time.sleep(60)",
            r"ended after \d+ frames \(it did not answer for 3 s\)",
            REMEDY,
        ),
        ("phase == 'film end' and sys.exit('Disk quota exceeded')", r"ended after 30 frames \(Disk quota", FULL),
        ("phase == 'film end' and sys.exit(3)", r"ended after 30 frames \(exit code 3\)", REMEDY),
        ("phase == 'film end' and os.remove(target)", "only 0 of 30 frames could be written", "free disk space"),
        ("phase == 'film end' and os.truncate(target, 600)", "only 0 of 30 frames could be written", "free disk space"),
        (
            "phase == 'film' and count == 3 and (writer.release(), sys.stdin.buffer.read(), sys.exit())",
            "only 3 of 30",
            "free disk space",
        ),
    ],
)
def test_a_program_that_dies_leaves_no_film_and_the_older_one(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch, broken: str, cause: str, remedy: str
) -> None:
    program.is_put(broken, encoders=("libx264",))
    monkeypatch.setattr(films, "FRAME_S", 3.0)
    monkeypatch.setattr(films, "ENDING_S", 2.0)
    (tmp_path / "a.mp4").write_text("older")
    with pytest.raises(OutputError, match=cause) as caught:
        film(tmp_path / "a.mp4", 30, (256, 128))
    assert caught.value.cause.startswith(f"{tmp_path / 'a.mp4'}: ")
    assert caught.value.cause.isprintable()
    assert caught.value.remedy == remedy
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_text() == "older"


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
def test_a_run_that_ends_takes_its_film_away(tmp_path: Path, program: Program, stop: type[BaseException]) -> None:
    program.is_put()

    def stopped() -> None:
        with VideoWriter(tmp_path / "a.mp4", 12, find_ffmpeg()) as writer:
            writer.write(grey(0))
            raise stop

    with pytest.raises(stop):
        stopped()
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_is_not_for_the_program(tmp_path: Path, program: Program) -> None:
    program.is_put()
    with VideoWriter(tmp_path / "a.mp4", 12, find_ffmpeg()) as writer:
        writer.write(grey(0))
        assert os.getpgid(writer._film._process.pid) != os.getpgid(0)  # type: ignore[union-attr]


def test_times_are_kept_from_the_first_frame_on(tmp_path: Path, program: Program) -> None:
    program.is_put()
    with VideoWriter(tmp_path / "a.mp4", 10, find_ffmpeg()) as writer:
        for index, time_s in enumerate((7.0, 7.1, 7.104, 7.4)):
            writer.write(grey(40 * index), time_s)
    assert greys(tmp_path / "a.mp4") == [0, 1, 3, 3, 3]


@pytest.mark.parametrize(
    ("encoders", "said"),
    [
        (("libx264",), "H.264 by ffmpeg"),
        (("libvpx-vp9",), "VP9 by ffmpeg"),
        ((), "mp4v by OpenCV; install ffmpeg for one that plays in browsers"),
    ],
)
@pytest.mark.parametrize("options", [["--save-2d"], ["--no-overlay", "--save-2d"], ["--no-overlay"]], ids=" ".join)
def test_the_last_line_says_who_wrote(
    cli: Callable[..., Outcome], tmp_path: Path, tiny_bundle: Path, program: Program,
    encoders: tuple[str, ...], said: str, options: list[str],
) -> None:  # fmt: skip
    program.is_put(encoders=encoders)
    clip, out = video(tmp_path / "clip.mp4", 3), tmp_path / "out"
    outcome = cli("run", tiny_bundle, clip, "-o", out, "--people", "frame", *options)
    assert outcome.code == 0, outcome.err
    film = next((f"look at {out}/clip_{kind}.mp4 ({said}), or " for kind in kinds(options)), "")  # the first
    assert outcome.out.splitlines()[-1].endswith(f" files). Next: {film}jotr-deploy view {out}/clip.npz")
    assert [len(greys(out / f"clip_{kind}.mp4")) for kind in kinds(options)] == [3] * len(kinds(options))


def kinds(options: list[str]) -> list[str]:
    return [*([] if "--no-overlay" in options else ["overlay"]), *(["2d"] if "--save-2d" in options else [])]


def test_a_program_that_dies_in_a_run_leaves_nothing(
    cli: Callable[..., Outcome], tmp_path: Path, tiny_bundle: Path, program: Program
) -> None:
    program.is_put("phase == 'film end' and sys.exit('no room')", encoders=("libx264",))
    outcome = cli("run", tiny_bundle, video(tmp_path / "clip.mp4", 3), "-o", tmp_path / "out", "--people", "frame")
    assert outcome.mistake == (f"{tmp_path}/out/clip_overlay.mp4: ffmpeg ended after 3 frames (no room)", REMEDY)
    assert set(tree(tmp_path)) == {"clip.mp4"}


REAL = shutil.which("ffmpeg")


@pytest.mark.skipif(REAL is None, reason="there is no ffmpeg: apt-get install ffmpeg")
def test_the_real_program(tmp_path: Path) -> None:
    ramp = np.zeros((48, 64, 3), np.uint8)
    ramp[:, :32] = (200, 30, 60)
    found = find_ffmpeg()
    if found is None:
        pytest.skip("this ffmpeg has neither H.264 nor VP9")
    encoders = [name for name in found.encoders if FFmpeg(found.program, (name,)).encoder_for((64, 48), 12)]
    for encoder in encoders:
        path = tmp_path / f"-{encoder}.mp4"
        with VideoWriter(path, 12, FFmpeg(found.program, (encoder,))) as writer:
            for shift in range(4):
                writer.write(np.roll(ramp, 8 * shift, axis=1))
        data = path.read_bytes()
        assert 0 < data.index(b"moov") < data.index(b"mdat"), encoder
        with open_source(path) as source:
            frames = [frame.image_bgr for frame in source]
        assert len(frames) == 4
        for shift, frame in enumerate(frames):
            np.testing.assert_allclose(frame[24, 16 + 8 * shift], (200, 30, 60), atol=25, err_msg=encoder)
    if encoders:
        assert film(tmp_path / "a.mp4").codec in ("H.264 by ffmpeg", "VP9 by ffmpeg")


def test_the_command_names_rate_size_and_colours() -> None:
    command = film_command("ffmpeg", "h264_nvenc", Path("/x/a.mp4"), (1920, 1080), 30000 / 1001)
    text = " ".join(command)
    assert "-s 1920x1080 -r 30000/1001 -i pipe:0 -c:v h264_nvenc -b:v 9321878 " in text
    assert text.endswith("-movflags +faststart -f mp4 file:/x/a.mp4")
    assert "-colorspace bt709" in text
