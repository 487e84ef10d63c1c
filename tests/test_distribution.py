"""`python -m build` makes a source archive and a wheel that are whole: the wheel runs with what it declares alone."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

pytest.importorskip("build", reason="pip install build")
requirements = pytest.importorskip("packaging.requirements", reason="pip install packaging")

ROOT = Path(__file__).parent.parent


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def tracked() -> list[str]:
    """What Git knows; where this runs from the source archive, all that the archive brought."""
    if (ROOT / ".git").exists():
        done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()
    (sources,) = ROOT.glob("*.egg-info/SOURCES.txt")
    return [name for name in sources.read_text().splitlines() if ".egg-info/" not in name and name != "setup.cfg"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A copy of what is tracked, the source archive of it, and the wheel that was made from that archive."""
    folder = tmp_path_factory.mktemp("distribution")
    expected = {name for name in tracked() if not name.startswith(".") and (ROOT / name).is_file()}
    for name in expected:
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "source" / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "-o", str(folder / "dist"), str(folder / "source")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for made in files_of(folder / "source") - expected:
        (folder / "source" / made).unlink()
    (archive,), (wheel,) = (folder / "dist").glob("*.tar.gz"), (folder / "dist").glob("*.whl")
    return folder / "source", archive, wheel


def test_the_archive_has_every_file_and_the_wheel_every_file_of_the_package(built: tuple[Path, Path, Path]) -> None:
    source, archive, wheel = built
    with tarfile.open(archive) as tar:
        archived = {member.name.partition("/")[2] for member in tar.getmembers() if member.isfile()}
    made = {name for name in archived if name in ("PKG-INFO", "setup.cfg") or ".egg-info/" in name}
    assert archived - made == files_of(source)
    with zipfile.ZipFile(wheel) as packed:
        names = {name for name in packed.namelist() if ".dist-info/" not in name}
    assert names == {name for name in files_of(source) if name.startswith("jotr_deploy/")}


def needed(wheel: Path, extra: str) -> Iterator[importlib.metadata.Distribution]:
    """The distributions that the wheel with one extra asks for, and those that they ask for, as installed here."""
    with zipfile.ZipFile(wheel) as packed:
        (name,) = (name for name in packed.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = importlib.metadata.PathDistribution(zipfile.Path(packed, name.removesuffix("METADATA")))
        todo = [(line, extra) for line in metadata.requires or ()]
    seen = set()
    while todo:
        line, of = todo.pop()
        requirement = requirements.Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": of}):
            continue
        for asked in ("", *requirement.extras):
            if (requirement.name, asked) in seen:
                continue
            seen.add((requirement.name, asked))
            found = importlib.metadata.distribution(requirement.name)
            assert requirement.specifier.contains(found.version, prereleases=True), line
            yield found
            todo += [(other, asked) for other in found.requires or ()]


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel alone, and links to what the wheel and its extra `cpu` ask for."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "--no-deps", "--no-index", str(built[2])]
    done = subprocess.run(pip, capture_output=True, text=True, env=outside())
    assert done.returncode == 0, done.stderr
    (site,) = folder.glob("lib/python*/site-packages")
    for distribution in needed(built[2], "cpu"):
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(distribution.locate_file(top))))
    return folder


def outside() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))}


def test_the_starter_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    def call(*command: str) -> str:
        done = subprocess.run(
            [str(installed / "bin" / command[0]), *command[1:]],
            cwd=tmp_path,
            env=outside(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = (
        "import importlib.util as u, jotr_deploy; print(jotr_deploy.__file__, *map(u.find_spec, ('torch', 'pytest')))"
    )
    path, *others = call("python", "-c", where).split()
    assert Path(path).is_relative_to(installed)
    assert others == ["None", "None"]
    shutil.copy(ROOT / "jotr_deploy/visual/scene.jpg", tmp_path)
    assert json.loads(call("jotr-deploy", "run", "starter", "scene.jpg", "-o", "out", "--json"))["people"] == 2
    assert {"scene.npz", "scene_overlay.jpg"} <= files_of(tmp_path / "out")
    found = {finding["subject"]: finding for finding in json.loads(call("jotr-deploy", "doctor", "starter", "--json"))}
    version = importlib.metadata.PathDistribution.at(
        next(installed.glob("lib/python*/site-packages/jotr_deploy*.dist-info"))
    )
    assert found["jotr-deploy"]["detail"] == version.version
