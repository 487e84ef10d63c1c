"""Text from a file that is to become a path: it stays inside its folder, and every system can hold it."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

LONGEST_NAME = 200
"""Bytes of UTF-8. File systems end at 255; what is written beside a file adds to its name."""
_LONGEST_STEM = LONGEST_NAME - 40  # what is made of it gets an ending: `_000012_overlay.jpg`

_SEPARATORS = "/\\"
_REFUSED = frozenset('<>:"|?*')  # by Windows; a colon is also its drives and streams
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])[ ]*(\..*)?", re.I | re.S)
_CONTROL = ("Cc", "Cs", "Zl", "Zp")  # of Unicode: control characters, lone surrogates, ends of lines


def name_fault(name: str) -> str | None:
    """Why a text is no bare file name that every system takes and that is shown as it is; None for one that is.

    >>> name_fault("mesh.fp16.onnx"), name_fault("../mesh.onnx")
    (None, 'has a path separator')
    """
    faults = {
        "is empty": not name,
        "has a path separator": any(mark in name for mark in _SEPARATORS),
        "begins with a dot": name.startswith("."),  # `.` and `..`, and what this package writes aside
        "has control characters": any(unicodedata.category(letter) in _CONTROL for letter in name),
        f"has one of {''.join(sorted(_REFUSED))}": not _REFUSED.isdisjoint(name),
        "begins or ends with a space, or ends with a dot": name != name.strip(" ").rstrip("."),
        "is reserved on Windows": _DEVICES.fullmatch(name) is not None,
        f"is longer than {LONGEST_NAME} bytes": len(name.encode(errors="replace")) > LONGEST_NAME,
    }
    return next((fault for fault, found in faults.items() if found), None)


def path_inside(folder: Path, name: str, *, below: bool = False) -> Path:
    """The path of a file in a folder, by a name that was read from a file.

    Args:
        folder: where it must stay.
        name: a bare file name.
        below: take a relative path with `/` as well, such as `images/0001.jpg`.

    Raises:
        ValueError: it is neither; its text is one line for the user.
    """
    parts = [part for part in name.split("/") if part != "."] if below and not name.startswith("/") else [name]
    for part in parts or [""]:
        if fault := name_fault(part):
            raise ValueError(f"the file name {shown_name(name)} {fault}")
    return folder.joinpath(*parts)


def as_file_name(text: str) -> str:
    """The nearest bare file name to any text: what may not be in one becomes `_`, and a long one is cut
    so that there is room for an ending.

    >>> as_file_name("walk 12:30?"), as_file_name("..")
    ('walk 12_30_', '_')
    """
    kept = "".join("_" if name_fault(f"x{letter}x") else letter for letter in text)
    kept = re.sub(r"^[. ]+|[. ]+$", "_", kept)
    while len(kept.encode()) > _LONGEST_STEM:
        kept = kept[:-1].rstrip(" .")
    return f"_{kept}" if name_fault(kept) else kept


def shown_name(name: str) -> str:
    """A name in quotes for a message: on one line, not too long, control characters escaped."""
    text = ascii(name) if any(unicodedata.category(letter) in _CONTROL for letter in name) else repr(name)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-10:]}"
