"""Several video streams in containers that do not tell their sizes."""

import shutil
import subprocess

import numpy as np
import pytest

from jotr_deploy.runtime.sources.opening import open_source
from jotr_deploy.runtime.sources.stream_containers import video_streams_of

VIDEO, SOUND = 0x1B, 0x0F


def packet(pid, section):
    """A packet of a transport stream that begins a section."""
    return (bytes([0x47, 0x40 | pid >> 8, pid & 255, 0x10, 0]) + section).ljust(188, b"\xff")


def table(kind, body):
    length = 5 + len(body) + 4
    return bytes([kind, 0xB0 | length >> 8, length & 255, 0, 1, 0xC1, 0, 0]) + body + bytes(4)


def transport(*streams):
    programs = table(0, (1).to_bytes(2, "big") + (0xE000 | 0x1000).to_bytes(2, "big"))
    each = b"".join(bytes([kind, 0xE0 | pid >> 8, pid & 255, 0xF0, 0]) for kind, pid in streams)
    return packet(0, programs) + packet(0x1000, table(2, bytes([0xE1, 0, 0xF0, 0]) + each)) + packet(0x1FFF, b"") * 3


def stretched(packets, before, after):
    return b"".join(before + packets[at : at + 188] + after for at in range(0, len(packets), 188))


def avi(*kinds):
    return b"RIFF\0\0\0\0AVI " + b"".join(b"strh8\0\0\0" + kind + bytes(52) for kind in kinds) + b"LIST\0\0\0\0movi"


STREAM, FILM = "9107dcb7b7a9cf118ee600c00c205365", "c0ef19bc4d5bcf11a8fd00805f5c442b"


def asf(*numbers):
    streams = (bytes.fromhex(STREAM) + bytes(8) + bytes.fromhex(FILM) + bytes(32) + bytes([n, 0]) for n in numbers)
    return bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + bytes(14) + b"".join(streams)


@pytest.mark.parametrize(
    ("data", "numbers"),
    [
        (b"", []),
        (b"G" * 1000, []),
        (transport(), []),
        (transport((SOUND, 300)), []),
        (transport((VIDEO, 256), (SOUND, 300), (VIDEO, 257)), [256, 257]),
        (stretched(transport((VIDEO, 256), (VIDEO, 257)), bytes(4), b""), [256, 257]),  # of a camcorder
        (stretched(transport((VIDEO, 256), (VIDEO, 257)), b"", bytes(16)), [256, 257]),
        (transport((VIDEO, 256), (VIDEO, 257))[:220], []),  # cut off
        (b"\0\0\x01\xba....\0\0\x01\xe0..\0\0\x01\xc0..\0\0\x01\xe1..\0\0\x01\xe0", [0x1E0, 0x1E1]),
        (avi(b"vids"), [0]),
        (avi(b"auds", b"vids", b"vids"), [1, 2]),
        (asf(1, 2), [1, 2]),
    ],
)
def test_streams_of_video(tmp_path, data, numbers):
    (tmp_path / "film").write_bytes(data)
    assert video_streams_of(tmp_path / "film") == numbers


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg")
@pytest.mark.parametrize("suffix", ["ts", "avi", "mpg", "asf"])
def test_the_largest_stream_is_read(tmp_path, suffix):
    film = tmp_path / f"it's.{suffix}"
    codec = "mpeg4" if suffix == "avi" else "mpeg2video"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "color=red:s=32x32:d=0.4:r=25", "-f", "lavfi", "-i",
               "color=blue:s=96x64:d=0.4:r=25", "-map", "0", "-map", "1", "-c:v", codec, str(film)]  # fmt: skip
    if subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
        pytest.skip(f"this ffmpeg writes no {suffix}")
    with open_source(film) as source:
        frames = list(source)
    assert {frame.image_bgr.shape for frame in frames} == {(64, 96, 3)}
    assert len(frames) >= 9
    np.testing.assert_allclose(frames[0].image_bgr[32, 48], [255, 0, 0], atol=8)
