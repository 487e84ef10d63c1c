"""How much of a file of joints or boxes a run used, and what it left out."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from jotr_deploy.errors import KeypointFileError


@dataclass
class FileUse:
    """Counts of one run, which grow with every picture."""

    path: Path
    entries: int  # in the file, of persons and of others
    left_out: dict[str, int] = field(default_factory=dict)  # entries that gave nobody: why, and how many
    entries_used: int = 0  # that gave a person
    people_beyond: int = 0  # of those used, who reach far beyond their picture
    pictures_matched: int = 0  # that the file knows, perhaps as showing nobody
    pictures_unmatched: int = 0  # that the file does not know

    @property
    def entries_unused(self) -> int:
        """Entries of pictures that were not looked at."""
        return self.entries - self.entries_used - sum(self.left_out.values())

    def picture(self, known: bool) -> None:
        """Count a picture."""
        if known:
            self.pictures_matched += 1
        else:
            self.pictures_unmatched += 1

    def leave_out(self, reasons: Iterable[str], name: str) -> None:
        """Count people of a picture that are left out; the first of every kind is told."""
        for why in reasons:
            if why not in self.left_out:
                logging.getLogger("jotr_deploy").warning(
                    "%s: people %s are left out (first in '%s')", self.path, why, name
                )
            self.left_out[why] = self.left_out.get(why, 0) + 1

    def check_somebody(self) -> None:
        """Refuse a file that knows none of the pictures, and one whose people were all left out.

        Raises:
            KeypointFileError: naming why.
        """
        if self.entries and self.pictures_unmatched and not self.pictures_matched:
            raise KeypointFileError(
                f"{self.path}: no entry belongs to a picture that was read",
                "give the file made from this source; look at its file names or numbers of frames",
            )
        if self.left_out and not self.entries_used:
            why = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
            raise KeypointFileError(
                f"{self.path}: nobody in the file can be used: {why}",
                "look at its places and confidences; --joints-in pixels, normalised or unrotated says what they are",
            )
