import json
from dataclasses import asdict

import pytest

from jotr_deploy.profiling.environment import environment, load_average
from jotr_deploy.support.processor import processor

X86 = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx2 avx512f amx_int8\n\nmodel name\t: other\n"
ARM = "processor\t: 0\nBogoMIPS\t: 62.50\nFeatures\t: fp asimd asimddp i8mm\n"


@pytest.mark.parametrize(
    ("text", "name", "flags"),
    [
        (X86, "AMD EPYC", ("avx2", "avx512f", "amx_int8")),
        (ARM, "of the platform", ("asimd", "asimddp", "i8mm")),
        ("", "of the platform", ()),
        (None, "of the platform", ()),  # no such file: not Linux
    ],
)
def test_processor(tmp_path, monkeypatch, text, name, flags):
    monkeypatch.setattr("platform.processor", lambda: "of the platform")
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert processor(tmp_path / "cpuinfo") == (name, flags)


def test_this_machine_as_json():
    here = environment(threads=3, cuda=False, load=load_average())
    assert here.cpu
    assert 1 <= here.cores <= here.hardware_threads
    assert here.memory_gb > 0
    assert (here.threads, here.gpu, len(here.load_average)) == (3, None, 3)
    assert {"jotr-deploy", "numpy"} <= here.versions.keys()
    assert json.loads(json.dumps(asdict(here)))["versions"] == here.versions


@pytest.mark.parametrize(
    ("script", "gpu"),
    [
        ("echo 'NVIDIA H200, 570.1'; echo 'NVIDIA H200, 570.1'", "NVIDIA H200, driver 570.1"),
        ("exit 9", None),  # no driver
        ("true", None),  # no device
        (None, None),  # no such tool
    ],
)
def test_gpu(tmp_path, monkeypatch, script, gpu):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin" if script else str(tmp_path))
    if script:
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
    assert environment(None, cuda=True, load=(0, 0, 0)).gpu == gpu
