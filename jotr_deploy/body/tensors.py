"""Files of tensors that others wrote, read without running anything from them."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jotr_deploy.errors import JotrDeployError
from jotr_deploy.support.file_kinds import describe_file
from jotr_deploy.support.read_errors import read_errors

TORCH_FILES = ("a PyTorch archive", "an old-style PyTorch file")
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


def _plain_data() -> list[Any]:
    """Types that training scripts store beside their tensors and that only hold values."""
    reconstruct: Any = np.zeros(0).__reduce__()[0]
    scalar: Any = np.float64(0).__reduce__()[0]
    kinds: dict[type, None] = dict.fromkeys(type(np.dtype(code)) for code in "?bBhHiIlLqQefd")
    # NumPy 1 wrote the older of these names.
    names = [(f, f"numpy.{core}.multiarray.{f.__name__}") for f in (reconstruct, scalar) for core in ("core", "_core")]
    return [argparse.Namespace, np.ndarray, np.dtype, *kinds, *names]


def read_tensors(path: Path, error: type[JotrDeployError], what: str, remedy: str) -> Any:
    """The content of what `torch.save` wrote: tensors, numbers, text, and containers of them.

    Args:
        path: of the file.
        error: class of what is raised.
        what: what the file should be, with its article.
        remedy: what to do where the bytes do not tell it.

    Raises:
        JotrDeployError: `error`: no such file, damaged, something else, or one that asks for code to be run.
    """
    if describe_file(path) == "a safetensors file":
        remedy = "convert it: torch.save(safetensors.torch.load_file(PATH), NEW)"
    with read_errors(path, error, what, remedy, TORCH_FILES):
        try:
            with warnings.catch_warnings(), torch.serialization.safe_globals(_plain_data()):
                warnings.simplefilter("ignore")  # about pickle protocols
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as fault:
            asked, text = _GLOBAL.search(str(fault)), str(fault)
            if describe_file(path) not in TORCH_FILES or not (asked or "Unsupported" in text):
                raise
            code = f"holds pickled code ({asked.group(1)}), which" if asked else "is pickled in a way that"
            raise error(
                f"{path}: {code} is never run",
                "write its tensors alone where you trust it: "
                'torch.save(torch.load(PATH, weights_only=False)["network"], NEW), or of a whole module .state_dict()',
            ) from None
