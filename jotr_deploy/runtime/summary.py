"""The summary of a run: frames read, people found, files used, and anything that deserves a second look."""

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
    """Alignment of people to their joints; errors are mean joint distances, over the people who were moved."""

    moved: int = 0  # meshes
    kept: int = 0  # meshes left as recovered
    before_percent: float | None = None  # of the crop's side
    after_percent: float | None = None


@dataclass
class FitOutcome:
    """Fit of the people; the counts are of people in frames."""

    preset: str
    files: list[dict[str, str]]  # of the bundle, and a pose prior: "role", "name" and "sha256"
    accepted: int = 0  # people for whom the energy fell
    mirrored: int = 0  # of those, from the start mirrored in depth
    warm: int = 0  # of those, from pose and place in the frame before
    no_better: int = 0  # returned unchanged, as nothing with a lower energy was found
    outside: int = 0  # unchanged, as no cell of the crop lies in the picture
    not_before_camera: int = 0  # unchanged, as the body is not wholly in front of the camera
    people: list[dict[str, Any]] = field(default_factory=list)  # in order: "frame", "track_id" and "fit"

    def see(self, frame: Frame, people: People) -> None:
        """Count the people of a frame."""
        fits = [] if people.fit is None else [people.fit[k] for k in range(len(people))]
        for fit, track_id in zip(fits, people.track_ids.tolist(), strict=False):
            self.accepted += fit.accepted
            self.mirrored += fit.mirrored
            self.warm += fit.warm
            self.no_better += fit.tried and not fit.accepted
            self.outside += fit.outside
            self.not_before_camera += not (fit.tried or fit.outside)
            self.people.append({"frame": frame.index, "track_id": track_id, "fit": fit.as_dict()})

    def without_people(self) -> dict[str, Any]:
        """All but the list, which a `.npz` has in arrays."""
        return {name: value for name, value in vars(self).items() if name != "people"}

    @property
    def prior(self) -> dict[str, str] | None:
        """File of the pose prior that people were fitted in the latent of; None where their start held them."""
        return next((file for file in self.files if file["role"] == "vposer"), None)

    @property
    def unchanged(self) -> int:
        """Number of people left as the mesh network gave them."""
        return self.no_better + self.outside + self.not_before_camera


@dataclass
class RunSummary:
    """Everything a run read, found and wrote; stored as `NAME.json` beside its results."""

    source: str
    bundle: str
    labels: list[str]
    frames: int = 0
    people: int = 0
    people_per_frame: list[int] = field(default_factory=list)
    tracks: int = 0  # number of different people, where they are tracked
    skeleton: str | None = None  # joint order of the networks that found people; None if none were used
    networks: list[dict[str, str]] = field(default_factory=list)  # that found people: "role", "file" and "sha256"
    camera: list[str] = field(default_factory=list)  # origins of the pictures' cameras, each once
    alignment: Alignment | None = None  # None where people stay as recovered
    fit: FitOutcome | None = None  # None where none was asked for
    every: int = 1  # every Nth frame was processed
    sizes_px: list[list[int]] = field(default_factory=list)  # width, height of the pictures, each once
    frames_read: int = 0  # from the source, including those that failed afterwards
    left_out: dict[str, str] = field(default_factory=dict)  # files and frames of the source not read, and why
    damage: str | None = None  # of a video with fewer frames than it should have
    joints: dict[str, Any] | None = None  # how much of a file of joints or boxes was used; None without one
    few_joints: int = 0  # people for whom the network was given fewer than `FEW_JOINTS` joints
    skipped: list[str] = field(default_factory=list)  # frames that failed, each with its cause
    unwritten: list[str] = field(default_factory=list)  # result files left out, each with the reason
    dropped: int = 0  # camera frames that arrived too fast to be processed
    ended: str | None = None  # why the source ended early; the results are complete up to there
    seconds: float = 0.0
    milliseconds_per_frame: dict[str, float] = field(default_factory=dict)  # mean of every stage
    files: list[str] = field(default_factory=list)  # relative to the output directory
    earlier: list[str] = field(default_factory=list)  # files of an earlier run in the same directory
    output: str | None = None  # that directory; None where nothing was written
    film: str | None = None  # codec of the films and the program that wrote them; None if there are none

    def as_dict(self) -> dict[str, Any]:
        """Content of `NAME.json`, without its location, so equal runs write equal files."""
        return {name: value for name, value in asdict(self).items() if name not in ("output", "film")}

    def see(self, frame: Frame, people: People) -> None:
        """Count the people of a frame."""
        self.people_per_frame.append(len(people))
        if self.fit is not None:
            self.fit.see(frame, people)
        self.few_joints += int((people.joints_used < FEW_JOINTS).sum())
        if (size := [*size_of(frame.image_bgr)]) not in self.sizes_px:
            self.sizes_px.append(size)

    def close(self, source: FrameSource, use: FileUse | None) -> None:
        """Add the counts of the source and of the file of joints or boxes."""
        self.every, self.frames_read, self.dropped = source.every, source.read, source.dropped
        self.left_out, self.damage = dict(source.left_out), source.damage
        if use is not None:
            self.joints = {
                "file": str(use.path), "entries": use.entries, "entries_used": use.entries_used,
                "entries_unused": use.entries_unused, "left_out": dict(use.left_out),
                "people_beyond": use.people_beyond,
                "pictures_matched": use.pictures_matched, "pictures_unmatched": use.pictures_unmatched,
            }  # fmt: skip

    def unclean(self) -> Iterator[tuple[str, str]]:
        """Every issue of the run, as a keyword and one line each; nothing for a clean run."""
        for why in self.skipped:
            yield "skipped", why
        for name, why in self.left_out.items():
            if not any(line.startswith(name) for line in self.skipped):
                yield "not read", f"{name}: {why.removeprefix(f'{name}: ')}"
        for why in self.unwritten:
            yield "not written", why
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
    if joints["entries_unused"] and every == 1:  # otherwise they belong to frames skipped on purpose
        yield "unused", f"{joints['entries_unused']} of {joints['entries']} entries belong to no picture that was read"
    if joints["people_beyond"] and 2 * joints["people_beyond"] >= joints["entries_used"]:
        people = f"{joints['people_beyond']} of {joints['entries_used']} people"
        yield "beyond", f"{people} extend far beyond their picture; does the file belong to pictures of another size?"
    if joints["pictures_unmatched"]:
        pictures = joints["pictures_matched"] + joints["pictures_unmatched"]
        yield "unmatched", f"{joints['pictures_unmatched']} of {pictures} pictures are not in {joints['file']}"
