"""A bare checkout as it is run: the package is found without being installed, and what is missing is one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))


def end(cause: str, remedy: str) -> NoReturn:
    """Leave with what went wrong and what to do about it, exit code 2."""
    print(f"{cause}\n{remedy}", file=sys.stderr)
    sys.exit(2)


def run(measure: Callable[[], object], extras: str) -> None:
    """Call what imports and measures; a missing package or GPU ends the script with exit code 2.

    Args:
        measure: imports what it needs inside.
        extras: of the package, that bring what it imports.
    """
    from jotr_deploy.errors import JotrDeployError

    try:
        measure()
    except ModuleNotFoundError as error:
        end(
            f"the package {(error.name or str(error)).partition('.')[0]} is not installed",
            f"pip install -e '.[{extras}]' in this checkout",
        )
    except JotrDeployError as error:
        end(error.cause, error.remedy)


def require_gpu() -> None:
    """Refuse a machine without a GPU.

    Raises:
        MissingDependency: no NVIDIA driver, or none of its GPUs may be used.
    """
    from jotr_deploy.errors import MissingDependency
    from jotr_deploy.support.nvidia_driver import nvidia_driver

    driver = nvidia_driver()
    if driver is None or not driver.gpus:
        raise MissingDependency("no NVIDIA driver, or no GPU", "run this where nvidia-smi shows a GPU")


def require_torch_cuda() -> None:
    """Refuse a machine without a GPU that PyTorch can use.

    Raises:
        MissingDependency: no PyTorch, one without CUDA, or no GPU.
    """
    from jotr_deploy.errors import MissingDependency

    try:
        import torch
    except ModuleNotFoundError:
        raise MissingDependency("PyTorch is not installed", "install it with CUDA: https://pytorch.org") from None
    if not torch.cuda.is_available():
        raise MissingDependency("no CUDA device, or PyTorch without CUDA", "run this where nvidia-smi shows a GPU")


def write_json(path: Path | None, result: object) -> None:
    """Write a result, whole or not at all; None writes nothing."""
    import json

    from jotr_deploy.support.writing import written_aside

    if path is not None:
        with written_aside(path) as aside:
            aside.write_text(json.dumps(result, indent=1) + "\n")
