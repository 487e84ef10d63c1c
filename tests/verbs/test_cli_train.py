"""`train` on the command line: a run in pieces, its last line, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TINY

pytestmark = pytest.mark.slow

Cli = Callable[..., Any]


@pytest.fixture(autouse=True)
def own_accelerator() -> Iterator[None]:
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)  # of another file's test
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The mesh task with a tiny network, in a folder of its own."""
    from jotr_deploy.model.initialise import initialise
    from jotr_deploy.model.jotr import JOTR

    monkeypatch.chdir(tmp_path)
    torch.save(initialise(JOTR(TINY, None)).vposer.state_dict(), tmp_path / "prior.pt")
    model = "\n".join(f"{key} = {value}" for key, value in TINY.model_dump().items())
    head = 'task = "mesh"\nsteps = 2\nbatch = 2\nlr = 1e-3\n[mesh]\nprior = "prior.pt"\n[mesh.model]\n'
    (tmp_path / "small.toml").write_text(head + model)
    return tmp_path / "small.toml"


def test_a_run(cli: Cli, config: Path) -> None:
    result = cli("train", config, "--set", "steps=1")
    assert result.code == 0, result.err
    assert "done runs/small/weights.pt (1 steps). Next: tensorboard --logdir runs/small" in result.out
    assert "step 1 of 1" in result.err
    again = cli("train", config, "--set", "steps=1")
    assert again.code == 2
    assert again.err.splitlines()[-2:] == [
        "error: runs/small: already contains a run",
        "remedy: continue it with --resume, or give another -o",
    ]
    other = cli("train", config, "--resume")
    assert "error: runs/small: the run has another configuration (steps 1 there, 2 here)" in other.err


@pytest.mark.parametrize(
    ("arguments", "cause", "remedy"),
    [
        (["none.toml"], "none.toml: no such configuration", "configs/ holds those of this project"),
        (["small.toml", "--set", "speed=1"], "speed: unknown key", "known are batch"),
        (["small.toml", "--set", "mesh.speed=1"], "mesh.speed: unknown key", "known are blazepose, drop_joints"),
        (["small.toml", "--set", "mesh.prior=none.pt"], "none.pt: no such VPoser file", "give the folder of VPoser"),
    ],
)
def test_refusals(cli: Cli, config: Path, arguments: list[str], cause: str, remedy: str) -> None:
    result = cli("train", *arguments)
    assert result.code == 2
    error, mend = result.err.splitlines()[-2:]
    assert error == f"error: {cause}"
    assert mend.startswith(f"remedy: {remedy}")
    assert not (config.parent / "runs").exists()


@pytest.mark.parametrize("missing", ["accelerate", "tensorboard", "tomli_w"])
def test_a_missing_extra(cli: Cli, config: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    result = cli("train", config)
    assert result.code == 2
    assert f"error: train needs {missing}\nremedy: pip install '.[train]' in a clone of jotr-deploy" in result.err


def test_a_signal_to_everybody_keeps_a_checkpoint(config: Path) -> None:
    """As a terminal or `timeout` sends it: to the training process and to those that make its samples."""
    command = [sys.executable, "-m", "jotr_deploy.cli", "train", str(config), "-o", "run", "--set", "workers=1",
               "--set", "steps=100000", "--set", "checkpoint_minutes=0.0001"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, env=environment)  # fmt: skip
    until = time.monotonic() + 90
    while not Path("run/checkpoint.pt").exists():
        assert started.poll() is None, started.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.1)
    os.killpg(started.pid, signal.SIGTERM)
    out, err = started.communicate(timeout=60)
    assert started.returncode == 130, err
    # Seldom, PyTorch's loader complains from its destructor, which nothing can catch, that its worker has gone first.
    assert "Traceback" not in err.partition("Exception ignored in")[0]
    assert "--resume continues from" in " ".join(out.split())
    step = torch.load("run/checkpoint.pt", weights_only=True)["step"]
    assert f"stopped after step {step} of 100000" in out


@pytest.mark.parametrize(
    ("recipe", "cause"),
    [
        ("code", "jotr.h36m_regressor: not given, and the fits of h36m, muco are checked by it"),  # it was understood
        ("mine", "--recipe: 'mine' is not known"),
    ],
)
def test_the_recipe_of_the_published_training(cli: Cli, tmp_path: Path, recipe: str, cause: str) -> None:
    text = 'task = "jotr"\nsteps = 1\nbatch = 1\nlr = 1e-4\n[jotr]\nroot = "none"\nsmpl = "none"\nprior = "none"\n'
    (tmp_path / "c.toml").write_text(text)
    outcome = cli("train", tmp_path / "c.toml", "-o", tmp_path / "run", "--recipe", recipe)
    assert (outcome.code, outcome.mistake[0]) == (2, cause)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("option", "value", "task"), [("--recipe", "code", "jotr"), ("--qat", "bundle", "qat")])
def test_an_option_of_another_task(cli: Cli, config: Path, option: str, value: str, task: str) -> None:
    outcome = cli("train", config, option, value)
    assert outcome.mistake == (f"{option} is for the task {task}, {config} is for mesh", f"leave {option} out")


def test_the_bundle_to_be_rounded_as(cli: Cli, config: Path) -> None:
    """It goes over that of the file: the bundle is looked for where the option says."""
    assert cli("train", config, "-o", "run", "--set", "steps=1").code == 0
    text = 'task = "qat"\nsteps = 1\nbatch = 1\nlr = 1e-4\n[qat]\nstart = "run/weights.pt"\nbundle = "not this"\n'
    Path("qat.toml").write_text(text)
    assert cli("train", "qat.toml", "--qat", "nowhere").mistake[0] == "nowhere: no such folder"


def test_a_dry_run(cli: Cli, config: Path) -> None:
    """Once for programs; it leaves nothing, and the run that it is about goes on to say which weights are which."""
    evaluated = ["--set", "evaluation.every=1", "--set", "evaluation.samples=1", "--set", "steps=1"]
    outcome = cli("train", config, "--dry-run", "--json", *evaluated)
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert (found["steps"], found["batch"], found["evaluations"]["times"]) == (1, 2, 2)
    assert found["evaluations"]["figures"] == ["mpjpe_mm", "pa_mpjpe_mm"]
    assert not (config.parent / "runs").exists()
    result = cli("train", config, *evaluated)
    assert "best: runs/small/best.pt, MPJPE " in result.out
    assert "done runs/small/weights.pt (1 steps)" in result.out
    again = cli("train", config, "--dry-run", *evaluated)
    assert again.mistake[0] == "runs/small: already contains a run"


def test_a_dry_run_for_people() -> None:
    from jotr_deploy.training.dry_run import Evaluations, Loading, Rehearsal
    from jotr_deploy.verbs.train import rehearsal_rows

    found = Rehearsal(
        task="mesh", device="cpu", processes=2, workers=1, steps=20000, done=500, batch=32, parameters=2_700_000,
        epoch=1_424_000, loss=3.21, loading=Loading(3.2, 0.064, 89792, 230_000_000), step_s=0.35,
        samples_per_s=91.4, evaluations=Evaluations(20, 256, 45.0, 12.3, ("mpjpe_mm",)), memory_bytes=812_000_000,
        worker_bytes=None, gpu_bytes=3_400_000_000, disk_bytes=61_000_000, free_bytes=21_300_000_000, steps_s=7000.0,
        total_s=7280.0,
    )  # fmt: skip
    assert dict(rehearsal_rows(found)) == {
        "task": "mesh, 2.7 M parameters to train, on cpu",
        "length": "20000 steps of 32 samples in 2 processes, 500 of them done: 0.899 epochs of 1424000 people",
        "samples": "2 ms each, and 98 ms for each of 89792 pictures to draw, by 1 worker of each process",
        "step": "350 ms; loss of the first 3.21",
        "evaluation": "20 times over 256 samples (mpjpe_mm): 45 s the first time, then 12 s",
        "memory": "812 MB at the peak of a process, 3.4 GB of the GPU; "
        "later 230 MB more of a worker for drawn pictures",
        "disk": "61 MB at most; 21.3 GB are free",
        "speed": "about 91.4 samples/s",
        "time": "about 2.0 h to finish",
    }


def test_json_is_for_a_dry_run(cli: Cli, config: Path) -> None:
    outcome = cli("train", config, "--json")
    assert outcome.mistake == ("--json is for --dry-run", "leave it out; a run writes curves.jsonl")


def test_a_dry_run_without_the_data_sets_says_how_long_by_the_papers(cli: Cli, tmp_path: Path) -> None:
    config = Path(__file__).parents[2] / "configs" / "published" / "main.toml"
    outcome = cli("train", config, "--dry-run", "-o", tmp_path / "run", "--set", "batch=256")
    assert outcome.code == 2
    assert "18 epochs are about 100125 steps" in outcome.err
    assert not (tmp_path / "run").exists()
