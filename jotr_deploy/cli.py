"""The command line: parse, call one function, print. No logic lives here."""

from __future__ import annotations

import errno
import importlib.metadata
import io
import os
import sys
import traceback
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.markup import escape

from jotr_deploy import (
    cli_add,
    cli_bench,
    cli_calibration,
    cli_doctor,
    cli_engines,
    cli_evaluation,
    cli_run,
    cli_training,
    cli_view,
)
from jotr_deploy.errors import JotrDeployError
from jotr_deploy.terminal import (
    choice,
    console,
    difference_table,
    done,
    errors,
    exclusive,
    needs,
    print_json,
    steps,
)

app = typer.Typer(
    help="JOTR from a checkpoint to meshes: export, run, measure.",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# What a mistyped command raises: click's UsageError, or the copy of it that newer typer carries but does not name.
_CommandError = cast(type[typer.BadParameter], typer.BadParameter.__mro__[1])


def main() -> None:
    """Entry point: what a user can mend is two lines and exit code 2, a bug is a traceback and exit code 1."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be text
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
        errors.print(f"[bold red]error:[/] {escape(mistake.cause)}", highlight=False, soft_wrap=True)
        errors.print(f"[bold]remedy:[/] {escape(mistake.remedy)}", highlight=False, soft_wrap=True)
        code = mistake.exit_code
    if code == 130:  # newer typer turns the interrupt into this
        errors.print("interrupted")
    sys.exit(code)


def _mistake(error: Exception) -> JotrDeployError | None:
    """What a user can mend about an error; None for a bug."""
    if isinstance(error, _CommandError):
        command = error.ctx.command_path if error.ctx else "jotr-deploy"
        return JotrDeployError(" ".join(error.format_message().split()), f"{command} --help says what it takes")
    if isinstance(error, OSError) and error.filename is not None:  # a name too long, a folder that is closed
        return JotrDeployError(f"{error.filename}: {error.strerror}", "check the path and its permissions")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        with suppress(OSError):  # Python would write the rest at its end, and fail again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return JotrDeployError(f"the output cannot be written ({error.strerror})", "send it where there is room")
    return error if isinstance(error, JotrDeployError) else None


def _version(wanted: bool) -> None:
    if wanted:
        console.print(f"jotr-deploy {importlib.metadata.version('jotr-deploy')}", highlight=False)
        raise typer.Exit


@app.callback(epilog="--debug anywhere shows the stack of an error.")
def _options(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False) -> None:
    """JOTR from a checkpoint to meshes: export, run, measure."""


@app.command()
def export(
    output: Annotated[Path, typer.Option("-o", "--output", help="Bundle directory to make.")],
    checkpoint: Annotated[
        Path | None, typer.Argument(help="JOTR .pth.tar as published, or a checkpoint of this package.")
    ] = None,
    sampling: Annotated[
        str, typer.Option(help="function: one operator node with its body; inline: standard operators.")
    ] = "function",
    body: Annotated[
        Path | None, typer.Option(help="SMPL file or folder, or 'stand-in'; wins over the checkpoint's.")
    ] = None,
    extra_regressor: Annotated[
        Path | None, typer.Option(help="Published J_regressor_extra.npy, for the head top.")
    ] = None,
    vposer: Annotated[Path | None, typer.Option(help="VPoser v1.0 folder; wins over the checkpoint's.")] = None,
    no_body: Annotated[
        bool, typer.Option("--no-body", help="Leave the body out: pose, shape and camera only.")
    ] = False,
    stand_in: Annotated[
        bool, typer.Option("--stand-in", help="Random weights and the stand-in body: no checkpoint.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Turn a checkpoint into a verified ONNX bundle."""
    if checkpoint is None and not stand_in:
        raise JotrDeployError("no checkpoint is given", "give one, or --stand-in for random weights")
    assets = {"--body": body, "--extra-regressor": extra_regressor}
    exclusive("--stand-in", stand_in, {"CHECKPOINT": checkpoint, **assets, "--vposer": vposer})
    exclusive("--no-body", no_body, assets)
    choice("--sampling", sampling, ("function", "inline"))
    needs("export", "torch", "onnxscript", "onnxruntime")
    from jotr_deploy.api import export_bundle

    with steps() as say:
        exported = export_bundle(
            checkpoint, output, body=body, extra_regressor=extra_regressor, vposer=vposer, with_body=not no_body,
            sampling=sampling, replace=force, say=say,  # type: ignore[arg-type]
        )  # fmt: skip
    if as_json:
        print_json({
            "bundle": str(exported.path), "size_bytes": exported.size_bytes, "labels": exported.labels,
            "notes": exported.notes, "differences": [asdict(row) for row in exported.differences],
        })  # fmt: skip
        return
    console.print(difference_table(exported.differences))
    for note in (*exported.notes, *(f"label: {label}" for label in exported.labels)):
        console.print(f"[yellow]note[/] {escape(note)}", highlight=False, soft_wrap=True)
    for licence in exported.licences:
        console.print(f"[dim]licence[/] {licence.asset}: {licence.terms}", highlight=False, soft_wrap=True)
    following = f"run {exported.path} IMAGE -o DIR" if exported.has_body else f"doctor {exported.path}"
    done(exported.path, f"{exported.size_bytes / 1e6:.0f} MB", f"jotr-deploy {following}")


app.command()(cli_add.add)
app.command()(cli_run.run)
app.command()(cli_bench.bench)
app.command()(cli_view.view)
app.command()(cli_doctor.doctor)
app.command("build-engine")(cli_engines.build_engine)
app.command()(cli_calibration.calibrate)
app.command("eval")(cli_evaluation.evaluate)
app.add_typer(cli_engines.plugins, name="plugins")
app.command("train")(cli_training.train)

if __name__ == "__main__":
    main()
