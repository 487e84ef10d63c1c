"""What the documents name exists, what they list is what the code says, and their example runs."""

from __future__ import annotations

import doctest
import importlib
import json
import re
import runpy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer.main
from tiny import TINY

from jotr_deploy.bundle import Error, FileEntry, Licence, Manifest
from jotr_deploy.cli import VERBS, application
from jotr_deploy.config import ModelConfig
from jotr_deploy.engines.verify import UNITS
from jotr_deploy.export.assemble import load_stand_in
from jotr_deploy.model.checkpoint import our_name
from jotr_deploy.model.jotr import INPUTS, JOTR, MeshOutput
from jotr_deploy.people import People, PeopleFit
from jotr_deploy.support.precisions import LIMITS, Precision
from jotr_deploy.visual.result_files import PeopleWriter

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "jotr_deploy"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
FILE_SUFFIXES = {".md", ".py", ".npz", ".jpg", ".json", ".csv", ".toml", ".txt", ".yaml", ".onnx", ".npy", ".obj"}
PARTS = {path.stem for path in PACKAGE.iterdir() if path.is_dir() or path.suffix == ".py"}

per_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def prose(document: Path) -> str:
    """A document without its code blocks."""
    return re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.S | re.M)


def spans(document: Path) -> list[str]:
    """What stands in backticks, on one line or broken over two."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(document))]


def commands(document: Path) -> list[list[str]]:
    """The words after `jotr-deploy`, in code blocks and in backticks."""
    lines = [
        line for block in re.findall(r"^```.*?^```$", document.read_text(), re.S | re.M) for line in block.split("\n")
    ]
    return [text.split("#")[0].split()[1:] for text in (*lines, *spans(document)) if text.startswith("jotr-deploy ")]


def table(document: str, under: str) -> list[list[str]]:
    """The rows of the first table after a line of a document, without backticks."""
    _, found, rest = (ROOT / document).read_text().partition(f"\n{under}\n")
    assert found, f"{document} has no line '{under}'"
    lines = rest[rest.index("\n|") + 1 :].split("\n\n")[0].split("\n")
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines[2:]]


def shape_of(text: str, sizes: dict[str, int]) -> tuple[int, ...]:
    """`[N,3,S,S]` or `(M, 3)` with the sizes that the letters stand for."""
    words = [word.strip() for word in text.strip("[]()").split(",")]
    return tuple(sizes[word] if word in sizes else int(word) for word in words if word)


def missing_paths(document: Path) -> Iterator[str]:
    for word in (word for span in spans(document) for word in span.split()):
        inside = "/" in word and (word.endswith("/") or Path(word).suffix in FILE_SUFFIXES)
        if (inside or word.endswith(".md")) and not any(
            (base / word).exists() for base in (document.parent, ROOT, PACKAGE)
        ):
            yield word


@per_document
def test_files_exist(document: Path) -> None:
    assert list(missing_paths(document)) == []


@per_document
def test_links_lead_somewhere(document: Path) -> None:
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", prose(document))]
    local = [target for target in targets if target and not target.startswith(("http://", "https://"))]
    assert [target for target in local if not (document.parent / target).exists()] == []


@per_document
def test_names_of_the_package_exist(document: Path) -> None:
    for span in spans(document):
        name = span.removeprefix("jotr_deploy.")
        if (
            re.fullmatch(r"\w+(\.\w+)+", name)
            and name.split(".")[0] in PARTS
            and Path(name).suffix not in FILE_SUFFIXES
        ):
            resolve(name)


def resolve(name: str) -> Any:
    """What a dotted name below the package stands for."""
    found, path = importlib.import_module("jotr_deploy"), "jotr_deploy"
    for part in name.split("."):
        path = f"{path}.{part}"
        found = getattr(found, part, None) or importlib.import_module(path)
    return found


def options_of(verb: Any) -> set[str]:
    """Of a verb, and of those inside it."""
    own = {option for parameter in verb.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return own.union({"-h", "--help", "--debug"}, *map(options_of, getattr(verb, "commands", {}).values()))


@per_document
def test_verbs_and_options_exist(document: Path) -> None:
    whole: Any = typer.main.get_command(application(*VERBS))
    verbs = {name: options_of(verb) for name, verb in whole.commands.items()}
    for verb, *words in commands(document):
        if verb not in ("--version", "--help", "-h", "--debug"):
            assert verb in verbs, f"jotr-deploy {verb}"
            assert {word for word in words if word.startswith("-")} <= verbs[verb], f"jotr-deploy {verb} {words}"
    alone = {span.split()[0] for span in spans(document) if span.startswith("--")}
    assert alone <= options_of(whole).union(*verbs.values())


def test_the_reference_of_the_command_line_is_up_to_date() -> None:
    made = runpy.run_path(str(ROOT / "scripts/write_cli_reference.py"))["reference"]()
    assert (ROOT / "docs/cli.md").read_text() == made, "python scripts/write_cli_reference.py"


def test_nothing_says_that_an_index_has_this_package() -> None:
    files = [
        path
        for name in ("jotr_deploy", "tests", "docs", "examples", "benchmarks")
        for path in ROOT.glob(f"{name}/**/*")
    ]
    pattern = re.compile(r"jotr-deploy\[|install (-\S+ )*'?jotr-deploy\b")
    texts = {path: path.read_text() for path in [*DOCUMENTS, *files] if path.suffix in (".py", ".md")}
    assert [path.name for path, text in texts.items() if pattern.search(text)] == []
    assert pattern.search("pip install -U " + "jotr-deploy")


def test_docstrings_refer_to_sections_that_exist() -> None:
    found = 0
    for module in PACKAGE.rglob("*.py"):
        for name, numbers in re.findall(r"(docs/\w+\.md)(?: sections? ([\d ,toand]*\d))?", module.read_text()):
            headings = re.findall(r"^## (\d+)\.", (ROOT / name).read_text(), re.M)
            assert set(re.findall(r"\d+", numbers)) <= set(headings), module
            found += 1
    assert found > 5


def test_the_worked_example_runs() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/cameras.md").read_text(), re.S | re.M)
    example = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "cameras.md", "docs/cameras.md", 0)
    with np.printoptions():
        failed, tried = doctest.DocTestRunner().run(example)
    assert tried > 20
    assert failed == 0


def test_the_tensor_table_is_the_contract() -> None:
    sizes = {"N": 2, "S": TINY.crop_side}
    contract: dict[str, dict[str, tuple[int, ...]]] = {"in": {}, "out": {}}
    for tensor, kind, _ in table("docs/bundle.md", "## mesh.onnx"):
        way, name = tensor.split()
        dtype, shape = kind.split()
        assert dtype == "float32"
        contract[way][name] = shape_of(shape, sizes)
    assert tuple(contract["in"]) == INPUTS
    with torch.inference_mode():
        out = load_stand_in(TINY).model(*(torch.zeros(shape) for shape in contract["in"].values()))
    assert isinstance(out, MeshOutput)
    assert contract["out"] == {name: tuple(value.shape) for name, value in out._asdict().items()}
    assert all(value.dtype == torch.float32 for value in out)


@pytest.mark.parametrize(
    ("under", "model"),
    [
        ("## bundle.json", Manifest),
        ("One entry of `licences`:", Licence),
        ("One entry of `files`:", FileEntry),
    ],
)
def test_the_manifest_is_described_field_by_field(under: str, model: Any) -> None:
    assert [row[0] for row in table("docs/bundle.md", under)] == list(model.model_fields)


def test_the_measured_error_is_described() -> None:
    words = next(row[2] for row in table("docs/bundle.md", "One entry of `files`:") if row[0] == "error_mm")
    assert all(field in words for field in Error.model_fields)


def test_the_limits_are_those_of_the_code() -> None:
    rows = table("docs/bundle.md", "## Verification")
    assert {name: unit for name, *_, unit in rows} == {name: UNITS[name] for name in LIMITS[Precision.FP32]}
    for column, (precision, kind) in enumerate((("fp32", "max"), ("fp16", "mean"), ("bf16", "mean")), 1):
        written = {row[0]: ("max" if row[0] == "features" else kind, float(row[column])) for row in rows}
        assert written == LIMITS[Precision(precision)]


def test_the_result_file_is_described_array_by_array(tmp_path: Path) -> None:
    path = tmp_path / "nobody.npz"
    about = {"source": "", "image_size_px": (1, 1), "fps": 0.0, "labels": ["stand-in body"], "crop_side": 1}
    with PeopleWriter(path, faces=np.zeros((1, 3), np.int32), **about) as writer:  # type: ignore[arg-type]
        no, terms = np.zeros(0, bool), {"features": np.zeros(0)}
        fit = PeopleFit(no, no, no, no, no, np.zeros(0), np.zeros(0), terms, terms, np.zeros((0, 1, 1), bool))
        writer.append(0, replace(People.none(), fit=fit), "a.jpg")
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    rows = table("docs/bundle.md", "### NAME.npz")
    assert {row[0] for row in rows} == set(arrays)
    for name, shape, dtype, _ in rows:
        assert arrays[name].dtype.kind == "U" if dtype == "str" else arrays[name].dtype == np.dtype(dtype), name
        assert arrays[name].shape == shape_of(shape, {"M": 0, "F": 1, "K": 1, "T": 1, "G": 1}), name


def test_the_names_of_the_weights_are_translated_as_listed() -> None:
    listed = {theirs.split()[0]: ours for theirs, ours in table("docs/network.md", "## 13. Names of the weights")}
    assert {theirs: our_name(theirs) for theirs in listed} == listed
    entries = json.loads((ROOT / "tests/golden/state_dict_keys.json").read_text())["entries"]
    others = [e["key"] for e in entries if not e["key"].startswith((*listed, "human_model_layer."))]
    assert others == []


def test_the_size_is_counted() -> None:
    listed = {name: int(count.replace(",", "")) for name, count in table("docs/network.md", "## 11. Size")}
    network = JOTR(ModelConfig(), None)
    counted = {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()}
    assert listed == {**counted, "all": sum(counted.values())}
