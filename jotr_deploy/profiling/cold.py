"""Cold start and peak memory: a fresh process opens one network, calls it once, and reports time and memory.

`python -m jotr_deploy.profiling.cold` is that process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jotr_deploy.errors import JotrDeployError, SessionError

_MODULE = "jotr_deploy.profiling.cold"


@dataclass(frozen=True)
class ColdStart:
    """Measurements of one fresh process."""

    seconds: float  # from its start to its first result
    peak_bytes: int  # resident memory at most, up to then


def cold_start(name: str, arguments: Sequence[str]) -> ColdStart:
    """Run one network once in a process of its own.

    Args:
        name: of the network, for messages.
        arguments: of this module's command line.

    Raises:
        SessionError: the process failed.
    """
    start = time.monotonic()  # the same clock in every process
    try:
        done = subprocess.run([sys.executable, "-m", _MODULE, *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        raise _failed(name, str(error.strerror)) from None
    if done.returncode:
        reason = f"signal {-done.returncode}, perhaps out of memory" if done.returncode < 0 else _last_line(done.stderr)
        raise _failed(name, reason)
    try:
        answer = json.loads(_last_line(done.stdout))
        return ColdStart(answer["ready_s"] - start, answer["peak_bytes"])
    except (ValueError, KeyError, TypeError):
        raise _failed(name, f"it answered '{_last_line(done.stdout)}'") from None


def _failed(name: str, reason: str) -> SessionError:
    return SessionError(f"{name} could not be run in a fresh process ({reason})", "the other figures stand without it")


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")


def peak_bytes() -> int:
    """Peak resident memory of this process."""
    try:
        # Linux: for a child spawned by a large process, getrusage would report the size of its parent.
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        import psutil

        memory = psutil.Process().memory_info()
        if hasattr(memory, "peak_wset"):  # Windows
            return memory.peak_wset
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _first_result(arguments: argparse.Namespace) -> None:
    if arguments.weights:
        _first_eager_result(arguments)
        return
    import numpy as np

    from jotr_deploy.runtime.sessions import open_session

    with open_session(
        arguments.file, device=arguments.device, threads=arguments.threads, tf32=arguments.tf32
    ) as session:
        feeds: dict[str, Any] = {
            name: np.ones([size if isinstance(size, int) else 1 for size in spec.shape], spec.dtype)
            for name, spec in session.inputs.items()
        }
        session(feeds)


def _first_eager_result(arguments: argparse.Namespace) -> None:
    import numpy as np
    import torch

    from jotr_deploy.config import ModelConfig
    from jotr_deploy.profiling.eager import build, torch_tf32, torch_threads, under_session_call

    config = ModelConfig.model_validate_json(arguments.config)
    model = build(config, not arguments.no_body)
    model.load_state_dict(torch.load(arguments.weights, weights_only=True))
    side = config.crop_side
    feeds = {
        "image": np.ones((1, 3, side, side), np.float32),
        "joints": np.ones((1, 30, 2), np.float32),
        "joints_mask": np.ones((1, 30), np.float32),
    }
    with torch_threads(arguments.threads), torch_tf32(arguments.tf32):
        under_session_call(model, arguments.device)(feeds)


def main() -> None:
    """Entry point of the fresh process."""
    parser = argparse.ArgumentParser(prog=_MODULE, description="Open one network, call it once at batch 1.")
    parser.add_argument("--file", type=Path, help="a network file")
    parser.add_argument("--weights", type=Path, help="weights of the PyTorch network, in place of --file")
    parser.add_argument("--config", help="its configuration, JSON")
    parser.add_argument("--no-body", action="store_true", help="it has no body")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--tf32", action="store_true")
    try:
        _first_result(parser.parse_args())
    except JotrDeployError as error:
        sys.exit(error.cause)
    print(json.dumps({"ready_s": time.monotonic(), "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
