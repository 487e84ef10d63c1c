"""Arrays kept in the user's cache: read again, made anew when damaged, and done without where nothing can be kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jotr_deploy.errors import BundleError
from jotr_deploy.support import cache
from jotr_deploy.support.cache import kept_arrays, user_cache

ARRAYS = {"graph": np.arange(100, dtype=np.uint8), "body.rest": np.linspace(0, 1, 9).reshape(3, 3), "none": np.zeros(0)}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Maker:
    """Makes the arrays, and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> dict[str, np.ndarray]:
        self.times += 1
        return ARRAYS


def kept(make: Maker, source: str = "a") -> None:
    found = kept_arrays("things", source, make)
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def stored() -> list[Path]:
    return sorted((user_cache() / "things").iterdir())


def test_made_once_for_each_source() -> None:
    make = Maker()
    for source, times in (("a", 1), ("a", 1), ("b", 2), ("a", 2)):
        kept(make, source)
        assert make.times == times
    assert len(stored()) == 2


def test_whatever_byte_of_the_file_is_damaged_the_arrays_are_right() -> None:
    make = Maker()
    kept(make)
    (path,) = stored()
    whole = path.read_bytes()
    step = max(1, len(whole) // 97)
    for at in range(0, len(whole), step):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        kept(make)
    for damaged in (b"", b"text", whole[:-40], whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        before = make.times
        kept(make)
        assert make.times == before + 1
        assert path.read_bytes() == whole


def test_an_error_is_raised_and_nothing_kept() -> None:
    def fails() -> dict[str, np.ndarray]:
        raise BundleError("cause", "remedy")

    with pytest.raises(BundleError, match="cause"):
        kept_arrays("things", "a", fails)
    assert not user_cache().exists()


@pytest.mark.parametrize("hindrance", ["a file in its place", "no home"])
def test_without_a_cache_the_arrays_are_made_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hindrance: str
) -> None:
    if hindrance == "no home":

        def no_home() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", no_home)
    else:
        (tmp_path / "cache").write_text("in the way")
    make = Maker()
    kept(make)
    kept(make)
    assert make.times == 2


def test_only_the_newest_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MOST_KEPT", 2)
    make = Maker()
    for age_s, source in ((30, "a"), (20, "b"), (10, "c")):
        before = set(stored()) if user_cache().exists() else set()
        kept(make, source)
        (new,) = set(stored()) - before
        os.utime(new, (new.stat().st_atime, new.stat().st_mtime - age_s))
    kept(make, "c")
    assert (make.times, len(stored())) == (3, 2)
    kept(make, "a")
    assert make.times == 4


def test_processes_that_keep_the_same_at_once() -> None:
    code = (
        "import numpy as np; from jotr_deploy.support.cache import kept_arrays\n"
        "for _ in range(5): print(kept_arrays('things', 'a', lambda: {'x': np.arange(9)})['x'].sum())"
    )
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [each.communicate()[0].split() for each in running] == [["36"] * 5] * 2
    assert len(stored()) == 1
