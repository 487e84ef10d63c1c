"""What a library raises on bad bytes is said in the product's own words."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from jotr_deploy.errors import BundleError, SessionError, SourceError
from jotr_deploy.support.read_errors import read_errors, read_onnx, shortened

KINDS = ("plain text",)


def refused(path: Path, fault: BaseException) -> tuple[str, str]:
    with pytest.raises(SourceError) as error, read_errors(path, SourceError, "a picture", "give another", KINDS):
        raise fault
    assert "\n" not in error.value.cause + error.value.remedy
    return error.value.cause.removeprefix(f"{path}: "), error.value.remedy


@pytest.mark.parametrize(
    "fault",
    [AssertionError(), TypeError("x"), struct.error("y"), NotImplementedError(), MemoryError(), RecursionError(),
     OSError(22, "Invalid argument"), OSError("no number"), UnicodeDecodeError("utf-8", b"a", 0, 1, "bad")],
    ids=lambda fault: type(fault).__name__,
)  # fmt: skip
def test_any_exception_is_one_of_ours(tmp_path: Path, fault: Exception) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\xff\xd8\xff")
    assert refused(path, fault) == ("not a picture: it is a JPEG picture", "give another")
    path.write_text("text")
    assert refused(path, fault)[0].startswith("plain text, but damaged or not a picture (")
    path.write_bytes(b"")
    again = "download or copy it again, and compare its size with that of the original"
    assert refused(path, fault) == ("not a picture: it is an empty file", again)


@pytest.mark.parametrize("fault", [EOFError("Ran out of input"), RuntimeError("unexpected EOF, expected 3 more bytes")])
def test_a_file_that_ends_too_early_is_to_be_got_again(tmp_path: Path, fault: Exception) -> None:
    path = tmp_path / "a.jpg"
    path.write_text("text")
    assert refused(path, fault)[1] == "download or copy it again, and compare its size with that of the original"
    path.write_bytes(b"\xff\xd8\xff")
    assert refused(path, fault)[1] == "give another"


def test_what_the_system_says_is_said(tmp_path: Path) -> None:
    assert refused(tmp_path, IsADirectoryError(21, "Is a directory")) == (
        "cannot be read (Is a directory)", "check the path and its permissions",
    )  # fmt: skip
    assert refused(tmp_path / "no", FileNotFoundError(2, "No such file", str(tmp_path / "no"))) == (
        "no such file", "give another",
    )  # fmt: skip


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), BundleError("a", "b"), FileNotFoundError(2, "x", "elsewhere")])
def test_what_is_nothing_of_the_file_passes(tmp_path: Path, fault: BaseException) -> None:
    with pytest.raises(type(fault)), read_errors(tmp_path, SourceError, "a picture", "give another"):
        raise fault


def test_a_message_is_one_short_line_that_can_be_shown() -> None:
    assert shortened("plain") == "plain"
    assert shortened("a\x1b[2J\n") == r"a\x1b[2J\n"
    assert len(shortened("x" * 1000)) == 160


@pytest.mark.parametrize(
    ("content", "cause"),
    [(b"", "not an ONNX model: it is an empty file"), (b"<html>", "not an ONNX model: it is an HTML page"),
     (b"\x08\x07\x12\xff\xff", "an ONNX model, but damaged ("),
     (b"\x08\x07\x12\x03abc", "an ONNX model, but damaged (it has no graph)")],
)  # fmt: skip
def test_what_is_no_network(tmp_path: Path, content: bytes, cause: str) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(SessionError) as error:
        read_onnx(tmp_path / "a.onnx")
    assert error.value.cause.startswith(f"{tmp_path / 'a.onnx'}: {cause}")
