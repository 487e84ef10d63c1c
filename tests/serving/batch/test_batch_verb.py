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


def test_ctrl_c_finishes_what_is_in_hand(tmp_path: Path, squares: Path) -> None:
    sources = [film(tmp_path / f"{name}.mp4", 40) for name in "abc"]
    command = [sys.executable, "-m", "jotr_deploy.cli", "batch", squares, *sources, "-o", tmp_path / "out"]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    attempts = (tmp_path / "out" / ".batch").glob
    while process.poll() is None and not list(attempts("*.attempt")):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 3, (out, err)
    assert "stopping after the shards in hand; Ctrl-C again stops at once" in err
    done = [path.parent.name for path in (tmp_path / "out").glob("*/*.npz")]
    assert 1 <= len(done) < 3
    assert f"batch {len(done)} of 3 sources done, 0 failed, {3 - len(done)} missing" in out
    assert "Next: give the same command again: it goes on where it stopped" in out
    ended = [json.loads(path.read_text()).get("ended") for path in attempts("*.attempt")]
    assert ended == ["done"] * len(done)
