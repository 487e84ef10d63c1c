"""The engine that opens an ONNX file on this CPU, if `bench --choose` has measured it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from jotr_deploy.bundle import sha256_of
from jotr_deploy.support.cache import user_cache
from jotr_deploy.support.processor import processor
from jotr_deploy.support.writing import folder_made, output_errors, written_aside


def choices() -> Path:
    """The file in the user's cache: processor -> sha256 of a network -> engine."""
    return user_cache() / "backends.json"


def remembered(path: Path) -> str | None:
    """The engine found faster for a file with these bytes; None if nothing was measured."""
    chosen = _stored().get(_here(), {})
    return chosen.get(sha256_of(path)) if chosen else None


def remember(path: Path, backend: str) -> None:
    """Remember to open this file with that engine.

    Raises:
        OutputError: the cache cannot be written.
    """
    stored = _stored()
    stored.setdefault(_here(), {})[sha256_of(path)] = backend
    with output_errors(choices()), folder_made(choices().parent), written_aside(choices()) as aside:
        aside.write_text(json.dumps(stored, indent=2) + "\n")


def _stored() -> dict[str, dict[str, str]]:
    """Content of the file; empty if it is damaged."""
    try:
        content: Any = json.loads(choices().read_text())
    except (OSError, ValueError):
        return {}
    whole = isinstance(content, dict) and all(isinstance(value, dict) for value in content.values())
    return content if whole else {}


def _here() -> str:
    name, flags = processor()
    return f"{name}, {os.cpu_count()} threads, {' '.join(flags)}"
