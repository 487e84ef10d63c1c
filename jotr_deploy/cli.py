"""The command line: find the verb, call it, print user-fixable errors. No logic lives here."""

from __future__ import annotations

import errno
import importlib
import io
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, NamedTuple, cast

import typer
from rich.markup import escape

from jotr_deploy.errors import JotrDeployError, one_line
from jotr_deploy.verbs.terminal import console, errors


class Verb(NamedTuple):
    """A verb's location, and its line in the list of verbs: the first line of its own help."""

    module: str
    name: str  # a function, or a typer.Typer with subcommands
    summary: str


VERBS = {
    "export": Verb("verbs.export", "export", "Turn a checkpoint into a verified ONNX bundle."),
    "add": Verb(
        "verbs.add",
        "add",
        "Add your own detector and 2-D pose network, or BlazePose's, to a bundle; or features for the fit.",
    ),
    "run": Verb("verbs.run", "run", "Recover the people in an image, a folder, a glob, a video or a camera stream."),
    "batch": Verb(
        "verbs.batch",
        "batch",
        "Recover the people in many films and pictures, on any number of processes and machines.",
    ),
    "serve": Verb("verbs.serve", "serve", "Serve people over HTTP: pictures in, people out."),
    "fetch": Verb(
        "verbs.fetch",
        "fetch",
        "Fetch networks that find people in photographs (Apache-2.0, 36 MB, from your package index).",
    ),
    "bench": Verb("verbs.bench", "bench", "Measure the latency of every engine of a bundle and the stages of a frame."),
    "view": Verb("verbs.view", "view", "Show the meshes of a run in the browser, with camera, pictures and joints."),
    "doctor": Verb(
        "verbs.doctor",
        "doctor",
        "Check the installation, its licences, and whether a bundle is intact and works.",
    ),
    "build-engine": Verb("verbs.build_engine", "build_engine", "Build a verified engine and add it to a bundle."),
    "calibrate": Verb(
        "verbs.calibrate", "calibrate", "Add an eight-bit network that stays within an error budget in millimetres."
    ),
    "eval": Verb(
        "verbs.eval", "evaluate", "Measure a bundle against ground truth: held-out synthetic scenes, or a data set."
    ),
    "train": Verb(
        "verbs.train",
        "train",
        "Train a network from a configuration; on SIGINT or SIGTERM a checkpoint is saved first.",
    ),
    "plugins": Verb("verbs.build_engine", "plugins", "Inspect, check and build the sampling plugin for TensorRT."),
}

_OTHER_COMMANDS = (
    r"\b(jotr-deploy|run|export|view|add|pip|python3?|venv|inferencer|ray|docker|apt-get|trtexec|polygraphy|nvcc|make|git)"
    r"\b[^;,()]*"
)
"""Commands within a remedy, whose options are their own."""

# Raised for a mistyped command: click's UsageError, or the copy of it that newer typer bundles without exporting it.
_CommandError = cast(type[typer.BadParameter], typer.BadParameter.__mro__[1])


def main() -> None:
    """Entry point: a user-fixable error prints two lines and exits with 2; a bug shows a traceback and exits with 1."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be valid text
    app = application(*[argument for argument in arguments if argument in VERBS][:1])
    in_charge = threading.current_thread() is threading.main_thread()
    usual = signal.signal(signal.SIGTERM, _end) if in_charge else None
    try:
        code = app(arguments or ["--help"], prog_name="jotr-deploy", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except (JotrDeployError, _CommandError, OSError) as error:
        mistake = _mistake(error)
        if mistake is None:
            raise
        if debug:
            traceback.print_exc()
        remedy = mistake.remedy + lacking_options(app, arguments, mistake.remedy)
        for title, said in (("[bold red]error:[/]", mistake.cause), ("[bold]remedy:[/]", remedy)):
            errors.print(f"{title} {escape(one_line(said))}", highlight=False, soft_wrap=True)
        code = mistake.exit_code
    finally:
        if usual is not None:
            signal.signal(signal.SIGTERM, usual)
    if code == 130:  # newer versions of typer turn the interrupt into this
        errors.print("interrupted")
    sys.exit(code)


def _end(number: int, frame: object) -> None:
    """End on SIGTERM through every `finally`, so that nothing half written stays; some verbs have their own handler."""
    sys.exit(128 + number)


def _mistake(error: Exception) -> JotrDeployError | None:
    """The user-fixable error that an exception amounts to; None for a bug."""
    if isinstance(error, _CommandError):
        command = error.ctx.command_path if error.ctx else "jotr-deploy"
        cause = _without_value(error) or " ".join(error.format_message().split())
        unusable = cause.endswith(("is not readable.", "is not writable."))
        return JotrDeployError(cause, "check its permissions" if unusable else f"see {command} --help")
    if isinstance(error, OSError) and error.filename is not None:  # a name too long, a folder without permission
        return JotrDeployError(f"{error.filename}: {error.strerror}", "check the path and its permissions")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        with suppress(OSError):  # Python would flush the rest at exit, and fail again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return JotrDeployError(
            f"the output cannot be written ({error.strerror})", "redirect it to a disk with free space"
        )
    return error if isinstance(error, JotrDeployError) else None


def lacking_options(app: typer.Typer, arguments: list[str], remedy: str) -> str:
    """Note of the options that a remedy names and the verb lacks: several verbs read the same files as `run`."""
    verb = next((argument for argument in arguments if argument in VERBS), None)
    if verb is None or isinstance(_loaded(verb), typer.Typer):
        return ""
    command = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    own = re.sub(_OTHER_COMMANDS, "", remedy)
    named = re.findall(r"(?<![\w-])(?:--[a-z][a-z0-9-]*|-o\b)", own)
    lacking = [name for name in dict.fromkeys(named) if name not in known]
    return f" ({verb} has no {' and no '.join(lacking)})" if lacking else ""


def _without_value(error: typer.BadParameter) -> str | None:
    """Cause of a mistake after an option whose value is missing: the parser took the next option for it."""
    if error.ctx is None:
        return None
    parameters = error.ctx.command.params
    known = {name for each in parameters for name in (*each.opts, *each.secondary_opts) if name.startswith("-")}
    for each in parameters:
        value = error.ctx.params.get(each.name or "")
        if str(value) in known:
            return f"{each.opts[-1]} takes a value, and '{value}' follows it"
    return None


def application(*loaded: str) -> typer.Typer:
    """The command line with these verbs loaded; the others are present only as a name and one line of help.

    Reading every signature takes longer than all the rest of `--help`.
    """
    app = typer.Typer(
        help="JOTR from a checkpoint to meshes: export, run, measure.",
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(epilog="Add --debug anywhere to see the traceback of an error.")(_options)
    for name, verb in VERBS.items():
        if name not in loaded:
            app.command(name, help=verb.summary)(_not_loaded)
            continue
        found = _loaded(name)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
    return app


def _loaded(name: str) -> Callable[..., None] | typer.Typer:
    """Function of a verb, or the group of its own verbs."""
    verb = VERBS[name]
    found: Callable[..., None] | typer.Typer = getattr(importlib.import_module(f"jotr_deploy.{verb.module}"), verb.name)
    return found


def _not_loaded() -> None:
    raise AssertionError("a verb is loaded before it is called")


def _version(wanted: bool) -> None:
    if wanted:
        from jotr_deploy.support.distributions import installed_version

        console.print(
            f"jotr-deploy {installed_version('jotr-deploy') or '(a checkout, not installed)'}", highlight=False
        )
        raise typer.Exit


def _options(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False) -> None:
    """JOTR from a checkpoint to meshes: export, run, measure."""


if __name__ == "__main__":
    main()
