"""Write docs/cli.md: every verb of the command line with its arguments and options, from their definitions.

    python scripts/write_cli_reference.py       # tests/test_docs.py says when it is due

Names, help and defaults are read from the command tree, not from the text of `--help`, which depends on the terminal.
"""

from __future__ import annotations

import argparse
import inspect
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
import typer.main

from jotr_deploy.cli import VERBS, application

OUTPUT = Path(__file__).parent.parent / "docs" / "cli.md"
INTRODUCTION = """\
# Command line

Made by `scripts/write_cli_reference.py` from the command line itself; don't edit it by hand.

`--help` after a verb shows the same in a terminal, `jotr-deploy --version` the version. `--debug`, anywhere in a
command, adds the traceback to an error. Exit codes: 0 is success; 1 a bug; 2 an error that you can fix, with one line
of cause and one of remedy; 3 a `run --strict` that has something to look at, or a
`batch` that is not complete; 130 Ctrl-C.
"""
KINDS = {int: "N", float: "X", Path: "PATH", str: "TEXT"}


def reference() -> str:
    """The document."""
    whole: Any = typer.main.get_command(application(*VERBS))
    parts = [INTRODUCTION]
    for name, command in whole.commands.items():
        inner = getattr(command, "commands", {})
        parts.append(f"## {name}\n\n{summary(command)}\n" if inner else section(name, command, "##"))
        parts += [section(f"{name} {verb}", each, "###") for verb, each in inner.items()]
    return "\n".join(parts)


def section(name: str, command: Any, heading: str) -> str:
    """One verb."""
    options = typing.get_type_hints(inspect.unwrap(command.callback), include_extras=True)
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    words = [p.name.upper() if p.required else f"[{p.name.upper()}]" for p in arguments]
    needed = [f"{p.opts[0]} {value_of(options[p.name])}" for p in command.params if p.required and p not in arguments]
    usage = " ".join(["jotr-deploy", name, *words, *needed, "[OPTIONS]"])
    lines = [
        f"{heading} {name}",
        "",
        summary(command),
        "",
        "```",
        usage,
        "```",
        "",
        "| argument or option | meaning |",
        "|---|---|",
    ]
    lines += [f"| {cell} | {text} |" for cell, text in rows(command, options)]
    return "\n".join(lines) + "\n"


def summary(command: Any) -> str:
    return " ".join(inspect.cleandoc(command.help).split())


def rows(command: Any, hints: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What stands for each argument and option, and what it does."""
    for parameter in sorted(command.params, key=lambda each: each.param_type_name):  # arguments first
        if parameter.name not in hints:
            continue  # --help
        text = (parameter.help or "").replace("|", "\\|")
        if parameter.param_type_name == "argument":
            yield f"`{parameter.name.upper()}`", text
            continue
        names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
        flag = plain(hints[parameter.name]) is bool
        value = "" if flag else f" `{parameter.metavar or value_of(hints[parameter.name])}`"
        again = " May be repeated." if typing.get_origin(plain(hints[parameter.name])) is list else ""
        known = parameter.default is not None and not flag and not parameter.required
        default = f" Default: `{parameter.default}`." if known else ""
        yield names + value, text + again + default


def plain(hint: Any) -> Any:
    """The type in `Annotated[type | None, ...]`."""
    hint = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
    others = [each for each in typing.get_args(hint) if each is not type(None)]
    return others[0] if type(None) in typing.get_args(hint) else hint


def value_of(hint: Any) -> str:
    kind = plain(hint)
    return KINDS[typing.get_args(kind)[0] if typing.get_origin(kind) is list else kind]


def main() -> None:
    argparse.ArgumentParser(description="Write docs/cli.md from the command line.").parse_args()
    OUTPUT.write_text(reference())
    print(OUTPUT)


if __name__ == "__main__":
    main()
