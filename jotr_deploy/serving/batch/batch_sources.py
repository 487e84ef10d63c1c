"""The sources of a batch: every film is one, and so are the pictures of a folder or a glob together."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jotr_deploy.errors import SourceError
from jotr_deploy.runtime.run_outputs import stem_for
from jotr_deploy.runtime.sources.opening import files_of_glob, spelt_on_disk
from jotr_deploy.runtime.sources.picture_kinds import kind_of_file
from jotr_deploy.support.file_kinds import describe_file

RESERVED = ("plan.json",)
"""Names in the results directory that no source may take."""


def found_sources(given: Sequence[str]) -> list[str]:
    """Absolute paths and globs of the sources meant, each once, in the order given; those of a folder by name.

    Raises:
        SourceError: something given that is not a file, a folder or a glob, or holds neither films nor pictures.
    """
    found: list[str] = []
    for text in given:
        found += _of(text)
    return list(dict.fromkeys(found))


def _of(text: str) -> list[str]:
    if not text or "://" in text or (re.fullmatch(r"[0-9]{1,3}", text) and not Path(text).exists()):
        raise SourceError(
            f"{text or 'an empty SOURCE'}: batch works on files that every machine can read",
            "give films, pictures, folders or globs; cameras and URLs are for jotr-deploy run",
        )
    path = spelt_on_disk(Path(text))
    if path.is_file():
        return [str(path.absolute())]
    if path.is_dir():
        files = [each for each in path.iterdir() if each.is_file() and not each.name.startswith(".")]
        pictures, whole = [each for each in files if kind_of_file(each) is not None], str(path.absolute())
    else:
        files = [
            each for each in files_of_glob(path) if each.exists()
        ]  # links that lead nowhere fail when they are read
        pictures, whole = [each for each in files if kind_of_file(each) is not None], str(path.absolute())
        if pictures and len(pictures) < len(files):
            raise SourceError(f"{text}: matches pictures and other files", "give a glob of its own for each kind")
    films = sorted(set(files) - set(pictures), key=lambda each: each.name)
    named = [str(each.absolute()) for each in films if _is_film(each)]
    if not pictures and not named:
        for_folder = f"subfolders are not searched: give '{text}/**/*.mp4'"
        remedy = for_folder if path.is_dir() else "give a pattern that matches films or pictures"
        raise SourceError(f"{text}: neither films nor pictures", remedy)
    return ([whole] if pictures else []) + named


def _is_film(path: Path) -> bool:
    what = describe_file(path)
    return "video" in what or "stream" in what


def state_of(source: str) -> dict[str, Any]:
    """Mark of a source's version: size and time of a file, or a hash of those of all pictures."""
    path = Path(source)
    if path.is_file():
        return _stat(path)
    files = [each for each in (path.iterdir() if path.is_dir() else files_of_glob(path)) if each.is_file()]
    rows = sorted([each.name, *_stat(each).values()] for each in files if not each.name.startswith("."))
    return {"files": len(rows), "sha256": hashlib.sha256(json.dumps(rows).encode()).hexdigest()}


def _stat(path: Path) -> dict[str, Any]:
    found = path.stat()
    return {"size": found.st_size, "mtime_ns": found.st_mtime_ns}


def folder_names(sources: Iterable[tuple[str, str]]) -> list[str]:
    """A folder of results for each source, by kind and name: no two are alike on any system."""
    taken = {_alike(name) for name in RESERVED}
    names = []
    for kind, name in sources:
        stem = stem_for(kind, name)
        number, folder = 1, stem
        while _alike(folder) in taken:
            number += 1
            folder = f"{stem}-{number}"
        taken.add(_alike(folder))
        names.append(folder)
    return names


def _alike(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
