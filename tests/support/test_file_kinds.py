"""What a file is, whatever it is called."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from jotr_deploy.support.file_kinds import advice, describe_file

PICTURE = np.zeros((8, 8, 3), np.uint8)


def encoded(suffix: str) -> bytes:
    return bytes(cv2.imencode(suffix, PICTURE)[1])


def written(write: Callable[[Any], Any]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def zipped(*names: str) -> bytes:
    def write(buffer: Any) -> None:
        with zipfile.ZipFile(buffer, "w") as archive:
            for name in names:
                archive.writestr(name, "x")

    return written(write)


def network() -> bytes:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    return bytes(helper.make_model(graph).SerializeToString())


def safetensors(length: int = 2) -> bytes:
    return struct.pack("<Q", length) + b"{}"


TENSORS = {"weight": torch.zeros(2)}
NEW = written(lambda file: torch.save(TENSORS, file))
ISO = b"\0\0\0\x18ftyp%s\0\0\0\0%s"
MOOV = b"\0\0\0\x09free-\0\0\0\1mdat\0\0\0\0\0\0\0\x12xx\0\0\0\x08moov"
UNFINISHED = "without its index (an unfinished recording or download)"
HTML = "an HTML page (a download page rather than the file)"
CUT_ZIP = "a zip archive that is cut off or damaged (.pth and .npz files are zip archives)"
DOWNLOAD = "download the file itself, not the page about it"
AGAIN = "download or copy it again, and compare its size with that of the original"
REPAIR = "; untrunc repairs a recording that was cut short, from an intact one of the same camera"

CASES: list[tuple[bytes, str, str | None]] = [
    (b"", "an empty file", AGAIN),
    (bytes(5000), "a file of zeros (as an unfinished download leaves)", AGAIN),
    (b"<!DOCTYPE html><html>", HTML, DOWNLOAD),
    (b"\xef\xbb\xbf\n<!-- a note -->\n<HTML lang=en>", HTML, DOWNLOAD),
    *((content, "an error message of a download server", "download the file itself, not the page about it")
      for content in (b"404: Not Found", b"Entry not found\n", b"Invalid username or password.",
                      b'{"error":{"code":404,"message":"x"}}', b'{"message": "Not Found", "status": "404"}')),
    (b'{"error": [0.1, 0.2]}', "JSON text", None),
    (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an error message of a download server",
     DOWNLOAD),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
     "a Git LFS pointer (the file itself was not downloaded)", "get the file itself: git lfs pull"),
    (b"/annex/objects/SHA256E-s1--0.pth\n", "a git-annex pointer (the file itself was not downloaded)",
     "get the file itself: git annex get"),
    (NEW, "a PyTorch archive", None),
    (NEW[: len(NEW) // 2], CUT_ZIP, AGAIN),
    (b"PK\x03\x04", CUT_ZIP, AGAIN),
    (written(lambda file: torch.save(TENSORS, file, _use_new_zipfile_serialization=False)),
     "an old-style PyTorch file", None),
    (written(lambda file: np.savez(file, a=PICTURE)), "a NumPy archive (.npz)", None),
    (zipped("a.txt"), "a zip archive", "unpack it and give the file inside"),
    (zipped(), "a zip archive", "unpack it and give the file inside"),
    (zipped("m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"), "a TorchScript model", None),
    (zipped("[Content_Types].xml"), "a Microsoft Office document", None),
    (written(lambda file: np.save(file, PICTURE)), "a NumPy array (.npy)", None),
    (safetensors(), "a safetensors file", None),
    (safetensors(2000), "a safetensors file that is cut off", AGAIN),
    (network(), "an ONNX model", None),
    (pickle.dumps({"a": 1}, 2), "a Python pickle", None),
    (pickle.dumps({"a": 1}, 5), "a Python pickle", None),
    (pickle.dumps({"a": 1}, 0), "a Python pickle (of protocol 0)", None),
    (encoded(".jpg"), "a JPEG picture", None),
    (encoded(".png"), "a PNG picture", None),
    (encoded(".bmp"), "a BMP picture", None),
    (encoded(".webp"), "a WebP picture", None),
    (encoded(".ppm"), "a PNM picture (.ppm, .pgm)", None),
    (encoded(".tiff"), "a TIFF picture or a camera's raw picture", None),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 picture", None),
    (b"GIF89a\1\0", "a GIF picture", None),
    (ISO % (b"heic", b"mif1heic"), "a HEIC picture", None),
    (ISO % (b"mif1", b"mif1avif"), "a HEIF picture", None),
    (ISO % (b"avif", b"mif1miaf"), "an AVIF picture", None),
    (ISO % (b"isom", b"isomavc1") + MOOV, "an MP4 video", None),
    (ISO % (b"qt  ", b"qt  \0\0\0\0") + MOOV, "a QuickTime video", None),
    (ISO % (b"isom", b"isomavc1") + b"\0\0\xff\0mdat", f"an MP4 video {UNFINISHED}", AGAIN + REPAIR),
    (b"\0\0\0\x10mdat" + bytes(8) + b"\0\0\0\0mdat", f"a QuickTime video {UNFINISHED}", AGAIN + REPAIR),
    (b"\x1aE\xdf\xa3\x01", "a Matroska or WebM video", None),
    (b"RIFF\0\0\0\0AVI LIST", "an AVI video", None),
    (b"RIFF\0\0\0\0WAVEfmt ", "a WAV sound", None),
    (b"FLV\x01\x05", "a Flash video", None),
    ((b"\x47" + bytes(187)) * 4, "an MPEG transport stream", None),
    (b"ftrt\0\0", "a TensorRT engine", None),
    (b"\x1c\0\0\0TFL3", "a TensorFlow Lite model", None),
    (json.dumps({"people": []}).encode(), "JSON text", None),
    (b"[]", "JSON text", None),
    (b'\xef\xbb\xbf [\n {"a": 1}]', "JSON text", None),
    ('{"a": 1}'.encode("utf-16"), "JSON text", None),
    (b"[section]\nkey = 1\n", "plain text", None),
    (b"<annotation><size/></annotation>", "XML text", None),
    (b"# made by x\no a\nv 0 0 0\n", "an OBJ mesh", None),
    ("a: 人\n".encode() * 2000, "plain text", None),
    (b"image,x,y\n1,2,3\n", "plain text", None),
    (b"\x1f\x8b\x08", "a gzip archive", "unpack it and give the file inside"),
    (bytes(257) + b"ustar\0", "a tar archive", "unpack it and give the file inside"),
    (b"%PDF-1.7", "a PDF document", None),
    (bytes(range(1, 32)), "data of an unknown kind", None),
    (b"\xfe", "data of an unknown kind", None),
]  # fmt: skip


@pytest.mark.parametrize(("content", "what", "remedy"), CASES, ids=[f"{k} {case[1]}" for k, case in enumerate(CASES)])
def test_a_file_is_what_its_bytes_say(content: bytes, what: str, remedy: str | None, tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    assert (describe_file(path), advice(path)) == (what, remedy)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert describe_file(tmp_path) == "a folder"
    assert describe_file(tmp_path / "none") == "no file at all"
    assert describe_file(tmp_path / "pipe") == "no plain file"
    assert describe_file(Path("\0")) == "no file at all"


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([content for content, _, _ in CASES]),
    st.integers(0, 500),
    st.integers(0, 40),
    st.binary(max_size=4),
)
def test_any_bytes_have_a_name(tmp_path_factory: Any, content: bytes, cut: int, at: int, change: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated"
    path.write_bytes((content[:at] + change + content[at + len(change) :])[:cut])
    what = describe_file(path)
    assert what.split(" ")[0] in ("a", "an", "JSON", "XML", "YAML", "plain", "data")
    assert "\n" not in what


def test_the_onnx_file_of_the_table_is_one() -> None:
    onnx.checker.check_model(onnx.load_from_string(network()))
