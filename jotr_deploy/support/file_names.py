"""File names from untrusted text: paths stay inside their folder, and names are valid on every system."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

LONGEST_NAME = 200
"""Bytes of UTF-8. File systems allow 255; names of temporary files beside it are longer."""
_LONGEST_STEM = LONGEST_NAME - 40  # room for endings such as `_000012_overlay.jpg`

_SEPARATORS = "/\\"
_REFUSED = frozenset('<>:"|?*')  # by Windows; a colon also marks its drives and streams
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])[ ]*(\..*)?", re.I | re.S)
_CONTROL = ("Cc", "Cs", "Zl", "Zp")  # Unicode categories: control characters, lone surrogates, line and paragraph ends


def name_fault(name: str) -> str | None:
    """The reason why a text is not a bare file name that is valid and displayed alike on every system; None if it is.

    >>> name_fault("mesh.fp16.onnx"), name_fault("../mesh.onnx")
    (None, 'has a path separator')
    """
    faults = {
        "is empty": not name,
        "has a path separator": any(mark in name for mark in _SEPARATORS),
        "begins with a dot": name.startswith("."),  # `.` and `..`, and temporary files of this package
        "has control characters": any(unicodedata.category(letter) in _CONTROL for letter in name),
        f"has one of {''.join(sorted(_REFUSED))}": not _REFUSED.isdisjoint(name),
        "begins or ends with a space, or ends with a dot": name != name.strip(" ").rstrip("."),
        "is reserved on Windows": _DEVICES.fullmatch(name) is not None,
        f"is longer than {LONGEST_NAME} bytes": len(name.encode(errors="replace")) > LONGEST_NAME,
    }
    return next((fault for fault, found in faults.items() if found), None)


def path_inside(folder: Path, name: str, *, below: bool = False) -> Path:
    """The path of a file in a folder, from a name that was read from a file.

    Args:
        folder: the path must stay inside it.
        name: a bare file name.
        below: also accept a relative path with `/`, such as `images/0001.jpg`.

    Raises:
        ValueError: it is neither; the text is one line for the user.
    """
    parts = [part for part in name.split("/") if part != "."] if below and not name.startswith("/") else [name]
    for part in parts or [""]:
        if fault := name_fault(part):
            raise ValueError(f"the file name {shown_name(name)} {fault}")
    return folder.joinpath(*parts)


def as_file_name(text: str) -> str:
    """The closest bare file name to any text: invalid characters become `_`, and long names are cut to leave room
    for an ending.

    >>> as_file_name("walk 12:30?"), as_file_name("..")
    ('walk 12_30_', '_')
    """
    kept = "".join("_" if name_fault(f"x{letter}x") else letter for letter in text)
    kept = re.sub(r"^[. ]+|[. ]+$", "_", kept)
    while len(kept.encode()) > _LONGEST_STEM:
        kept = kept[:-1].rstrip(" .")
    return f"_{kept}" if name_fault(kept) else kept


def shown_name(name: str) -> str:
    """A name in quotes for a message: one line, not too long, control characters escaped."""
    text = ascii(name) if any(unicodedata.category(letter) in _CONTROL for letter in name) else repr(name)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-10:]}"
