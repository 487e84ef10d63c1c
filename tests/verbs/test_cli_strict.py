"""A run tells what it read, used and left out; with --strict a program hears of it too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from outcome import Outcome, tree
from pictures import person, picture, video, write

Cli = Callable[..., Outcome]


def joints(folder: Path, *entries: dict[str, Any]) -> Path:
    return write(folder / "k.json", list(entries))


def larger(entry: dict[str, Any]) -> dict[str, Any]:
    """The person of a picture twice as large."""
    return {**entry, "keypoints": [2 * value if at % 3 < 2 else value for at, value in enumerate(entry["keypoints"])]}


def test_a_clean_run_is_strict_too(cli: Cli, tmp_path: Path, tiny_bundle: Path) -> None:
    clip = video(tmp_path / "clip.mp4", 2)
    given = joints(tmp_path, person(0), person(1))
    outcome = cli("run", tiny_bundle, clip, "--keypoints", given, "-o", tmp_path / "out", "--strict")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert "read: 2 frames of 80 x 60 px" in lines
    assert "joints: 2 of 2 entries used, 2 pictures matched" in lines
    assert outcome.err == f"reading {clip}\n"
    thinned = cli("run", tiny_bundle, clip, "--keypoints", given, "-o", tmp_path / "thin", "--strict", "--every", 2)
    assert thinned.code == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entries", "options", "said"),
    [
        ([person(0)], [], "unmatched 1 of 2 pictures are not in {k}"),
        ([person(0), person(1), person(7)], [], "unused 1 of 3 entries belong to no picture that was read"),
        ([], [], "note nobody was found; are the joints or boxes those of this source?"),
        (
            [larger(person(0)), larger(person(1))],
            [],
            "beyond 2 of 2 people extend far beyond their picture; does the file belong to pictures of another size?",
        ),
        (None, ["--people", "frame"], "few joints 2 of 2 meshes were made from fewer than 5 joints"),
    ],
)
def test_strict_ends_with_3_and_keeps_the_results(
    cli: Cli, tmp_path: Path, tiny_bundle: Path, entries: list[dict[str, Any]] | None, options: list[str], said: str
) -> None:
    clip, out = video(tmp_path / "clip.mp4", 2), tmp_path / "out"
    given = [] if entries is None else ["--keypoints", joints(tmp_path, *entries)]
    outcome = cli("run", tiny_bundle, clip, *given, *options, "-o", out, "--strict")
    assert outcome.code == 3, outcome
    assert said.format(k=tmp_path / "k.json") in outcome.out.splitlines()
    assert "found, see the summary" in outcome.err
    assert {"clip.npz", "clip.json", "clip_overlay.mp4"} <= set(tree(out))
    assert cli("run", tiny_bundle, clip, *given, *options, "-o", tmp_path / "again").code == 0


def test_a_picture_that_cannot_be_read_is_named(cli: Cli, tmp_path: Path, tiny_bundle: Path) -> None:
    folder = tmp_path / "shots"
    folder.mkdir()
    picture(folder / "a.png")
    (folder / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    run = ("run", tiny_bundle, folder, "--people", "frame", "--keep-going", "--strict", "--json")
    outcome = cli(*run, "-o", tmp_path / "out")
    assert outcome.code == 3
    summary = json.loads(outcome.out)
    assert (summary["frames_read"], summary["frames"], summary["sizes_px"]) == (1, 1, [[80, 60]])
    assert [line.split(":")[0] for line in summary["skipped"]] == ["b.png"]


def test_the_json_counts_the_entries(cli: Cli, tmp_path: Path, tiny_bundle: Path) -> None:
    given = joints(tmp_path, person("photo.png", 1), person("other.png", 2))
    photo = picture(tmp_path / "photo.png")
    outcome = cli("run", tiny_bundle, photo, "--keypoints", given, "-o", tmp_path / "out", "--json")
    assert json.loads(outcome.out)["joints"] == {
        "file": str(given), "entries": 2, "entries_used": 1, "entries_unused": 1, "left_out": {}, "people_beyond": 0,
        "pictures_matched": 1, "pictures_unmatched": 0,
    }  # fmt: skip
