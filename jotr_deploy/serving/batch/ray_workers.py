"""Units of a batch as tasks of a Ray cluster, one unit a task.

Ray tries a task again when its process or its machine dies. The attempts that a unit counts on disk bound that: the
task that finds too many marks the unit as failed, and returns. What Ray gives up nevertheless is given to it again.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from typing import Any

from jotr_deploy.errors import JotrDeployError, first_line
from jotr_deploy.serving.batch.batch_plan import Unit
from jotr_deploy.serving.batch.batch_state import State
from jotr_deploy.serving.batch.batch_worker import Worker, WorkerSettings, units_of_slice

LOOK_S = 0.5
ROUNDS = 3
"""Times that a unit which Ray gave up is given to it again."""
_worker: Worker | None = None
"""The worker of this process of Ray: its model serves all units that come here."""


def work_on(settings: str, key: str) -> dict[str, Any]:
    """Work on one unit, in a process of Ray; what is returned says only whether the machine could begin."""
    global _worker
    told = WorkerSettings.from_text(settings)
    try:
        if _worker is None or _worker.settings != told:
            _worker = Worker(told, f"a log of Ray on {socket.gethostname()}")
        unit = next(each for each in _worker.plan.units if each.key == key)
        while _worker.do(unit) is None and _worker.held_elsewhere(unit):
            _worker.pause()
    except JotrDeployError as error:
        return {"cause": error.cause, "remedy": error.remedy}
    return {}


def run_by_ray(
    state: State, settings: WorkerSettings, address: str, told: Callable[[], None], stopping: Callable[[], int]
) -> str | None:
    """Have everything worked on by a cluster; `told` and `stopping` as for `LocalWorkers.run`.

    Returns:
        Ray's own error with the last task that it gave up; None if it gave up none.

    Raises:
        JotrDeployError: no cluster, or a machine of it cannot work.
    """
    gpus = float(state.plan.options.device == "cuda")
    cpus = settings.threads or 1
    ray = _connected(address)
    try:
        task = ray.remote(num_cpus=cpus, num_gpus=gpus)(work_on)
        todo = _Todo(state, settings)
        at_once = max(1, int(ray.cluster_resources().get("CPU", cpus) // cpus))
        running: dict[Any, Unit] = {}
        gave_up: str | None = None
        while True:
            told()
            if stopping() > 1:
                return gave_up
            while not stopping() and len(running) < at_once and (unit := todo.next(running.values())) is not None:
                running[task.remote(settings.as_text(), unit.key)] = unit
            if not running:
                return gave_up
            ready, _ = ray.wait(list(running), timeout=LOOK_S)
            for reference in ready:
                unit = running.pop(reference)
                try:
                    answer = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise JotrDeployError(
                        f"a machine of the cluster cannot work: {_raised(error)}",
                        "install the same jotr-deploy on every node of the cluster, or see Ray's logs on the nodes",
                    ) from error
                except ray.exceptions.RayError as error:  # its process or machine died more often than Ray tries
                    gave_up = first_line(error)
                    continue
                if answer:
                    raise JotrDeployError(f"a machine of the cluster cannot work: {answer['cause']}", answer["remedy"])
    finally:
        ray.shutdown()


def _raised(error: Exception) -> str:
    """The line of a task's error that names the exception: in the tracebacks that Ray shows, the last such line."""
    lines = re.findall(r"^[A-Za-z_][\w.]*(?:: .*)?$", str(error), re.MULTILINE)
    return lines[-1] if lines else first_line(error)


def _connected(address: str) -> Any:
    import ray

    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        ray.init(address=address, log_to_driver=False, ignore_reinit_error=True, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        if "Version mismatch" in str(error):
            cause = f"--ray {address}: {' '.join(str(error).split())}"
            raise JotrDeployError(cause, "use the Ray and Python of the cluster here") from error
        raise JotrDeployError(
            f"--ray {address}: no cluster can be reached ({first_line(error)})",
            "start one: ray start --head; then give --ray auto, or its address",
        ) from error
    return ray


class _Todo:
    """Units in the order of the plan, those that join first; each at most `ROUNDS` times."""

    def __init__(self, state: State, settings: WorkerSettings) -> None:
        self._state, self._given = state, dict.fromkeys((unit.key for unit in state.plan.units), 0)
        joins = [unit for unit in state.plan.units if unit.kind == "join"]
        self._units = [*joins, *units_of_slice(state.plan, settings.slice)]

    def next(self, running: Any) -> Unit | None:
        """A unit that is neither finished nor running, and needs no other."""
        names, keys = self._state.names(), {unit.key for unit in running}
        for unit in self._units:
            if unit.key in keys or self._given[unit.key] >= ROUNDS or not self._state.ready(unit, names):
                continue
            self._given[unit.key] += 1
            return unit
        return None
