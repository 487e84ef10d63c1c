"""An import goes down the list of layers, never up; also one that happens inside a function."""

from __future__ import annotations

import ast
from pathlib import Path

import jotr_deploy

PACKAGE = Path(jotr_deploy.__file__).parent

GROUND = (
    "skeletons",
    "config",
    "spans",
    "bundle",
    "people",
    "errors",
    "writing",
    "file_names",
    "filetype",
    "reading",
    "cache",
    "processor",
)
# From the top. Parts of one layer may import each other, but for the packages, which each are a layer of their own.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("add", "cli", "cli_add", "cli_bench", "cli_calibration", "cli_doctor", "cli_engines", "cli_evaluation",
     "cli_export", "cli_fetch", "cli_run", "cli_training", "cli_view", "doctor", "live", "sample", "selftest",
     "terminal"),
    ("api",),
    ("calibration",),
    ("training",),
    ("evaluation",),
    ("profiling",),
    ("fetching",),
    ("export",),
    ("engines",),
    ("runtime",),
    ("visual",),
    ("datasets",),
    ("fitting",),
    ("model",),
    ("plugins",),
    ("body",),
    ("geometry",),
    GROUND,
)  # fmt: skip
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}


def part_of(module: str) -> str:
    """`runtime` of `jotr_deploy.runtime.sessions.cuda`; nothing of `jotr_deploy`."""
    return module.split(".")[1] if "." in module else ""


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
    importer = part_of(module)
    return [
        f"{module}:{line} imports {name}: {part_of(name)} is above {importer}"
        for line, name in imports(module, source)
        if part_of(name) in RANK and RANK[part_of(name)] < RANK[importer]
    ]


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts)] = path
    return found


def test_every_part_has_its_layer() -> None:
    parts = {part_of(module) for module in modules()} - {"__init__"}
    assert parts - RANK.keys() == set()


def test_no_import_goes_up() -> None:
    wrong = [
        line
        for module, path in modules().items()
        if part_of(module) in RANK
        for line in violations(module, path.read_text())
    ]
    assert wrong == []


def test_the_check_sees_what_it_should() -> None:
    up = "def f():\n    from jotr_deploy.runtime.run import run\n"
    assert violations("jotr_deploy.geometry.crop", up) == [
        "jotr_deploy.geometry.crop:2 imports jotr_deploy.runtime.run.run: runtime is above geometry"
    ]
    assert len(violations("jotr_deploy.people", "import jotr_deploy.visual.result_files")) == 1
    assert len(violations("jotr_deploy.people", "from jotr_deploy import cli")) == 1
    assert len(violations("jotr_deploy.geometry.crop", "from ..runtime import run")) == 1
    assert len(violations("jotr_deploy.geometry.crop", "if TYPE_CHECKING:\n    from jotr_deploy.body import smpl")) == 1
    for down in (
        "import numpy",
        "from jotr_deploy.geometry.crop import square_box",
        "from jotr_deploy.people import P",
    ):
        assert violations("jotr_deploy.runtime.run", down) == []
    assert violations("jotr_deploy.runtime.run", "from .crops import Crops") == []
