"""The processes of `--workers` on this machine: started, watched, replaced when they die, stopped on request."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from jotr_deploy.errors import JotrDeployError
from jotr_deploy.serving.batch.batch_state import State
from jotr_deploy.serving.batch.batch_worker import WorkerSettings
from jotr_deploy.support.nvidia_driver import nvidia_driver

MODULE = "jotr_deploy.serving.batch.batch_worker"
LOOK_S = 0.2
STOPPING_S = 10.0
"""Time for a worker that is stopped at once to remove what it has half written."""
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class LocalWorkers:
    """Processes that work on a batch; a context manager, which leaves none behind."""

    def __init__(self, state: State, settings: WorkerSettings, workers: int) -> None:
        self._state, self._settings = state, settings
        self._wanted = workers
        self._logs = state.folder / "logs"
        self._running: list[tuple[subprocess.Popen[bytes], Path]] = []
        self.logs: list[Path] = []  # of workers that died
        self._started = 0
        self._idle_deaths = 0  # in a row, of workers that had not begun anything

    def run(self, told: Callable[[], None], stopping: Callable[[], int]) -> None:
        """Have everything worked on.

        Args:
            told: called a few times a second.
            stopping: 0 to go on, 1 to finish what is in hand, more to stop at once.

        Raises:
            JotrDeployError: a worker could not start to work.
        """
        self._logs.mkdir(exist_ok=True)
        for _ in range(self._wanted):
            self._start()
        while self._running:
            time.sleep(LOOK_S)
            told()
            asked = stopping()
            if asked > 1:
                self.stop()
                return
            for process, log in list(self._running):
                if asked and process.stdin is not None and not process.stdin.closed:
                    process.stdin.close()
                if process.poll() is not None:
                    self._running.remove((process, log))
                    self._ended(process, log, replace=not asked)

    def _ended(self, process: subprocess.Popen[bytes], log: Path, replace: bool) -> None:
        if process.returncode == 0:
            return
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if process.returncode == 2:
            cause, remedy = said[-2:] if len(said) > 1 else ("a worker could not start", f"see {log}")
            raise JotrDeployError(cause, remedy)
        self.logs.append(log)
        self._idle_deaths = 0 if self._attempted(process.pid) else self._idle_deaths + 1
        if self._idle_deaths > 2 * self._wanted:
            raise JotrDeployError(f"workers die before they begin (exit code {process.returncode})", f"see {log}")
        if replace:
            self._start()

    def _attempted(self, pid: int) -> bool:
        return any(
            f'"pid": {pid},' in path.read_text(errors="replace") for path in self._state.folder.glob("*.attempt")
        )

    def _start(self) -> None:
        number, name = tempfile.mkstemp(prefix="worker-", suffix=".log", dir=self._logs)
        with os.fdopen(number, "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", MODULE, self._settings.as_text()], stdin=subprocess.PIPE, stdout=log, stderr=log,
                env=self._environment(),
            )  # fmt: skip
        self._started += 1
        self._running.append((process, Path(name)))

    def _environment(self) -> dict[str, str]:
        """That of this process; with several GPUs the workers take one each, in turn."""
        environment = dict(os.environ)
        if self._settings.threads is not None:
            environment = {**dict.fromkeys(_THREADS, str(self._settings.threads)), **environment}
        if self._state.plan.options.device != "cpu" and len(gpus := visible_gpus()) > 1:
            environment["CUDA_VISIBLE_DEVICES"] = gpus[self._started % len(gpus)]
        return environment

    def stop(self) -> None:
        """End all workers at once; what they had in hand counts as stopped, not as a death."""
        for process, _ in self._running:
            process.terminate()
        for process, _ in self._running:
            try:
                process.wait(STOPPING_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            stdin: IO[bytes] | None = process.stdin
            if stdin is not None and not stdin.closed:
                stdin.close()
        self._running.clear()

    def __enter__(self) -> LocalWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    if said is not None:
        return [each.strip() for each in said.split(",") if each.strip()]
    driver = nvidia_driver()
    return [] if driver is None else [str(number) for number in range(driver.gpus)]
