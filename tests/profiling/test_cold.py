import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from jotr_deploy.errors import SessionError
from jotr_deploy.profiling import cold
from jotr_deploy.profiling.cold import cold_start


@pytest.fixture
def doubling(tmp_path):
    proto = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 19]> g (float[batch, 2] image) => (float[batch, 2] vertices)'
        "{ vertices = Add (image, image) }"
    )
    onnx.save(proto, tmp_path / "double.onnx")
    return tmp_path / "double.onnx"


def test_a_network_in_a_fresh_process(doubling):
    found = cold_start("double.onnx", ["--file", str(doubling), "--device", "cpu", "--threads", "1"])
    assert found.seconds > 0
    assert 10e6 < found.peak_bytes < 1e9


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux passes a peak on to a child")
def test_the_peak_is_that_of_the_process_alone():
    big = np.ones(50_000_000)
    code = "from jotr_deploy.profiling.cold import peak_bytes; print(peak_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < big.nbytes / 2
    assert cold.peak_bytes() > big.nbytes


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        ({"rss": 1, "peak_wset": 7}, 7),  # Windows
        ({"rss": 1}, 3 * 1024),  # POSIX counts in KiB
    ],
)
def test_the_peak_where_there_is_no_proc(monkeypatch, memory, expected):
    class Process:
        def memory_info(self):
            return SimpleNamespace(**memory)

    def no_file(self):
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", no_file)
    monkeypatch.setattr("psutil.Process", Process)
    monkeypatch.setattr("resource.getrusage", lambda who: SimpleNamespace(ru_maxrss=3))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cold.peak_bytes() == expected


def test_a_process_that_fails_says_why_in_one_line(tmp_path):
    with pytest.raises(SessionError) as caught:
        cold_start("mesh.onnx", ["--file", str(tmp_path / "no.onnx")])
    assert caught.value.cause == (
        f"mesh.onnx could not be run in a fresh process ({tmp_path}/no.onnx: no such network file)"
    )
    assert caught.value.remedy == "the other figures stand without it"


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ((1, "", "Traceback ...\n  File\nMemoryError: no room\n\n"), "MemoryError: no room"),
        ((1, "", ""), "it said nothing"),
        ((-9, "", ""), "signal 9, perhaps out of memory"),
        ((0, "hello\n", ""), "it answered 'hello'"),
        ((0, "[]\n", ""), "it answered '[]'"),
        ((0, "", ""), "it answered 'it said nothing'"),
        ((0, '{"ready_s": 1}', ""), "it answered '{\"ready_s\": 1}'"),
    ],
)
def test_ways_to_fail(monkeypatch, returned, reason):
    monkeypatch.setattr(cold.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], *returned))
    with pytest.raises(SessionError) as caught:
        cold_start("x", [])
    assert caught.value.cause == f"x could not be run in a fresh process ({reason})"


def test_a_process_that_cannot_start(monkeypatch):
    monkeypatch.setattr(cold.sys, "executable", "/no/such/python")
    with pytest.raises(SessionError, match=r"x could not be run in a fresh process \(No such file or directory\)"):
        cold_start("x", [])


def test_chatter_before_the_answer_is_passed_over(monkeypatch):
    answer = 'a library says hello\n{"ready_s": 12.0, "peak_bytes": 5}\n'
    monkeypatch.setattr(cold.time, "monotonic", lambda: 10.0)
    monkeypatch.setattr(cold.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, answer, ""))
    assert cold_start("x", []) == cold.ColdStart(2.0, 5)
