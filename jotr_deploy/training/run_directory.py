"""Directory of a run: its configuration, the code and versions it ran with, and its newest checkpoint."""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import jotr_deploy
from jotr_deploy.body.tensors import TORCH_FILES, read_tensors
from jotr_deploy.support.distributions import installed_version
from jotr_deploy.support.read_errors import read_errors
from jotr_deploy.support.writing import output_errors, written_aside
from jotr_deploy.training.run_config import TrainConfig, TrainingError

FORMAT = "jotr-deploy-run/1"
CONFIG, ENVIRONMENT, EVENTS = "config.toml", "environment.json", "events"
CHECKPOINT, WEIGHTS, BEST = "checkpoint.pt", "weights.pt", "best.pt"
CURVES, CURVES_PICTURE = "curves.jsonl", "curves.png"
_PACKAGES = ("jotr-deploy", "torch", "accelerate", "numpy", "opencv-python-headless")
_MAY_DIFFER = ("workers", "checkpoint_minutes")  # they do not affect results


def begin_run(directory: Path, config: TrainConfig) -> None:
    """Write configuration and environment before the first step.

    Raises:
        TrainingError: there is a run already.
        OutputError: not writable.
    """
    require_unused(directory)
    with output_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    with written_aside(directory / CONFIG) as aside:
        aside.write_text(config.as_toml(), encoding="utf-8")
    with written_aside(directory / ENVIRONMENT) as aside:
        aside.write_text(json.dumps(environment(), indent=2) + "\n", encoding="utf-8")


def require_unused(directory: Path) -> None:
    """Refuse a directory with a run in it.

    Raises:
        TrainingError: there is one.
    """
    if (directory / CHECKPOINT).exists() or (directory / WEIGHTS).exists():
        raise TrainingError(f"{directory}: already contains a run", "continue it with --resume, or give another -o")


def environment() -> dict[str, Any]:
    """Commit of the code (None outside a repository), a flag for local changes, versions, machine."""
    versions = {name: installed_version(name) for name in _PACKAGES}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    commit, changed = git_state(Path(jotr_deploy.__file__).parent)
    return {
        "git_commit": commit,
        "git_dirty": changed,
        "versions": versions,
        "python": platform.python_version(),
        "device": device,
        "threads": torch.get_num_threads(),
    }


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """(commit, flag of local changes) of the repository that tracks `folder`; (None, None) without one."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # an installed package may lie inside somebody's repository
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def write_checkpoint(directory: Path, config: TrainConfig, processes: int, state: dict[str, Any]) -> None:
    """Replace the run's checkpoint; `state` holds tensors, numbers and text only.

    Raises:
        OutputError: not writable; the older checkpoint stays.
    """
    content = {"format": FORMAT, "config": config.model_dump(), "processes": processes, **state}
    with written_aside(directory / CHECKPOINT) as aside:
        torch.save(content, aside)


def read_checkpoint(directory: Path, config: TrainConfig, processes: int) -> dict[str, Any] | None:
    """Checkpoint written by `write_checkpoint`; None if the run has none yet.

    Raises:
        TrainingError: damaged, or of a run with another configuration or number of processes.
    """
    path = directory / CHECKPOINT
    if not path.exists():
        return None
    remedy = "give the configuration of this run (its config.toml), or another -o"
    what, anew = "the checkpoint of a run", "start anew with another -o"
    try:
        with read_errors(path, TrainingError, what, anew, TORCH_FILES):
            content = read_tensors(path, TrainingError, what, anew)
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']!r}")
            theirs = TrainConfig.model_validate(content["config"])
    except TrainingError as error:
        raise TrainingError(error.cause, anew) from error
    differing = _differences(theirs.model_dump(), config.model_dump())
    if differing:
        raise TrainingError(f"{directory}: the run has another configuration ({'; '.join(differing)})", remedy)
    if content["processes"] != processes:
        raise TrainingError(
            f"{directory}: the run has {content['processes']} processes, not {processes}", "start as many as before"
        )
    return dict(content)


def _differences(theirs: dict[str, Any], ours: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in dict.fromkeys((*theirs, *ours)):
        a, b = theirs.get(key), ours.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            inner = f"{ours.get('task')}." if key == "options" else f"{prefix}{key}."
            found += _differences(a, b, inner)
        elif a != b and not (prefix == "" and key in _MAY_DIFFER):
            found.append(f"{prefix}{key} {a} there, {b} here")
    return found
