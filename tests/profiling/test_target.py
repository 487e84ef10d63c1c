import io
import json
from itertools import count
from pathlib import Path

import pytest
from rich.console import Console

from jotr_deploy.bundle import open_bundle
from jotr_deploy.errors import JotrDeployError, SessionError
from jotr_deploy.profiling import p99_search as module
from jotr_deploy.profiling.bench_table import target_report
from jotr_deploy.profiling.p99_search import find, remember_chosen
from jotr_deploy.profiling.p99_search_result import parse_target
from jotr_deploy.profiling.quiet_samples import Judge, Usage
from jotr_deploy.runtime.sessions.choice import remembered

pytestmark = pytest.mark.slow

EVER_MS, NEVER_MS = 1e9, 1e-6


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("20ms", 20), ("20", 20), ("0.02s", 20), (" 1.5 ms ", 1.5), (".5s", 500), ("2.s", 2000)],
)
def test_a_limit(text, milliseconds):
    assert parse_target(text) == pytest.approx(milliseconds)


@pytest.mark.parametrize("text", ["", "ms", "0", "0.0s", "-5ms", "20 min", "1e3", "fast", "20ms 30ms", "nan"])
def test_no_limit(text):
    with pytest.raises(JotrDeployError) as caught:
        parse_target(text)
    assert str(caught.value) == f"--target-p99 {text}: not a time above zero\ngive one such as 20ms or 0.02s"


def judge(others_cores=0):
    """One who sees so many of two cores taken by others."""
    clock = count()

    def read():
        seconds = float(next(clock))
        return Usage(seconds, others_cores * seconds, 0.0)

    return Judge(read, lambda seconds: None, cores=2)


@pytest.fixture(autouse=True)
def hurry(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "SAMPLES", 10)
    monkeypatch.setattr(module, "PROBES", 2)
    monkeypatch.setattr(module, "Judge", judge)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def bundle():
    return open_bundle(Path("starter"))


def text(found):
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(target_report(found))
    return console.file.getvalue()


def test_the_most_people_a_second_of_what_keeps_to_the_limit(bundle):
    found = find(bundle, EVER_MS, batches=(2, 1, 1), threads=1)
    assert found.chosen in found.tried
    assert found.chosen.people_per_s == max(each.people_per_s for each in found.tried if each.measured)
    assert {(each.file, each.batch) for each in found.tried} == {("mesh.onnx", 1), ("mesh.onnx", 2)}
    assert [each.people_per_s for each in found.tried] == sorted((e.people_per_s for e in found.tried), reverse=True)
    for each in found.tried:
        assert each.people_per_s == pytest.approx(1000 * each.batch / each.timing.p50_ms, rel=0.01)
        assert each.fits(EVER_MS) == each.measured
        assert each.timing.kept == (10 if each.measured else 2)
        assert each.measured or each.promise_per_s <= found.chosen.people_per_s
    assert (found.nearest, found.error(), found.warnings) == (None, None, ())
    assert found.command == f"jotr-deploy run {bundle.path} IMAGE -o DIR --file mesh.onnx --threads 1"
    assert json.loads(json.dumps(found.as_dict()))["chosen"]["file"] == "mesh.onnx"
    printed = text(found)
    assert [line.split()[0] for line in printed.splitlines() if line.rstrip().endswith("chosen")] == ["mesh"]
    assert max(map(len, printed.splitlines())) <= 80


def test_nothing_keeps_to_the_limit(bundle):
    found = find(bundle, NEVER_MS, batches=(1, 2, 4), threads=1)
    assert {each.batch for each in found.tried} == {1}  # larger ones are not tried
    (measured,) = (each for each in found.tried if each.measured)
    assert (found.chosen, found.nearest, found.command) == (None, measured, None)
    error = found.error()
    assert isinstance(error, SessionError)
    assert error.cause == (
        f"{bundle.path}: nothing that was measured has a p99 within 1e-06 ms here; nearest is mesh.onnx in "
        f"{measured.engine} at batch 1 with {measured.timing.p99_ms:g} ms"
    )
    assert text(found).count("nearest") == 1


def test_without_time_one_is_measured_and_that_is_said(bundle):
    found = find(bundle, EVER_MS, batches=(1, 2), threads=1, seconds=0)
    (measured,) = (each for each in found.tried if each.measured)
    assert found.chosen == measured
    assert f"the p99 of what is chosen is one of {measured.timing.kept} calls: give more --seconds" in found.warnings


def test_a_busy_machine_is_said(bundle, monkeypatch):
    monkeypatch.setattr(module, "Judge", lambda: judge(others_cores=2))
    found = find(bundle, EVER_MS, batches=(1,), threads=1)
    assert (found.chosen.timing.busy, found.chosen.timing.kept, found.chosen.timing.dropped) == (True, 20, 0)
    assert found.warnings == (
        "the rest of the machine was busy: these figures are upper bounds; search again when it is quiet",
    )


def test_the_chosen_engine_is_remembered(bundle):
    found = find(bundle, EVER_MS, batches=(1,), threads=1)
    assert remembered(bundle.file("mesh")) is None
    remember_chosen(bundle, found.chosen)
    assert remembered(bundle.file("mesh")) == found.chosen.backend
