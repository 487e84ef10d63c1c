"""The package and its files of kernels are there without PyTorch."""

from __future__ import annotations

import subprocess
import sys

import jotr_deploy

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # importing it is an ImportError
import jotr_deploy, jotr_deploy.api, jotr_deploy.fitting
from jotr_deploy.body.smpl import stand_in
from jotr_deploy.fitting.kernels import decimate
print(len(decimate(stand_in(), 20)))
"""


def test_kernels_need_no_torch() -> None:
    ran = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("20\n", ""), jotr_deploy.__file__
