"""What runs on macOS and Windows by its design takes nothing that only POSIX has. It has not been run there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import SMALL

from jotr_deploy.model.checkpoint import save_checkpoint
from jotr_deploy.model.initialise import initialise
from jotr_deploy.model.jotr import JOTR

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
SCENE = ROOT / "jotr_deploy/visual/scene.jpg"

# Runs at the start of every Python of a test: to the modules of this package, and to them alone, this is no POSIX.
ELSEWHERE = """
import builtins, os, signal, types

MODULES = {"crypt", "fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
NAMES = {
    "os": {"chown", "chroot", "fork", "forkpty", "fchmod", "fchown", "getegid", "geteuid", "getgid", "getloadavg",
           "getpgid", "getpgrp", "getpriority", "getsid", "getuid", "initgroups", "killpg", "lchown", "mkfifo", "mknod",
           "nice", "openpty", "pread", "pwrite", "sched_getaffinity", "sched_setaffinity", "sendfile", "setpgid",
           "setpriority", "setsid", "setuid", "statvfs", "sync", "uname", "wait", "wait3", "wait4", "O_DIRECTORY",
           "O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK", "WNOHANG"},
    "signal": {"SIGKILL", "SIGHUP", "SIGQUIT", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGCHLD", "SIGTSTP",
               "alarm", "setitimer", "pause", "pthread_sigmask", "sigwait"},
}
usual = builtins.__import__


def without(module, names):
    copy = types.ModuleType(module.__name__)
    copy.__dict__.update({name: value for name, value in vars(module).items() if name not in names})
    return copy


COPIES = {name: without({"os": os, "signal": signal}[name], names) for name, names in NAMES.items()}


def imported(name, globals=None, locals=None, fromlist=(), level=0):
    ours = globals is not None and str(globals.get("__package__") or "").split(".")[0] == "jotr_deploy"
    if ours and level == 0 and name.split(".")[0] in MODULES:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    if ours and level == 0 and name.split(".")[0] in COPIES:
        return COPIES[name.split(".")[0]]
    return usual(name, globals, locals, fromlist, level)


builtins.__import__ = imported
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    """The environment of a process for which there is no POSIX."""
    (tmp_path / "startup").mkdir()
    (tmp_path / "startup" / "sitecustomize.py").write_text(ELSEWHERE)
    path = os.pathsep.join([str(tmp_path / "startup"), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(tmp_path / "cache")}


def python(environment: dict[str, str], *arguments: object) -> str:
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "statement",
    ["import fcntl", "import resource", "import termios", "from pwd import getpwall", "import signal; signal.SIGKILL",
     "import os; os.getloadavg()", "from os import fork"],
)  # fmt: skip
def test_it_is_missing_for_this_package_alone(elsewhere: dict[str, str], statement: str) -> None:
    python(elsewhere, "-c", statement)
    asked = f"exec({statement!r}, {{'__package__': 'jotr_deploy.runtime'}})"
    with pytest.raises(AssertionError, match=r"No module named|has no attribute|cannot import name"):
        python(elsewhere, "-c", asked)


def test_run_bench_and_doctor(elsewhere: dict[str, str], tmp_path: Path) -> None:
    verb = "-m", "jotr_deploy.cli"
    ran = json.loads(python(elsewhere, *verb, "run", "starter", SCENE, "-o", tmp_path / "result", "--json"))
    assert ran["people"] == 2
    measured = python(elsewhere, *verb, "bench", "starter", "--batches", "1", "--seconds", "1", "--no-eager", "--json")
    assert json.loads(measured)["environment"]["load_average"]
    found = json.loads(python(elsewhere, *verb, "doctor", "starter", "--json"))
    assert {"installation", "bundle"} <= {finding["group"] for finding in found}


def test_view(elsewhere: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("viser", reason="viser is missing: see the extra viewer")
    verb = "-m", "jotr_deploy.cli"
    python(elsewhere, *verb, "run", "starter", SCENE, "-o", tmp_path / "result", "--no-overlay")
    shown = f"""
import jotr_deploy.visual.viewer as viewer, sys
def interrupted(self): raise KeyboardInterrupt
viewer.Viewer.serve = interrupted
from jotr_deploy.cli import main
sys.argv = ["jotr-deploy", "view", {str(tmp_path / "result")!r}, "--port", "0"]
main()
"""
    assert "2 meshes in 1 frame" in python(elsewhere, "-c", shown)


def test_export(elsewhere: dict[str, str], tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "tiny.pt", initialise(JOTR(SMALL, None)))
    python(elsewhere, "-m", "jotr_deploy.cli", "export", tmp_path / "tiny.pt", "--no-body", "-o", tmp_path / "bundle")
    assert (tmp_path / "bundle" / "mesh.onnx").is_file()
