"""The kind of a file by its first bytes, not its name; for messages about unexpected files."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

UNKNOWN = "data of an unknown kind"
_HEAD = 4096
_DOWNLOAD = "download the file itself, not the page about it"
_UNPACK = "unpack it and give the file inside"
AGAIN = "download or copy it again, and compare its size with that of the original"
_NO_INDEX = f"{AGAIN}; untrunc repairs a recording that was cut short, from an intact one of the same camera"

# Text that stands in for a file stored elsewhere: pattern, description, remedy.
_POINTERS: tuple[tuple[re.Pattern[bytes], str, str], ...] = (
    (re.compile(rb"version https://git-lfs\.github\.com/spec/"),
     "a Git LFS pointer (the file itself was not downloaded)",
     "get the file itself: git lfs pull"),
    (re.compile(rb"(\.\./)*(\.git/annex/objects|/annex/objects)/"),
     "a git-annex pointer (the file itself was not downloaded)", "get the file itself: git annex get"),
    (re.compile(rb"\s*(<!--.*?-->\s*)*(<!doctype html|<html|<head|<body|<script)", re.I | re.S),
     "an HTML page (a download page rather than the file)", _DOWNLOAD),
    (re.compile(
        rb"\s*(<\?xml[^>]*>\s*)?<Error>|\s*(404: )?Not Found\s*$|Entry not found\s*$|Access denied\b"
        rb"|Repository not found|Invalid (username or password|credentials)\b"
        rb"|\s*\{\s*\"(error|errors|message)\"\s*:\s*(\{\s*\"(code|message|errors)\"|\"[^\"]*\"\s*[,}])", re.S),
     "an error message of a download server", _DOWNLOAD),
    (re.compile(rb"\[InternetShortcut\]"), "a link to a web page rather than the file", _DOWNLOAD),
)  # fmt: skip

# Offset, bytes found there, description; the first match counts.
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (0, b"GIF87a", "a GIF picture"),
    (0, b"GIF89a", "a GIF picture"),
    (8, b"WEBP", "a WebP picture"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (0, b"II*\0\x10\0\0\0CR", "a camera's raw picture"),
    (0, b"II*\0", "a TIFF picture or a camera's raw picture"),
    (0, b"MM\0*", "a TIFF picture or a camera's raw picture"),
    (0, b"IIU\0", "a camera's raw picture"),
    (0, b"IIRO", "a camera's raw picture"),
    (0, b"IIRS", "a camera's raw picture"),
    (0, b"MMOR", "a camera's raw picture"),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw picture"),
    (0, b"8BPS", "a Photoshop picture"),
    (0, b"qoif", "a QOI picture"),
    (0, b"DDS |", "a DirectDraw picture"),
    (0, b"\x01\xda\0", "an SGI picture"),
    (0, b"\x01\xda\x01", "an SGI picture"),
    (0, b"\x0a\x05\x01", "a PCX picture"),
    (0, b"icns\0", "an Apple icon picture"),
    (0, b"%!PS-Adobe", "a PostScript document"),
    (0, b"PAR1", "a Parquet table"),
    (0, b"v/1\x01", "an OpenEXR picture"),
    (0, b"#?RADIANCE", "a Radiance HDR picture"),
    (0, b"\0\0\x01\0", "a Windows icon picture"),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (8, b"AVI ", "an AVI video"),
    (0, b"FLV\x01", "a Flash video"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "a Windows Media video"),
    (0, b"\0\0\x01\xba", "an MPEG video"),
    (0, b"\0\0\x01\xb3", "an MPEG video"),
    (0, b"OggS", "an Ogg video or sound"),
    (8, b"WAVE", "a WAV sound"),
    (0, b"ID3", "an MP3 sound"),
    (0, b"fLaC", "a FLAC sound"),
    (0, b"\x93NUMPY", "a NumPy array (.npy)"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (as Keras and MATLAB write)"),
    (0, b"MATLAB 5.0 MAT-file", "a MATLAB file"),
    (0, b"ftrt", "a TensorRT engine"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (4, b"ORTM", "an ONNX Runtime model (.ort)"),
    (0, b"GGUF", "a GGUF model"),
    (0, b"glTF", "a binary glTF (.glb)"),
    (0, b"Kaydara FBX Binary", "an FBX file"),
    (0, b"ply\n", "a PLY mesh"),
    (0, b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "an old-style PyTorch file"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ\0", "an xz archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"%PDF-", "a PDF document"),
    (0, b"\x7fELF", "a program or library for Linux"),
    (0, b"MZ", "a program or library for Windows"),
    (0, b"SQLite format 3\0", "an SQLite database"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Microsoft Office document"),
)  # fmt: skip

# Brand of an ISO base media file -> description.
_BRANDS: tuple[tuple[bytes, str], ...] = (
    (b"avif", "an AVIF picture"),
    (b"avis", "an AVIF picture"),
    (b"hei", "a HEIC picture"),
    (b"hev", "a HEIC picture"),
    (b"mif1", "a HEIF picture"),
    (b"msf1", "a HEIF picture"),
    (b"crx ", "a camera's raw picture"),
    (b"qt  ", "a QuickTime video"),
    (b"3g", "a 3GP video"),
    (b"M4A", "an M4A sound"),
)


_ISO_VIDEOS = ("an MP4 video", "a QuickTime video", "a 3GP video")


def describe_file(path: Path) -> str:
    """A noun phrase that describes a file's kind, with its article: "a JPEG picture", "an empty file".

    It never fails: an unreadable file is described as such. `advice` has a remedy for some kinds.
    """
    return _looked_at(path)[0]


def advice(path: Path) -> str | None:
    """The remedy for a file that stands in for another, is empty or cut off; None where the bytes do not tell."""
    return _looked_at(path)[1]


def _looked_at(path: Path) -> tuple[str, str | None]:
    """Description and remedy."""
    try:
        if path.is_dir():
            return "a folder", None
        if not path.exists():
            return "a link that leads nowhere" if path.is_symlink() else "no file at all", None
        if not path.is_file():
            return "no plain file", None
        with path.open("rb") as file:
            head = file.read(_HEAD)
        size = path.stat().st_size
    except (OSError, ValueError):
        return "a file that cannot be read", "check its permissions"
    if not head:
        return "an empty file", AGAIN
    if not head.strip(b"\0"):
        return "a file of zeros (as an unfinished download leaves)", AGAIN
    for pattern, what, remedy in _POINTERS:
        if pattern.match(head.removeprefix(b"\xef\xbb\xbf")):
            return what, remedy
    if head.startswith(b"PK"):
        return _zip(path)
    for offset, magic, what in _MAGIC:
        if head.startswith(magic, offset):
            return what, _UNPACK if what.endswith(" archive") else None
    found = next((kind for look in (_media, _weights, _text) if (kind := look(head, size))), UNKNOWN)
    if found in _ISO_VIDEOS and not _has_index(path, size):
        return f"{found} without its index (an unfinished recording or download)", _NO_INDEX
    return found, AGAIN if "cut off" in found else None


def _zip(path: Path) -> tuple[str, str | None]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # the library raises almost anything on damaged archives
        return "a zip archive that is cut off or damaged (.pth and .npz files are zip archives)", AGAIN
    ends = {name.rpartition("/")[2] for name in names}
    kinds: tuple[tuple[bool, str], ...] = (
        ({"data.pkl", "constants.pkl"} <= ends and any("/code/" in name for name in names), "a TorchScript model"),
        ("data.pkl" in ends, "a PyTorch archive"),
        (bool(names) and all(name.endswith(".npy") for name in names), "a NumPy archive (.npz)"),
        ("model.weights.h5" in ends, "a Keras model"),
        ("[Content_Types].xml" in ends, "a Microsoft Office document"),
        ("AndroidManifest.xml" in ends or "MANIFEST.MF" in ends, "a Java or Android package"),
    )
    found = next((what for fits, what in kinds if fits), None)
    return (found, None) if found else ("a zip archive", _UNPACK)


def _has_index(path: Path, size: int) -> bool:
    """True if one of the top-level boxes of an ISO base media file is its index."""
    with suppress(OSError), path.open("rb") as file:
        at = 0
        while at + 8 <= size:
            file.seek(at)
            box = file.read(16)
            if box[4:8] == b"moov":
                return True
            length = int.from_bytes(box[:4], "big")
            length = int.from_bytes(box[8:16], "big") if length == 1 else length
            if length < 8:  # extends to the end of the file
                return False
            at += length
    return False


def _media(head: bytes, size: int) -> str | None:
    """Pictures and videos that have no fixed first bytes."""
    if head[4:8] == b"ftyp":
        brands = [head[8:12], *(head[at : at + 4] for at in range(16, min(int.from_bytes(head[:4], "big"), 64), 4))]
        fit = (what for brand in brands for start, what in _BRANDS if brand.startswith(start))
        return next(fit, "an MP4 video")
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free"):
        return "a QuickTime video"
    if re.match(rb"P7\s", head):
        return "a PAM picture"
    if re.match(rb"P[1-6][\s#]", head):
        return "a PNM picture (.ppm, .pgm)"
    if head[:2] == b"BM" and len(head) > 18 and head[15:18] == b"\0\0\0" and head[6:10] == bytes(4):
        return "a BMP picture"
    if size > 188 * 2 and head[0] == 0x47 == head[188] == head[376:377][0]:
        return "an MPEG transport stream"
    if head[:2] in (b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2"):
        return "an MP3 sound"
    return None


def _weights(head: bytes, size: int) -> str | None:
    """Networks, weights and other Python data."""
    if head[8:9] == b"{" and head[9:10] in b'"} ' and 2 <= (length := int.from_bytes(head[:8], "little")) < 1 << 30:
        return "a safetensors file" if 8 + length <= size else "a safetensors file that is cut off"
    if (
        head[0] == 0x08
        and len(head) > 2
        and 3 <= head[1] <= 32
        and head[2] in (0x10, 0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A)
    ):
        return "an ONNX model"
    if re.match(rb"\x80[\x02-\x05]", head):
        return "a Python pickle"
    if re.match(rb"\(dp\d|\(lp\d|ccopy_reg\n|cnumpy", head):
        return "a Python pickle (of protocol 0)"
    return None


def _text(head: bytes, size: int) -> str | None:
    """Text, with its kind where the beginning tells."""
    text = _decoded(head, cut=size > len(head))
    if text is None:
        return None
    start = text.lstrip()
    kinds: tuple[tuple[Callable[[str], object], str], ...] = (
        (re.compile(r"[{\[]\s*([\"{\[\]}\d-]|$|null|true|false)").match, "JSON text"),
        (re.compile(r"(<\?xml[^>]*>\s*|<!DOCTYPE svg[^>]*>\s*|<!--.*?-->\s*)*<svg[\s>]", re.S).match, "an SVG picture"),
        (re.compile(r"<\?xml|<[A-Za-z][\w:.-]*[\s>/]").match, "XML text"),
        (re.compile(r"(#.*\n)*(mtllib|o|g|v|vn|vt) \S.*\n(.*\n)*v -?\d").match, "an OBJ mesh"),
        (re.compile(r"%YAML|---\s").match, "YAML text"),
        (re.compile(r"#!").match, "a script"),
        (re.compile(r"#EXTM3U").match, "a playlist of a stream (.m3u8)"),
    )
    return next((what for fits, what in kinds if fits(start)), "plain text")


def _decoded(head: bytes, cut: bool) -> str | None:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return head[: len(head) // 2 * 2].decode("utf-16", errors="ignore")
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if not (cut and error.start >= len(head) - 4):  # a character cut by the end of the head
            return None
        text = head[: error.start].decode("utf-8-sig")
    return text if not re.search(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]", text) else None
