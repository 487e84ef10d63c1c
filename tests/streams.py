"""A server on this machine that plays videos over HTTP, well or badly; damage for mp4 files; a camera by hand."""

from __future__ import annotations

import queue
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np

Answer = Callable[[BaseHTTPRequestHandler, threading.Event], None]


@contextmanager
def served(answer: Answer) -> Iterator[str]:
    """Answer every request on a free port; gives `http://127.0.0.1:PORT`. The event is set when the block ends."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(BrokenPipeError, ConnectionResetError):  # the reader has what it wants
                answer(self, ended)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


def plays(data: bytes, stop_at: int | None = None, then: str = "close") -> Answer:
    """A file, in ranges; at byte `stop_at` the server closes or stalls."""

    def answer(handler: BaseHTTPRequestHandler, ended: threading.Event) -> None:
        start = int((handler.headers.get("Range") or "bytes=0-").split("=")[1].split("-")[0])
        handler.send_response(206)
        handler.send_header("Accept-Ranges", "bytes")
        handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        handler.wfile.write(data[start:stop_at])
        handler.wfile.flush()
        if stop_at is not None and then == "stall":
            ended.wait()

    return answer


def camera(images: Sequence[bytes], then: str = "close", gap_s: float = 0.03) -> Answer:
    """JPEG after JPEG, as cameras in a network send them; after the last one the server closes or stalls."""

    def answer(handler: BaseHTTPRequestHandler, ended: threading.Event) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        for image in images:
            head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(image)
            handler.wfile.write(head + image + b"\r\n")
            handler.wfile.flush()
            ended.wait(gap_s)
        if then == "stall":
            ended.wait()

    return answer


def never(handler: BaseHTTPRequestHandler, ended: threading.Event) -> None:
    """Take the request and say nothing."""
    ended.wait()


def says(code: int, body: bytes = b"") -> Answer:
    def answer(handler: BaseHTTPRequestHandler, ended: threading.Event) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def jpeg(grey: int, size_px: tuple[int, int] = (64, 48)) -> bytes:
    image = np.full((size_px[1], size_px[0], 3), grey, np.uint8)
    return bytes(cv2.imencode(".jpg", image)[1].tobytes())


def index_first(mp4: bytes) -> bytes:
    """A file of `VideoWriter` with its index in front of the frames, which plays while it is cut off."""
    boxes, place = {}, 0
    while place < len(mp4):
        size = int.from_bytes(mp4[place : place + 4], "big")
        boxes[mp4[place + 4 : place + 8]] = mp4[place : place + size]
        place += size
    index = bytearray(boxes[b"moov"])
    at = index.index(b"stco") + 12  # of the one chunk there is
    index[at : at + 4] = struct.pack(">I", struct.unpack_from(">I", index, at)[0] + len(index))
    return boxes[b"ftyp"] + bytes(index) + boxes[b"free"] + boxes[b"mdat"]


def without_frames(mp4: bytes, lost: Sequence[int]) -> bytes:
    """A file of `VideoWriter` with zeros in place of some frames."""
    damaged = bytearray(mp4)
    at = mp4.index(b"stsz") + 4
    sizes = struct.unpack_from(f">{struct.unpack_from('>I', mp4, at + 8)[0]}I", mp4, at + 12)
    start = struct.unpack_from(">I", mp4, mp4.index(b"stco") + 12)[0]
    for index in lost:
        place = start + sum(sizes[:index])
        damaged[place : place + sizes[index]] = bytes(sizes[index])
    return bytes(damaged)


class ByHand:
    """A capture whose frames the test hands over: images, "broken" ones, "dark" ones that can never be had, errors."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self._given: queue.Queue[Any] = queue.Queue()
        self._image: Any = None
        self._reading = False

    def give(self, *steps: Any) -> None:
        """Returns when all of them are behind the reader, who waits for the next one."""
        for step in steps:
            self._given.put(step)
        self._given.join()

    def give_up(self) -> None:
        """Whatever is read from now on, there is nothing."""
        self._given.put("gone")

    def grab(self) -> bool:
        if self._reading:
            self._given.task_done()
        self._reading = True
        self._image = self._given.get()
        if isinstance(self._image, Exception):
            self._given.task_done()
            raise self._image
        if isinstance(self._image, str) and self._image == "gone":
            self._given.put("gone")  # for ever
        return isinstance(self._image, np.ndarray) or self._image == "dark"

    def retrieve(self) -> tuple[bool, Any]:
        return (False, None) if isinstance(self._image, str) else (True, self._image)

    def get(self, prop: int) -> float:
        return {cv2.CAP_PROP_FPS: 30.0}.get(prop, 0.0)

    def release(self) -> None:
        self.released.set()
