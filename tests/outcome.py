"""What a command did, and what a folder holds: for tests of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple


class Outcome(NamedTuple):
    """The end of one command."""

    code: int
    out: str
    err: str

    @property
    def mistake(self) -> tuple[str, str]:
        """Cause and remedy of a refusal: the last two lines of stderr, the only ones of their kind."""
        lines = self.err.splitlines()
        assert self.code == 2, self
        assert self.out == ""
        assert "Traceback" not in self.err
        assert [line.split(" ")[0] for line in lines[-2:]] == ["error:", "remedy:"], self.err
        assert not any(line.startswith(("error:", "remedy:")) for line in lines[:-2]), self.err
        return lines[-2].removeprefix("error: "), lines[-1].removeprefix("remedy: ")


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, hidden or not: the bytes of files, None for folders."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        found[str(path.relative_to(folder))] = path.read_bytes() if path.is_file() else None
    return found


def full_disk(*_: Any, **__: Any) -> None:
    """Stands for a call that writes."""
    raise OSError(28, "No space left on device")
