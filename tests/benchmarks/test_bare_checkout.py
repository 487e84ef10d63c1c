"""The scripts of `benchmarks/gpu` from a checkout that nobody installed, with few packages or none, and no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import first_contact
import pytest

GPU = Path(first_contact.__file__).parent
SCRIPTS = sorted(path.name for path in GPU.glob("*.py") if path.name != "checkout.py")
NEEDED = {"networks.py": ["bundle"], "train.py": ["config", "--steps", "1", "-o", "run"]}
BLOCKED = (
    "pydantic", "cv2", "onnx", "onnxruntime", "onnxscript", "ml_dtypes", "PIL", "psutil", "rich", "typer", "accelerate",
    "tensorboard", "tomli_w", "scipy", "pytest",
)  # fmt: skip


def called(*command: str, path: str = "") -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PYTHONPATH": path} if path else {}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=environment, timeout=120, check=False
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_needs_no_package(script: str) -> None:
    done = called("-S", str(GPU / script), "--help")  # -S: without site-packages
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {script}")


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_is_missing_is_one_line_and_a_remedy(script: str) -> None:
    done = called("-S", str(GPU / script), *NEEDED.get(script, []))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2
    assert "Traceback" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(set(SCRIPTS) - {"train.py"}))
def test_a_machine_without_a_gpu_is_one_line_and_a_remedy(script: str) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = called(str(GPU / script), *NEEDED.get(script, []))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2
    assert "nvidia-smi shows a GPU" in done.stderr.splitlines()[1]


@pytest.mark.slow
@pytest.mark.parametrize("part", ["contact_machine", "contact_kernel", "contact_streams", "contact_race"])
def test_the_most_valuable_parts_import_nothing_but_numpy_and_pytorch(part: str, tmp_path: Path) -> None:
    """And `cuda.bindings`, which PyTorch brings."""
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({BLOCKED!r}))\n")
    line = (
        f"import sys; sys.path.insert(0, {str(GPU)!r}); import checkout, importlib; "
        f"importlib.import_module('measuring.{part}'); import measuring.sampling_kernel"
    )
    done = called("-c", line, path=str(tmp_path))
    assert done.stderr == ""
    assert called("-c", "import cv2", path=str(tmp_path)).returncode == 1
