"""`--help`: of the whole command line without its verbs, and of every verb."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import typer.main
from outcome import Outcome

from jotr_deploy.cli import VERBS, application

Cli = Callable[..., Outcome]

# What `--help` has no use for: the verbs, and what takes long to import.
NOT_NEEDED = (
    "jotr_deploy.verbs.run",
    "jotr_deploy.verbs.bench",
    "jotr_deploy.verbs.export",
    "numpy",
    "cv2",
    "onnx",
    "pydantic",
    "torch",
    "importlib.metadata",
)
LOADED = """
import sys
from jotr_deploy.cli import main
sys.argv = ["jotr-deploy", "--help"]
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""


def summaries(*loaded: str) -> dict[str, str]:
    whole: Any = typer.main.get_command(application(*loaded))
    return {name: verb.get_short_help_str(limit=1000) for name, verb in whole.commands.items()}


def test_the_list_of_verbs_is_that_of_their_own_help() -> None:
    assert summaries(*VERBS) == summaries()


def test_the_list_of_verbs_needs_none_of_them() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in VERBS)
    assert [module for module in done.stderr.split() if module.startswith(NOT_NEEDED)] == []


@pytest.mark.parametrize("words", [[name] for name in VERBS] + [["plugins", "check"], ["--", "run"]], ids=" ".join)
def test_every_verb_has_help(cli: Cli, words: list[str]) -> None:
    shown = cli(*words, "--help")
    assert (shown.code, shown.err) == (0, "")
    assert f"Usage: jotr-deploy {words[-2] + ' ' if 'check' in words else ''}{words[-1]}" in shown.out


@pytest.mark.parametrize(
    ("word", "cause"),
    [
        ("rum", "No such command 'rum'"),
        ("-v", "No such option: -v"),
    ],
)
def test_a_verb_that_is_none(cli: Cli, word: str, cause: str) -> None:
    refused = cli(word)
    assert refused.mistake[0].startswith(cause)
    assert refused.mistake[1] == "see jotr-deploy --help"
