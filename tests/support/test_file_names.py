"""Names that were read from files: none leaves its folder, and every system can hold those that pass."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotr_deploy.support.file_names import LONGEST_NAME, as_file_name, name_fault, path_inside, shown_name

SEPARATOR, DOT = "has a path separator", "begins with a dot"
CONTROL, RESERVED = "has control characters", "is reserved on Windows"
MARK, EDGE = 'has one of "*:<>?|', "begins or ends with a space, or ends with a dot"
LONG = f"is longer than {LONGEST_NAME} bytes"

FAULTS = [
    ("", "is empty"),
    (".", DOT),
    ("..", DOT),
    (".hidden", DOT),
    ("../mesh.onnx", SEPARATOR),
    ("/etc/passwd", SEPARATOR),
    ("mesh/../../x", SEPARATOR),
    ("mesh/", SEPARATOR),
    ("..\\mesh.onnx", SEPARATOR),
    ("\\\\server\\share", SEPARATOR),
    ("C:\\mesh.onnx", SEPARATOR),
    ("C:mesh.onnx", MARK),
    ("mesh.onnx:stream", MARK),
    ("mesh\0.onnx", CONTROL),
    ("mesh\n.onnx", CONTROL),
    ("\x1b[2J", CONTROL),
    ("a\x7f", CONTROL),
    ("a\x85b", CONTROL),
    ("a\u2028b", CONTROL),
    ("a\ud800", CONTROL),
    ("a?", MARK),
    ("mesh.onnx.", EDGE),
    ("mesh.onnx ", EDGE),
    (" mesh.onnx", EDGE),
    ("CON", RESERVED),
    ("nul.onnx", RESERVED),
    ("Com1.tar.gz", RESERVED),
    ("aux .txt", RESERVED),
    ("LPT\u00b9", RESERVED),
    ("a" * (LONGEST_NAME + 1), LONG),
    ("é" * LONGEST_NAME, LONG),
]
FINE = [
    "mesh.onnx",
    "mesh.fp16.sm90.engine",
    "a",
    "a b..c",
    "Ünïcödé 人.jpg",
    "console.txt",
    "com.onnx",
    "com10",
    "a" * LONGEST_NAME,
]


@pytest.mark.parametrize(("name", "fault"), [*FAULTS, *((name, None) for name in FINE)])
def test_a_bare_name_or_why_not(name: str, fault: str | None, tmp_path: Path) -> None:
    assert name_fault(name) == fault
    if fault is None:
        assert path_inside(tmp_path, name) == tmp_path / name
        return
    with pytest.raises(ValueError, match=re.escape(fault)) as error:
        path_inside(tmp_path, name)
    assert "\n" not in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("a.jpg", "a.jpg"),
        ("x/y/a.jpg", "x/y/a.jpg"),
        ("./x/./a.jpg", "x/a.jpg"),
        ("", None),
        (".", None),
        ("/a.jpg", None),
        ("//a.jpg", None),
        ("x//a.jpg", None),
        ("x/", None),
        ("../a.jpg", None),
        ("x/../../a.jpg", None),
        ("x/..", None),
        ("x\\..\\a.jpg", None),
        ("C:/a.jpg", None),
        ("x/nul/a.jpg", None),
        ("x/\0/a.jpg", None),
    ],
)
def test_a_path_below_a_folder(name: str, place: str | None) -> None:
    if place is None:
        with pytest.raises(ValueError, match="the file name"):
            path_inside(Path("set"), name, below=True)
    else:
        assert path_inside(Path("set"), name, below=True) == Path("set") / place


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", "_"),
        ("photo", "photo"),
        ("..", "_"),
        ("../../etc/passwd", "__.._etc_passwd"),
        (".hidden", "_hidden"),
        ("12:30", "12_30"),
        ("a\0\n\\b", "a___b"),
        ("a.", "a_"),
        ("NUL", "_NUL"),
    ],
)
def test_the_nearest_file_name(text: str, name: str) -> None:
    assert as_file_name(text) == name


@given(
    st.text(st.one_of(st.characters(), st.sampled_from("./\\ :\0Nn")), max_size=300)
    | st.sampled_from([n for n, _ in FAULTS])
)
def test_any_text_becomes_a_name_and_stays_one(text: str) -> None:
    name = as_file_name(text)
    assert name_fault(name) is None
    assert as_file_name(name) == name


def test_a_long_text_is_cut_between_letters() -> None:
    assert as_file_name("é" * 300) == "é" * ((LONGEST_NAME - 40) // 2)


def test_a_name_in_a_message_is_one_short_line() -> None:
    assert shown_name("a'b") == '"a\'b"'
    assert shown_name("a\nb\x1b") == r"'a\nb\x1b'"
    assert len(shown_name("x" * 1000)) < 80
