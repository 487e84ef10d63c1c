"""Changes to mp4 files that no program here makes: other boxes, and frames at other times."""

from __future__ import annotations


def boxed(kind, content):
    return (8 + len(content)).to_bytes(4, "big") + kind + content


def inside(mp4, *kinds):
    """Place and size of a box, by the names of the boxes around it."""
    start, end = 0, len(mp4)
    for kind in kinds:
        while mp4[start + 4 : start + 8] != kind:
            start += int.from_bytes(mp4[start : start + 4], "big")
            assert start < end
        at, size = start, int.from_bytes(mp4[start : start + 4], "big")
        start, end = at + 8, at + size
    return at, size


def with_box(mp4, box, *kinds):
    """An mp4 whose index comes last, with one more box in front of those in the box of that path."""
    changed = bytearray(mp4)
    for depth in range(1, len(kinds) + 1):
        at, size = inside(mp4, *kinds[:depth])
        changed[at : at + 4] = (size + len(box)).to_bytes(4, "big")
    changed[at + 8 : at + 8] = box
    return bytes(changed)


def with_steps(mp4, steps):
    """A film at a constant rate, played at another: (count, factor) of frames shown `factor` times as long."""
    data = bytearray(mp4)
    at = data.index(b"stts")
    assert int.from_bytes(data[at + 8 : at + 12], "big") == 1
    count, delta = (int.from_bytes(data[at + place : at + place + 4], "big") for place in (12, 16))
    assert count == sum(number for number, _ in steps)
    rows = [number.to_bytes(4, "big") + (factor * delta).to_bytes(4, "big") for number, factor in steps]
    table = boxed(b"stts", bytes(4) + len(rows).to_bytes(4, "big") + b"".join(rows))
    data[at : at + 4] = b"free"
    data = data.replace(b"edts", b"free")
    return with_box(bytes(data), table, b"moov", b"trak", b"mdia", b"minf", b"stbl")
