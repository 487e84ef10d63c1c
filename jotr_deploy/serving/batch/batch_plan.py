"""The plan of a batch, written once: what is to be done, cut into units that any process on any machine can take."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from jotr_deploy.bundle import MANIFEST, Bundle, sha256_of
from jotr_deploy.errors import JotrDeployError, OutputError, SessionError, first_line
from jotr_deploy.runtime.finding.people_networks import NetworkFile, networks_by, own_networks
from jotr_deploy.runtime.run import open_model
from jotr_deploy.runtime.run_parts import Part
from jotr_deploy.serving.batch.batch_options import BatchOptions
from jotr_deploy.serving.batch.batch_sources import folder_names, found_sources, state_of
from jotr_deploy.serving.batch.source_probe import probed
from jotr_deploy.support.distributions import installed_version
from jotr_deploy.support.writing import output_errors

PLAN = "plan.json"
FORMAT = 1
PICTURES_PER_MINUTE = 25 * 60
"""Pictures that count as a minute of film."""


@dataclass(frozen=True)
class PlannedSource:
    """A source, and where it is cut."""

    path: str  # absolute, or a glob
    state: dict[str, Any]  # see `state_of`
    folder: str  # of its results
    frames: int  # about: containers estimate it
    even: bool  # see `sources.video_file.Video`
    cuts: list[int]  # first frames of its parts


@dataclass(frozen=True)
class Unit:
    """A piece of work: a source, part of one, or the joining of its parts."""

    key: str  # name of its files
    kind: Literal["whole", "part", "join"]
    source: int
    part: Part
    frames: int  # about


@dataclass(frozen=True)
class Plan:
    """Sources, bundle, options and cuts: all that decides the results of a batch."""

    bundle: str  # absolute path
    bundle_sha256: str  # of its manifest
    version: str | None  # of this package
    networks: list[str]  # hashes of those that find people
    options: BatchOptions
    sources: list[PlannedSource]

    @cached_property
    def units(self) -> list[Unit]:
        """All units, in the order of the sources."""
        return [unit for units in self._by_source for unit in units]

    def units_of(self, number: int) -> list[Unit]:
        """Units of a source: one, or its parts and then their joining."""
        return self._by_source[number]

    @cached_property
    def _by_source(self) -> list[list[Unit]]:
        return [self._cut(number) for number in range(len(self.sources))]

    def _cut(self, number: int) -> list[Unit]:
        source = self.sources[number]
        if len(source.cuts) == 1:
            return [self._unit("whole", number, Part(0, None), source.frames)]
        ends: list[int | None] = [*source.cuts[1:], None]
        parts = [Part(first, end, source.even) for first, end in zip(source.cuts, ends, strict=True)]
        sizes = [(part.end or max(source.frames, part.first)) - part.first for part in parts]
        units = [self._unit("part", number, part, size) for part, size in zip(parts, sizes, strict=True)]
        return [*units, self._unit("join", number, Part(0, None), 0)]

    def _unit(self, kind: Literal["whole", "part", "join"], number: int, part: Part, frames: int) -> Unit:
        source = self.sources[number]
        text = json.dumps(
            [self.bundle_sha256, self.version, self.networks, self.options.as_dict(), source.path, source.state, kind,
             part.first, part.end]
        )  # fmt: skip
        return Unit(hashlib.sha256(text.encode()).hexdigest()[:20], kind, number, part, frames)

    def as_dict(self) -> dict[str, Any]:
        """Content of `plan.json`."""
        return {
            "format": FORMAT, "bundle": self.bundle, "bundle_sha256": self.bundle_sha256, "version": self.version,
            "networks": self.networks, "options": self.options.as_dict(),
            "sources": [asdict(source) for source in self.sources],
        }  # fmt: skip

    @classmethod
    def read(cls, output: Path) -> Plan:
        """The plan of a results directory.

        Raises:
            OutputError: there is none, or it cannot be read, is damaged or is another file.
        """
        path = output / PLAN
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values.pop("format") != FORMAT:
                raise ValueError
            options = BatchOptions.from_dict(values.pop("options"))
            sources = [PlannedSource(**source) for source in values.pop("sources")]
            return cls(**values, options=options, sources=sources)
        except OSError as error:
            raise OutputError(
                f"{path}: cannot be read ({error.strerror or first_line(error)})",
                "check its permissions, and that this machine has the disk it is on",
            ) from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise OutputError(
                f"{path}: is damaged ({first_line(error)})", "remove it to plan again, or choose another -o"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OutputError(
                f"{path}: not a plan of this version of jotr-deploy batch", "choose another -o"
            ) from error


def planned(
    bundle: Bundle,
    given: Sequence[str],
    output: Path,
    options: BatchOptions,
    told: Callable[[int, int], None] = lambda done, total: None,
    elsewhere: bool = False,
) -> Plan:
    """The plan of these sources in a directory: written there, or, where one is, checked to be the same.

    Args:
        bundle: opened.
        given: files, folders and globs.
        output: directory of results.
        options: see there.
        told: called with the number of sources looked at, and all of them.
        elsewhere: only other machines work on it, which may have a device that this one lacks.

    Raises:
        OutputError: the directory has another plan, whose differences are named, or is not one for results.
        SourceError: nothing to work on.
        JotrDeployError: a bundle that cannot be used here, before a plan of it is written.
    """
    if (output / MANIFEST).is_file():
        raise OutputError(f"{output}: is a bundle, where results do not belong", "choose another -o")
    paths, options = found_sources(given), options.stamped()
    networks = [file.sha256 for file in _networks(bundle, options)]
    plan = Plan(
        str(bundle.path.absolute()), sha256_of(bundle.path / MANIFEST), installed_version("jotr-deploy"), networks,
        options, [PlannedSource(path, state_of(path), "", 0, False, [0]) for path in paths],
    )  # fmt: skip
    if not (output / PLAN).exists():
        with suppress(*[SessionError] * elsewhere):
            _require_usable(bundle, options)
        _write(output, replace(plan, sources=list(_cut(plan, told))))
    existing = Plan.read(output)
    if different := list(_differences(existing, plan)):
        more = f", and {len(different) - 1} more" if len(different) > 1 else ""
        raise OutputError(
            f"{output / PLAN}: is the plan of another batch: {different[0]}{more}",
            "give the command it was made with, or choose another -o",
        )
    return existing


def _require_usable(bundle: Bundle, options: BatchOptions) -> None:
    """Open the model once, so that no plan is left of a bundle that has to be mended first."""
    with open_model(bundle, options.for_run(None), options.fitter(bundle, None)) as model:
        model.people_source()


def _networks(bundle: Bundle, options: BatchOptions) -> list[NetworkFile]:
    if options.people in ("auto", "blazepose", "detector"):
        return networks_by(options.people, bundle, options.device)
    return own_networks(bundle, ("pose",), options.device)


def _cut(plan: Plan, told: Callable[[int, int], None]) -> Iterator[PlannedSource]:
    options, paths = plan.options, [source.path for source in plan.sources]
    long_frames = options.shard_minutes * PICTURES_PER_MINUTE / 2  # at half the usual rate
    answers = []
    for answer in probed(paths, long_frames):
        answers.append(answer)
        told(len(answers), len(paths))
    named = [
        (answer["kind"], Path(source.path).name if answer["name"] is None else answer["name"])
        for source, answer in zip(plan.sources, answers, strict=True)
    ]
    for source, answer, folder in zip(plan.sources, answers, folder_names(named), strict=True):
        per_minute = answer["fps"] * 60 or PICTURES_PER_MINUTE
        shard = max(1, round(options.shard_minutes * per_minute / options.block)) * options.block
        cuts = list(range(0, max(answer["frames"], 1), shard))
        yield replace(source, folder=folder, frames=answer["frames"], even=answer["even"], cuts=cuts)


def _write(output: Path, plan: Plan) -> None:
    """Write the plan if there is none yet; of several processes at once the first wins, and the others compare."""
    with output_errors(output / PLAN):
        output.mkdir(parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(prefix=".plan.", dir=output)
        aside = Path(name)
        try:
            with os.fdopen(number, "w", encoding="utf-8") as file:
                json.dump(plan.as_dict(), file, indent=1, ensure_ascii=False)
                file.write("\n")
            try:
                (output / PLAN).hardlink_to(aside)
            except FileExistsError:
                return
            except OSError:  # a file system without links; equal plans replace each other
                aside.replace(output / PLAN)
        finally:
            aside.unlink(missing_ok=True)


def _differences(old: Plan, new: Plan) -> Iterator[str]:
    """Difference between a plan and one not cut yet, in words."""
    if old.bundle_sha256 != new.bundle_sha256:
        yield f"bundle {old.bundle} was another one, or has changed"
    if old.version != new.version:
        yield f"jotr-deploy was {old.version}, is {new.version}"
    if old.networks != new.networks:
        yield "people were found by other networks: see jotr-deploy fetch people"
    before, now = old.options.as_dict(), new.options.as_dict()
    for name in now:
        if before.get(name) != now[name]:
            yield f"option {name} was {before.get(name)}, is {now[name]}"
    known, given = {each.path: each for each in old.sources}, {each.path: each for each in new.sources}
    for path in known.keys() | given.keys():
        if path not in given:
            yield f"{path} was a source, and is not given"
        elif path not in known:
            yield f"{path} was no source"
        elif known[path].state != given[path].state:
            yield f"{path} has changed since"
    if list(known) != list(given) and known.keys() == given.keys():
        yield "the sources were given in another order"


def require_same(plan: Plan, bundle: Bundle, networks: Sequence[str]) -> None:
    """Refuse a machine whose results would be others than those of the machine that made the plan.

    Raises:
        JotrDeployError: another bundle or camera, or another version of this package; or people would be found by other
            `networks`, which are the hashes of those used here.
    """
    version = installed_version("jotr-deploy")
    changed = {
        f"{plan.bundle}: is not the bundle of the plan": sha256_of(bundle.path / MANIFEST) != plan.bundle_sha256,
        f"{plan.options.camera}: is not the camera of the plan": plan.options.stamped() != plan.options,
        f"jotr-deploy is {version} here, {plan.version} in the plan": version != plan.version,
    }
    for cause in (cause for cause, found in changed.items() if found):
        raise JotrDeployError(cause, "make the machines alike, or choose another -o")
    if list(networks) != plan.networks:
        raise JotrDeployError(
            "this machine finds people by other networks than the one that made the plan",
            "run jotr-deploy fetch people here too, or make both use one XDG_DATA_HOME",
        )
