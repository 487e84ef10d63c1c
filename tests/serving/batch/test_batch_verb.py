"""`jotr-deploy batch` as a command: what it says, how it ends, and how it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from batch_world import film
from test_batch_plan import kills

pytestmark = pytest.mark.slow


def test_options_that_contradict_each_other(cli: Callable, tmp_path: Path, squares: Path) -> None:
    source = film(tmp_path / "a.mp4", 2)
    for given, cause in {
        ("--shard", "3/3"): "--shard 3/3: not I/N with I from 0 to N - 1",
        ("--shard", "one"): "--shard one: not I/N with I from 0 to N - 1",
        ("--shard", "0/2", "--ray", "auto"): "--ray and --shard are both given",
        ("--workers", "2", "--ray", "auto"): "--ray and --workers are both given",
        ("--overlay-scale", "0.5"): "--overlay-scale and no --overlay contradict each other",
        ("--status",): f"{tmp_path / 'out'}: no batch has been started there",
        ("--people", "nobody"): "--people: 'nobody' is not known",
    }.items():
        outcome = cli("batch", squares, source, "-o", tmp_path / "out", *given)
        assert outcome.mistake[0] == cause
    assert not (tmp_path / "out").exists()


def test_a_poison_film_is_named_once_and_the_rest_is_done(
    cli: Callable, tmp_path: Path, squares: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills(tmp_path / "site", monkeypatch)
    good, bad = film(tmp_path / "good.mp4", 3), film(tmp_path / "poison.mp4", 2)
    command = ("batch", squares, bad, good, "-o", tmp_path / "out", "--device", "cpu")
    outcome = cli(*command)
    assert outcome.code == 3, outcome
    assert [line for line in outcome.out.splitlines() if line.startswith("failed")] == [
        f"failed {bad}: the process working on it died 2 times, the last time on {os.uname().nodename}"
    ]
    assert "batch 1 of 2 sources done, 1 failed, 0 missing" in outcome.out
    assert "Next: remove the causes, then give the same command with --retry-failed" in outcome.out
    assert (tmp_path / "out" / "good" / "good.npz").is_file()
    monkeypatch.delenv("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    outcome = cli(*command, "--status", "--json")
    told = json.loads(outcome.out)
    assert (outcome.code, told["done"], told["missing"], told["complete"], len(told["failed"])) == (3, 1, 0, False, 1)
    outcome = cli(*command, "--retry-failed")
    assert outcome.code == 0, outcome
    assert "batch 2 of 2 sources done, 0 failed, 0 missing" in outcome.out
    assert f"Next: jotr-deploy view {tmp_path}/out/poison/poison.npz" in outcome.out


def begun(output: Path, squares: Path, sources: list[Path]) -> subprocess.Popen[str]:
    """A batch as a process of its own, once it has claimed its first shard."""
    command = [sys.executable, "-m", "jotr_deploy.cli", "batch", squares, *sources, "-o", output, "--device", "cpu"]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list((output / ".batch").glob("*.attempt")):
        time.sleep(0.02)
    return process


def ends(output: Path) -> list[str | None]:
    return [json.loads(path.read_text()).get("ended") for path in (output / ".batch").glob("*.attempt")]


def test_ctrl_c_finishes_what_is_in_hand(tmp_path: Path, squares: Path) -> None:
    output = tmp_path / "out"
    process = begun(output, squares, [film(tmp_path / f"{name}.mp4", 40) for name in "abc"])
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 3, (out, err)
    assert "stopping after the shards in hand; Ctrl-C again stops at once" in err
    done = [path.parent.name for path in output.glob("*/*.npz")]
    assert 1 <= len(done) < 3
    assert f"batch {len(done)} of 3 sources done, 0 failed, {3 - len(done)} missing" in out
    assert "Next: give the same command again: it goes on where it stopped" in out
    assert ends(output) == ["done"] * len(done)


def test_a_second_ctrl_c_drops_what_is_in_hand(cli: Callable, tmp_path: Path, squares: Path) -> None:
    output, source = tmp_path / "out", film(tmp_path / "a.mp4", 2000)
    process = begun(output, squares, [source])
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)  # signals do not queue: a second one is lost while the first is pending
    out, err = process.communicate()
    assert process.returncode == 3, (out, err)
    assert "batch 0 of 1 source done, 0 failed, 1 missing" in out
    assert "done" not in ends(output)
    assert not [path for path in output.rglob("*") if path.name.startswith(".run.") or path.suffix == ".npz"]
    outcome = cli("batch", squares, source, "-o", output, "--device", "cpu", "--status")
    assert (outcome.code, "0 failed, 1 missing" in outcome.out) == (3, True), outcome
