"""An import goes down the list of layers in docs/design.md, never up; also one that happens inside a function."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

import jotr_deploy

PACKAGE = Path(jotr_deploy.__file__).parent
DESIGN = PACKAGE.parent / "docs" / "design.md"


def layers() -> list[list[str]]:
    """The first column of the table of layers, as modules, from the top."""
    table = DESIGN.read_text().partition("\n## Layers\n")[2].partition("\n|---|---|\n")[2].partition("\n\n")[0]
    rows = [re.findall(r"`([^`]+)`", line.split("|")[1]) for line in table.splitlines()]
    return [["jotr_deploy." + name.removesuffix(".py").strip("/").replace("/", ".") for name in row] for row in rows]


LAYERS = layers()


def rank_of(module: str) -> int | None:
    """The layer of a module, by its longest entry in the table; 0 is the top."""
    fits = [(len(m), rank) for rank, row in enumerate(LAYERS) for m in row if f"{module}.".startswith(f"{m}.")]
    return max(fits)[1] if fits else None


def imports(module: str, source: str) -> list[tuple[int, str]]:
    """(line, full name) of everything of this package that a module imports, at any depth."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".")[: -node.level]
                base = ".".join([*package, base] if base else package)
            found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
    return [(line, name) for line, name in found if name.split(".")[0] == "jotr_deploy"]


def violations(module: str, source: str) -> list[str]:
    """Imports of a module that go up."""
    own = rank_of(module)
    return [
        f"{module}:{line} imports {name}, which is above it"
        for line, name in imports(module, source)
        if own is not None and (other := rank_of(name)) is not None and other < own
    ]


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        found[name] = path
    # The package hands out the names of its front door.
    found["jotr_deploy.api.names"] = found.pop("jotr_deploy")
    return found


def test_every_module_has_its_layer() -> None:
    assert [module for module in modules() if rank_of(module) is None] == []


def test_every_layer_is_there() -> None:
    assert [m for row in LAYERS for m in row if m not in modules()] == []


def test_no_import_goes_up() -> None:
    assert [line for module, path in modules().items() for line in violations(module, path.read_text())] == []


def test_no_import_goes_round() -> None:
    """No module imports one that imports it, be it inside a function."""
    known = modules()
    graph = {
        module: {
            found
            for _, name in imports(module, path.read_text())
            for found in [name if name in known else name.rpartition(".")[0]]
            if found in known and found != module
        }
        for module, path in known.items()
    }
    done: set[str] = set()

    def circle(module: str, way: tuple[str, ...]) -> tuple[str, ...]:
        if module in way:
            return (*way[way.index(module) :], module)
        if module in done:
            return ()
        found = next((c for other in sorted(graph[module]) if (c := circle(other, (*way, module)))), ())
        done.add(module)
        return found

    assert [c for module in graph if (c := circle(module, ()))] == []


MOST_ENTRIES = 26
"""Folders with Python and modules beside `jotr_deploy/__init__.py`: what a reader takes in at a glance."""

ALIKE = {
    "base": "what the detectors, and the pose networks, have in common",
    "blazepose": "a family of networks: its detector, and its pose network",
    "onnxruntime": "an engine: its files, and its session",
    "openvino": "an engine: its files, and its session",
    "run": "the verb, and the function that it calls",
    "unsupported": "detectors, and pose networks, that are recognised and not read",
}
"""Modules that share a name because they are the same thing in parallel rooms."""


def names_of_modules() -> Counter[str]:
    return Counter(path.stem for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def test_modules_have_names_of_their_own() -> None:
    assert {name for name, count in names_of_modules().items() if count > 1} == set(ALIKE)
    assert all(names_of_modules()[name] == 2 for name in ALIKE)


def test_the_top_of_the_package_is_taken_in_at_a_glance() -> None:
    entries = [
        path
        for path in PACKAGE.iterdir()
        if (path.suffix == ".py" and path.name != "__init__.py") or (path.is_dir() and any(path.rglob("*.py")))
    ]
    assert 10 < len(entries) <= MOST_ENTRIES, sorted(path.name for path in entries)


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    from jotr_deploy.runtime.run import run\n",
        "import jotr_deploy.visual.result_files",
        "from jotr_deploy import cli",
        "from ..runtime import run",
        "if TYPE_CHECKING:\n    from jotr_deploy.model import jotr",
    ],
)
def test_an_import_that_goes_up_is_seen(source: str) -> None:
    assert len(violations("jotr_deploy.geometry.crop", source)) == 1


@pytest.mark.parametrize(
    "source",
    ["import numpy", "from jotr_deploy.geometry.crop import square_box", "from .crops import Crops"],
)
def test_an_import_that_goes_down_is_fine(source: str) -> None:
    assert violations("jotr_deploy.runtime.run", source) == []
