"""The summary of a run: what was read, found, used and left out, and what a careful reader should look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from jotr_deploy.people import People
from jotr_deploy.runtime.finding.people_source import FEW_JOINTS
from jotr_deploy.runtime.joint_files.usage import FileUse
from jotr_deploy.runtime.sources.frame_source import Frame, FrameSource, size_of


@dataclass
class Alignment:
    """How people were moved onto their joints; errors are mean distances of joints, of those who were moved."""

    moved: int = 0  # meshes
    kept: int = 0  # as recovered
    before_percent: float | None = None  # of the side of the crop
    after_percent: float | None = None


@dataclass
class RunSummary:
    """What a run did; written as `NAME.json` beside its results."""

    source: str
    bundle: str
    labels: list[str]
    frames: int = 0
    people: int = 0
    people_per_frame: list[int] = field(default_factory=list)
    tracks: int = 0  # how many different people, where they are tracked
    skeleton: str | None = None  # joint order of the networks that found people; None where none was used
    networks: list[dict[str, str]] = field(default_factory=list)  # that found people: "role", "file" and "sha256"
    camera: list[str] = field(default_factory=list)  # where those of the pictures are known from, each once
    alignment: Alignment | None = None  # None where people stay as recovered
    every: int = 1  # one frame in so many was asked for
    sizes_px: list[list[int]] = field(default_factory=list)  # width, height of the pictures, each once
    frames_read: int = 0  # of the source; those that failed afterwards too
    left_out: dict[str, str] = field(default_factory=dict)  # files and frames of the source that were not read, and why
    damage: str | None = None  # of a video that has fewer frames than it should
    joints: dict[str, Any] | None = None  # how much of a file of joints or boxes was used; None without one
    few_joints: int = 0  # people of whom the network was given fewer than `FEW_JOINTS` joints
    skipped: list[str] = field(default_factory=list)  # frames that failed, each with its cause
    dropped: int = 0  # frames of a camera that came faster than they could be taken
    ended: str | None = None  # why before the end of the source; what is written is complete up to there
    seconds: float = 0.0
    milliseconds_per_frame: dict[str, float] = field(default_factory=dict)  # mean of every stage
    files: list[str] = field(default_factory=list)  # relative to the output directory
    earlier: list[str] = field(default_factory=list)  # of a run before, not of this one, in the same directory
    output: str | None = None  # that directory; None where nothing was written
    film: str | None = None  # codec of the films that were written, and by what; None where there are none

    def as_dict(self) -> dict[str, Any]:
        """For `NAME.json`, which does not say where it lies or who wrote: equal runs write equal files."""
        return {name: value for name, value in asdict(self).items() if name not in ("output", "film")}

    def see(self, frame: Frame, people: People) -> None:
        """Count the people of a frame."""
        self.people_per_frame.append(len(people))
        self.few_joints += int((people.joints_used < FEW_JOINTS).sum())
        if (size := [*size_of(frame.image_bgr)]) not in self.sizes_px:
            self.sizes_px.append(size)

    def close(self, source: FrameSource, use: FileUse | None) -> None:
        """Take over what the source and the file of joints or boxes counted themselves."""
        self.every, self.frames_read, self.dropped = source.every, source.read, source.dropped
        self.left_out, self.damage = dict(source.left_out), source.damage
        if use is not None:
            self.joints = {
                "file": str(use.path), "entries": use.entries, "entries_used": use.entries_used,
                "entries_unused": use.entries_unused, "left_out": dict(use.left_out),
                "pictures_matched": use.pictures_matched, "pictures_unmatched": use.pictures_unmatched,
            }  # fmt: skip

    def unclean(self) -> Iterator[tuple[str, str]]:
        """Everything that was not as it should be, a word for its kind and a line each; nothing of a clean run."""
        for why in self.skipped:
            yield "skipped", why
        for name, why in self.left_out.items():
            if not any(line.startswith(name) for line in self.skipped):
                yield "not read", f"{name}: {why.removeprefix(f'{name}: ')}"
        if self.damage:
            yield "damaged", self.damage
        if self.ended:
            yield "ended early", self.ended
        if self.joints:
            yield from _unused(self.joints, self.every)
        if self.few_joints:
            yield (
                "few joints",
                f"{self.few_joints} of {self.people} meshes were made from fewer than {FEW_JOINTS} joints",
            )
        if not self.people:
            doubt = "; are the joints or boxes those of this source?" if self.joints else ""
            yield "note", f"nobody was found{doubt}"


def _unused(joints: dict[str, Any], every: int) -> Iterator[tuple[str, str]]:
    for why, number in joints["left_out"].items():
        yield "left out", f"{number} of {joints['entries']} entries: people {why}"
    if joints["entries_unused"] and every == 1:  # else they are of frames that nobody asked for
        yield "unused", f"{joints['entries_unused']} of {joints['entries']} entries belong to no picture that was read"
    if joints["pictures_unmatched"]:
        pictures = joints["pictures_matched"] + joints["pictures_unmatched"]
        yield "unmatched", f"{joints['pictures_unmatched']} of {pictures} pictures are not in {joints['file']}"
