"""Start-up time: `import jotr_deploy` against a bare interpreter, `jotr-deploy --help` against a bare application.

python benchmarks/startup.py --rounds 40

Each pair of commands runs alternately, each in a new process. The bare application is a Typer application with as many
verbs, each with one argument. An editable installation adds the time of its finder to both of a pair.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    rounds, load = parser.parse_args().rounds, load_average()
    print(environment(None, False, load))
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
