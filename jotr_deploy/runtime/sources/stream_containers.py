"""Video streams in containers that store no picture sizes: MPEG transport and program streams, AVI, Windows Media."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

_HEAD_BYTES = 1 << 22
_PACKET_BYTES = 188
_SYNC = 0x47
_VIDEO_TYPES = (0x01, 0x02, 0x10, 0x1B, 0x20, 0x24, 0x33, 0x42, 0xD1, 0xEA)  # in transport streams
_ASF_STREAM = bytes.fromhex("9107dcb7b7a9cf118ee600c00c205365")
_ASF_VIDEO = bytes.fromhex("c0ef19bc4d5bcf11a8fd00805f5c442b")


def video_streams_of(path: Path) -> list[int]:
    """FFmpeg's ids of a film's video streams, in file order; empty for another kind of file."""
    with suppress(OSError, IndexError), path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            return _of_avi(head)
        if head[:4] == b"\0\0\x01\xba":
            return _of_program(head)
        if head[:4] == b"0&\xb2u":
            return _of_asf(head)
        for size, skipped in ((_PACKET_BYTES, 0), (192, 4), (204, 0)):
            starts = range(skipped, min(len(head), 5 * size), size)
            if len(starts) > 2 and all(head[at] == _SYNC for at in starts):
                return _of_transport(head, size, skipped)
    return []


def _of_transport(data: bytes, size: int, skipped: int) -> list[int]:
    """The packet ids that the program tables list as video."""
    tables: set[int] = set()
    found: list[int] = []
    for start in range(skipped, len(data) - _PACKET_BYTES + 1, size):
        packet = data[start : start + _PACKET_BYTES]
        begins, pid, adapted = packet[1] & 0x40, (packet[1] & 0x1F) << 8 | packet[2], packet[3] & 0x20
        if packet[0] != _SYNC or not begins or not (pid == 0 or pid in tables):
            continue
        at = 5 + packet[4] if adapted else 4
        section = packet[at + 1 + packet[at] :]
        end = 3 + ((section[1] & 0x0F) << 8 | section[2]) - 4
        if pid == 0:
            tables.update((section[k + 2] & 0x1F) << 8 | section[k + 3] for k in range(8, end, 4))
            continue
        at = 12 + ((section[10] & 0x0F) << 8 | section[11])
        while at + 5 <= min(end, len(section)):
            stream = (section[at + 1] & 0x1F) << 8 | section[at + 2]
            if section[at] in _VIDEO_TYPES and stream not in found:
                found.append(stream)
            at += 5 + ((section[at + 3] & 0x0F) << 8 | section[at + 4])
    return found


def _of_program(data: bytes) -> list[int]:
    return [
        0x100 + byte for byte in dict.fromkeys(match[1][0] for match in re.finditer(b"\0\0\x01([\xe0-\xef])", data))
    ]


def _of_avi(data: bytes) -> list[int]:
    heads = [match.end() for match in re.finditer(rb"strh....", data[: data.find(b"movi")], re.DOTALL)]
    return [number for number, at in enumerate(heads) if data[at : at + 4] == b"vids"]


def _of_asf(data: bytes) -> list[int]:
    starts = [match.start() for match in re.finditer(re.escape(_ASF_STREAM), data)]
    return [data[at + 72] & 0x7F for at in starts if data[at + 24 : at + 40] == _ASF_VIDEO]
