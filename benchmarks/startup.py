"""Start-up time: imports and `--help` against bare ones, and the first mesh against opening the network by hand.

python benchmarks/startup.py --rounds 40

Each pair of commands runs alternately, each in a new process. The bare application is a Typer application with as many
verbs, each with one argument. By hand means a process that imports NumPy, OpenCV and ONNX Runtime and opens the
starter's network. Bytecode is compiled beforehand, as pip does when it installs, and the body that the alignment needs
is in the cache, as after the first run. An editable installation adds the time of its finder to both of a pair.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from jotr_deploy.bundle import STARTER, open_bundle
from jotr_deploy.cli import VERBS
from jotr_deploy.profiling.environment import environment, load_average

BARE = """
import typer

app = typer.Typer(help="A bare application.", add_completion=False)
for name in {names}:
    def verb(path: str) -> None:
        "Do one thing to a path."
    app.command(name)(verb)
app()
"""

BY_HAND = """
import sys, cv2, numpy, onnxruntime
onnxruntime.InferenceSession(sys.argv[1])
"""
FIRST_MESH = """
import sys, numpy, jotr_deploy
joints = 20 + 37 * numpy.arange(51.0).reshape(1, 17, 3) % 180
with jotr_deploy.load() as model:
    assert len(model(numpy.zeros((256, 256, 3), numpy.uint8), keypoints=joints, skeleton="coco17")) == 1
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    rounds, load = parser.parse_args().rounds, load_average()
    print(environment(None, False, load))
    with tempfile.TemporaryDirectory() as folder:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ.update(PYTHONPYCACHEPREFIX=f"{folder}/bytecode", XDG_CACHE_HOME=f"{folder}/cache")
        measure(rounds)


def measure(rounds: int) -> None:
    nothing, imported = in_turns(["-c", "pass"], ["-c", "import jotr_deploy"], rounds)
    print(
        f"import jotr_deploy: {1e3 * imported:.1f} ms, {1e3 * (imported - nothing):+.1f} ms beyond a bare interpreter"
    )
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE.format(names=list(VERBS)))
        ours = ["-c", "from jotr_deploy.cli import main; main()", "--help"]
        theirs_s, ours_s = in_turns([str(bare), "--help"], ours, rounds)
    print(f"jotr-deploy --help: {1e3 * ours_s:.1f} ms, {ours_s / theirs_s:.2f} x a bare application of Typer's")
    network = str(open_bundle(Path(STARTER)).file("mesh"))
    by_hand_s, mesh_s = in_turns(["-c", BY_HAND, network], ["-c", FIRST_MESH], rounds)
    print(f"first mesh of the starter: {1e3 * mesh_s:.0f} ms, {mesh_s / by_hand_s:.2f} x opening its network by hand")


def in_turns(first: Sequence[str], second: Sequence[str], rounds: int) -> tuple[float, float]:
    """Median seconds of two calls of Python, each in a fresh process; one round before does not count."""
    samples: list[tuple[float, float]] = [(seconds(first), seconds(second)) for _ in range(rounds + 1)][1:]
    one, other = zip(*samples, strict=True)
    return statistics.median(one), statistics.median(other)


def seconds(arguments: Sequence[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
