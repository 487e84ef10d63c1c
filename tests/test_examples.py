"""The examples run as a reader runs them: one process each, in an empty folder, and leave what they promise."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from jotr_deploy.bundle import open_bundle
from jotr_deploy.model.checkpoint import load_checkpoint
from jotr_deploy.model.jotr import MeshOutput

pytestmark = pytest.mark.slow

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
IMAGE_TO_MESH, SMALL_NETWORK, ANY_RUNTIME, AGAINST_THE_TRUTH = EXAMPLES

# Runs a script as `python SCRIPT ARGUMENTS` does and says whether it needed this package.
WITNESS = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
print("package used:", any(name.split(".")[0] == "jotr_deploy" for name in sys.modules))
"""


def run(folder: Path, *command: str | Path) -> str:
    done = subprocess.run([sys.executable, *map(str, command)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of the second example, whose bundle is small enough for the others, and what it printed."""
    folder = tmp_path_factory.mktemp("examples")
    return folder, run(folder, SMALL_NETWORK, "bundle")


def test_image_to_mesh(made: tuple[Path, str], tmp_path: Path) -> None:
    printed = run(tmp_path, IMAGE_TO_MESH, made[0] / "bundle").splitlines()
    assert [line.split()[0] for line in printed] == ["person", "0", "1", "people.obj:"]
    assert printed[-1] == "people.obj: 2 meshes; untrained: pose is meaningless, stand-in body"
    lines = (tmp_path / "people.obj").read_text().splitlines()
    assert [line for line in lines if line.startswith("o ")] == ["o person_0", "o person_1"]
    assert sum(line.startswith("v ") for line in lines) == 2 * 6890
    assert sum(line.startswith("f ") for line in lines) == 2 * 13776
    assert [path.name for path in tmp_path.iterdir()] == ["people.obj"]


def test_small_network(made: tuple[Path, str]) -> None:
    folder, printed = made
    assert sorted(path.name for path in folder.iterdir()) == ["bundle", "bundle.pt"]
    bundle = open_bundle(folder / "bundle")
    assert load_checkpoint(folder / "bundle.pt").config == bundle.manifest.model
    for role in ("mesh", "faces"):
        assert bundle.file(role).is_file()
    assert [line.split()[0] for line in printed.splitlines()[2:]] == list(MeshOutput._fields)


def test_any_runtime_needs_nothing_of_this_package(made: tuple[Path, str], tmp_path: Path) -> None:
    printed = run(tmp_path, "-c", WITNESS, ANY_RUNTIME, made[0] / "bundle").splitlines()
    assert [line.split()[0] for line in printed[:-2]] == list(MeshOutput._fields)
    assert printed[-2].startswith("camera and network agree within ")
    assert printed[-1] == "package used: False"


def test_against_the_truth(tmp_path: Path) -> None:
    printed = run(tmp_path, AGAINST_THE_TRUTH, "starter", "-o", "compared").splitlines()
    assert printed[0].startswith("2 people in the picture, ")
    assert printed[1].split()[:2] == ["person", "visible"]
    assert printed[-1] == "look at compared/compared.jpg"
    assert sorted(path.name for path in (tmp_path / "compared").iterdir()) == ["compared.jpg", "picture.jpg"]


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_help_says_what_it_does(script: Path, tmp_path: Path) -> None:
    module = runpy.run_path(str(script), run_name="example")
    assert f"python examples/{script.name}" in module["__doc__"]
    assert len(script.read_text().splitlines()) < 60
    assert "usage:" in run(tmp_path, script, "--help")
