"""Kernel timings, kept between builds: one file for each user, TensorRT version and type of GPU."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from jotr_deploy.errors import OutputError
from jotr_deploy.support.aliases import Say
from jotr_deploy.support.cache import user_cache
from jotr_deploy.support.writing import written_aside


def timing_cache_path(here: Mapping[str, str], kernel: Path | None = None) -> Path:
    """Path of the user's timings for this TensorRT on this type of GPU.

    Args:
        here: properties of this machine that engines depend on, including "tensorrt", "gpu" and "capability".
        kernel: source of a kernel that goes into the engine. TensorRT cannot tell one such kernel from the next and
            would reuse the old one's times, so that every source has a file of its own.
    """
    base = user_cache()
    gpu = "".join(letter if letter.isalnum() else "-" for letter in here["gpu"].lower())
    source = f".{hashlib.sha256(kernel.read_bytes()).hexdigest()[:12]}" if kernel else ""
    return base / f"tensorrt-{here['tensorrt']}.{gpu}.sm{here['capability'].replace('.', '')}{source}.timings"


def use_timings(config: Any, path: Path, say: Say) -> None:
    """Give the builder the known timings; those of another GPU or TensorRT are ignored."""
    try:
        known = path.read_bytes()
    except OSError:
        known = b""
    cache = config.create_timing_cache(known)
    if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
        return
    if known:
        say(f"{path} holds the timings of another GPU or TensorRT: starting anew")
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def keep_timings(config: Any, path: Path, say: Say) -> None:
    """Write the timings known now, merged with those that another builder has written in the meantime."""
    cache = config.get_timing_cache()
    if cache is None:
        return
    with suppress(OSError):
        other = config.create_timing_cache(path.read_bytes())
        if other is not None:
            cache.combine(other, ignore_mismatch=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(path) as aside:
            aside.write_bytes(bytes(cache.serialize()))
    except (OSError, OutputError):
        say(f"{path}: cannot be written; the next build times every kernel again")
