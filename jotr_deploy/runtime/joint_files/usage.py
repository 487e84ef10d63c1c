"""Counts of how a run used a keypoint or box file, and what it left out."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from jotr_deploy.errors import KeypointFileError


@dataclass
class FileUse:
    """Counts of one run, updated with every picture."""

    path: Path
    entries: int  # in the file, people and others
    left_out: dict[str, int] = field(default_factory=dict)  # number of skipped entries by reason
    entries_used: int = 0  # entries that produced a person
    people_beyond: int = 0  # used people extending far beyond their picture
    pictures_matched: int = 0  # pictures listed in the file, possibly with nobody
    pictures_unmatched: int = 0  # pictures not listed in the file

    @property
    def entries_unused(self) -> int:
        """Number of entries for pictures that were not processed."""
        return self.entries - self.entries_used - sum(self.left_out.values())

    def picture(self, known: bool) -> None:
        """Count a picture."""
        if known:
            self.pictures_matched += 1
        else:
            self.pictures_unmatched += 1

    def leave_out(self, reasons: Iterable[str], name: str) -> None:
        """Count people of a picture that are left out, with a warning for the first of each kind."""
        for why in reasons:
            if why not in self.left_out:
                logging.getLogger("jotr_deploy").warning(
                    "%s: people %s are left out (first in '%s')", self.path, why, name
                )
            self.left_out[why] = self.left_out.get(why, 0) + 1

    def check_somebody(self) -> None:
        """Refuse a file that matched none of the pictures, or whose people were all left out.

        Raises:
            KeypointFileError: names the reason.
        """
        if self.entries and self.pictures_unmatched and not self.pictures_matched:
            raise KeypointFileError(
                f"{self.path}: no entry matches a picture that was read",
                "give the file made from this source; check its file names or frame numbers",
            )
        if self.left_out and not self.entries_used:
            why = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
            raise KeypointFileError(
                f"{self.path}: nobody in the file can be used: {why}",
                "check its coordinates and confidences; set --joints-in pixels, normalised or unrotated",
            )
