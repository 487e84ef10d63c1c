"""Everything that a machine with an NVIDIA GPU can say about this code, in nine minutes and from a bare checkout.

python benchmarks/gpu/first_contact.py --json first_contact.json
python benchmarks/gpu/first_contact.py --only kernel,race --with wheels

Needs PyTorch with CUDA and NumPy; nothing is installed or fetched. Parts that need more are left out where it is
missing, and named. `--with` adds a folder of wheels; a folder `include` in it is taken for TensorRT's headers.

Each part is a process of its own with a time limit, the most valuable first; a part that crashes or hangs ends alone.
The JSON is written after each, so that it holds what was found when the script is stopped. Exit code 1: a check failed,
or a part crashed or ran out of time; 2: no GPU, or an option is wrong; 130 or 143: stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkout import end, write_json


@dataclass(frozen=True)
class Part:
    """One process: a module of `measuring`, and the seconds that it may take."""

    module: str
    seconds: float
    about: str


PARTS = {
    "kernel": Part("contact_kernel", 60, "the sampling kernel against float64, its time over an empty kernel"),
    "streams": Part("contact_streams", 60, "streams, events, graphs; arrays exchanged with PyTorch, CuPy, JAX"),
    "race": Part("contact_race", 30, "captures while other threads allocate"),
    "pytorch": Part("contact_pytorch", 180, "the whole network in PyTorch, eager and compiled, batch 1, 8, 32"),
    "plugin": Part("contact_plugin", 100, "the C++ plugin through its harness"),
    "onnxruntime": Part("contact_onnxruntime", 90, "networks in ONNX Runtime on CUDA, with and without graphs"),
    "tensorrt": Part("contact_tensorrt", 150, "TensorRT engines: built, verified, timed"),
    "crops": Part("contact_crops", 40, "crops cut on the GPU against OpenCV's"),
    "training": Part("contact_training", 120, "200 training steps in fp32 and in bf16"),
}
"""Most valuable first."""

MACHINE = Part("contact_machine", 60, "the machine")
LEAST_SECONDS = 10
"""A part is not begun with less."""
_WORDS = {"ok": "ok", "failed": "FAILED", "left out": "left out", "measured": ""}


class Stopped(Exception):
    """A signal asked for the end."""

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number


def main() -> None:
    arguments = parsed()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    deadline = time.monotonic() + arguments.budget_s
    result: dict[str, Any] = {"budget_s": arguments.budget_s, "parts": {}}
    try:
        with tempfile.TemporaryDirectory() as folder:
            environment = prepared(arguments.with_folder, Path(folder))
            code = contact(arguments, result, deadline, environment)
    except Stopped as stopped:
        result["stopped"] = True
        write_json(arguments.json, result)
        print("\nstopped: what was found until then is above" + (f" and in {arguments.json}" if arguments.json else ""))
        sys.exit(stopped.exit_code)
    sys.exit(code)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="parts:\n" + "\n".join(f"  {name:<12} {part.about}" for name, part in PARTS.items()),
    )
    parser.add_argument("--only", metavar="NAME,...", default=",".join(PARTS), help="these parts only")
    parser.add_argument("--budget-s", type=float, default=540, help="seconds for everything, 540 by default")
    parser.add_argument("--with", dest="with_folder", type=Path, metavar="DIR", help="folder of wheels to add")
    parser.add_argument("--json", type=Path, help="write what is found to this file, after each part")
    arguments = parser.parse_args()
    arguments.only = [name.strip() for name in arguments.only.split(",")]
    unknown = [name for name in arguments.only if name not in PARTS]
    if unknown:
        end(f"--only: no part {unknown[0]!r}", f"give some of {', '.join(PARTS)}")
    if not arguments.budget_s > 0:
        end(f"--budget-s {arguments.budget_s:g}: not a time", "give seconds, 540 for everything")
    if arguments.json is not None and not arguments.json.absolute().parent.is_dir():
        end(f"--json {arguments.json}: its folder does not exist", "make it first")
    return arguments


def prepared(wheels: Path | None, folder: Path) -> dict[str, str]:
    """The environment of the parts, in which the wheels can be imported."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if wheels is None:
        return environment
    files = sorted(map(str, wheels.glob("*.whl")))
    headers = wheels.absolute() / "include"
    if not files and not headers.is_dir():
        end(f"--with {wheels}: no wheels in it", "give a folder of .whl files")
    if files:
        site = folder / "site"
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile", "--target"]
        done = subprocess.run([*pip, str(site), *files], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            said = [line for line in done.stdout.splitlines() if "rror" in line] or done.stdout.splitlines()
            end(
                f"--with {wheels}: {(said or ['pip fails'])[0]}",
                f"give wheels for {sys.version_info.major}.{sys.version_info.minor}, one version of each",
            )
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    if headers.is_dir():
        environment.setdefault("TENSORRT_ROOT", str(headers.parent))
    return environment


def contact(
    arguments: argparse.Namespace, result: dict[str, Any], deadline: float, environment: Mapping[str, str]
) -> int:
    """Run the parts, print and keep what they find; the exit code."""
    result["machine"] = run_part(MACHINE, deadline, environment)
    show("machine", result["machine"])
    refuse_without_gpu(result["machine"])
    for name in (name for name in PARTS if name in arguments.only):
        if deadline - time.monotonic() < LEAST_SECONDS:
            result["parts"][name] = {"end": "not begun: the budget is spent", "seconds": 0, "rows": []}
            show(name, result["parts"][name])
        else:
            result["parts"][name] = {"end": "stopped", "seconds": 0, "rows": []}
            try:
                run_part(PARTS[name], deadline, environment, result["parts"][name])
            finally:
                show(name, result["parts"][name])
        write_json(arguments.json, result)
    failed = [name for name, part in result["parts"].items() if not is_sound(part)]
    print(f"\n{summary(result['parts'], failed)}")
    return int(bool(failed))


def run_part(
    part: Part, deadline: float, environment: Mapping[str, str], found: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What a part wrote, however it ended; `found` is filled even if a signal ends this function."""
    found = {} if found is None else found
    begun = time.monotonic()
    seconds = min(part.seconds, deadline - begun)
    with tempfile.TemporaryDirectory() as folder:
        rows, said = Path(folder, "rows"), Path(folder, "said")
        rows.touch()
        script = Path(__file__).parent / "measuring" / "part.py"
        command = [sys.executable, str(script), part.module, str(rows), f"{seconds:.1f}"]
        with said.open("w") as output:
            child = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        try:
            code = child.wait(timeout=seconds)
            ending = "complete" if code == 0 else f"crashed, {_cause(code)}: {_last_line(said)}"
        except subprocess.TimeoutExpired:
            ending = f"cut after {seconds:.0f} s"
        finally:
            _end_group(child)
            found |= {"seconds": round(time.monotonic() - begun, 1), "rows": _read(rows)}
    found["end"] = ending
    return found


def refuse_without_gpu(machine: Mapping[str, Any]) -> None:
    wrong = next((row["note"] for row in machine["rows"] if row["state"] == "failed"), None)
    if machine["end"] != "complete":
        wrong = f"the machine does not answer: {machine['end']}"
    if wrong is not None:
        end(wrong, "run this where nvidia-smi shows a GPU, with a PyTorch that has CUDA")


def is_sound(part: Mapping[str, Any]) -> bool:
    """True if nothing failed; what was left out, or not begun, has not failed."""
    fine = part["end"] == "complete" or part["end"].startswith("not begun")
    return fine and all(row["state"] != "failed" for row in part["rows"])


def summary(parts: Mapping[str, Any], failed: Sequence[str]) -> str:
    counts = {state: sum(row["state"] == state for part in parts.values() for row in part["rows"]) for state in _WORDS}
    waiting = [name for name, part in parts.items() if part["end"].startswith("not begun")]
    return (
        f"{counts['ok']} checks passed, {counts['failed']} failed, {counts['measured']} figures, "
        f"{counts['left out']} left out"
        + (f"; not begun: {', '.join(waiting)}" if waiting else "")
        + (f"\nlook at: {', '.join(failed)}" if failed else "")
    )


def show(name: str, part: Mapping[str, Any]) -> None:
    """A part as a table."""
    about = "" if part["end"] == "complete" else f", {part['end'].upper() if not is_sound(part) else part['end']}"
    print(f"\n{name} ({part['seconds']:.0f} s{about})")
    for row in part["rows"]:
        figure = "" if row.get("value") is None else f"{row['value']:.4g} {row['unit']}"
        if row.get("limit") is not None:
            figure += f" (limit {row['limit']:.2g})"
        parts = (f"{row['what']:<60}", f"{figure:<24}", f"{_WORDS[row['state']]:<8}", row["note"])
        print(("  " + " ".join(parts)).rstrip(), flush=True)


def _read(rows: Path) -> list[dict[str, Any]]:
    """Whole lines only: a process may be killed while it writes one."""
    lines = rows.read_text(encoding="utf-8", errors="replace").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def _last_line(said: Path) -> str:
    lines = [line for line in said.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"


def _cause(code: int) -> str:
    return f"exit code {code}" if code > 0 else signal.Signals(-code).name


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """End a part and whatever it started: compilers, loaders."""
    for number, patience in ((signal.SIGTERM, 3), (signal.SIGKILL, None)):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            break
        try:
            child.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            continue
    child.wait()


def _stop(number: int, frame: object) -> None:
    for repeated in (signal.SIGINT, signal.SIGTERM):
        signal.signal(repeated, signal.SIG_IGN)  # the parts are being ended already
    raise Stopped(number)


if __name__ == "__main__":
    main()
