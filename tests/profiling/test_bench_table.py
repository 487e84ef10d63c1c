import io
from dataclasses import replace

import pytest
from rich.console import Console

from jotr_deploy.profiling.bench_result import BatchResult, BenchResult, NetworkResult, StageResult, Timing
from jotr_deploy.profiling.bench_table import report
from jotr_deploy.profiling.environment import Environment

MACHINE = Environment(
    cpu="A Processor", flags=("avx2",), cores=2, hardware_threads=4, memory_gb=16.0, gpu="A GPU, driver 1.2",
    os="Linux", python="3.10.1", versions={"numpy": "2.0"}, threads=None, load_average=(0.1, 0.2, 0.3),
)  # fmt: skip
TIMING = Timing(70.0, 75.25, 80.0, 90.125, 76.0, kept=30, dropped=4, busy=False)
STAGES = (StageResult("draw", TIMING, 0.161),)


def network(name="mesh.onnx", timing=TIMING, speed_up=1.449, **changed):
    fields = {
        "engine": "ONNX Runtime",
        "precision": "fp32",
        "device": "cpu",
        "size_mb": 164.7,
        "batches": (BatchResult(1, timing, 13.3, speed_up), BatchResult(16, None, None, None)),
        "body_share": 0.0172,
        "cold_start_s": 1.234,
        "peak_memory_mb": 456.7,
    }
    return NetworkResult(name, **{**fields, **changed})


def result(networks=None, stages=STAGES, **changed):
    fields = {
        "bundle": "b",
        "labels": (),
        "timed": ("network: one call.",),
        "notes": (),
        "warnings": (),
        "environment": MACHINE,
    }
    return BenchResult(networks=(network(),) if networks is None else networks, stages=stages, **{**fields, **changed})


def text(found, width=80):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(report(found))
    return console.file.getvalue()


def row(found, *words):
    lines = [line for line in text(found).splitlines() if all(word in line for word in words)]
    return lines[0].split()


@pytest.mark.parametrize(
    ("timing", "cells"),
    [
        (TIMING, "75.2 80.0 90.1* 13.3 30 4"),
        (Timing(1, 1, 1, 2, 1, 100, 0, False), "1.00 1.00 2.00 13.3 100 0"),  # samples enough for p99
        (Timing(900, 1234.5, 2000, 30000, 1500, 10, 0, False), "1234 2000 30000* 13.3 10 0"),
        (Timing(0, 0.1234, 0.2, 0.3, 0.15, 200, 0, False), "0.12 0.20 0.30 13.3 200 0"),
        (Timing(1, 1, 1, 2, 1, 12, 0, True), "1.00 1.00 2.00* 13.3 12 busy"),
    ],
)
def test_a_row_of_figures(timing, cells):
    assert row(result([network(timing=timing)]), "mesh ", "x") == ["1", "mesh", *cells.split(), "1.45x"]


def test_a_batch_that_was_not_measured():
    assert row(result(), "mesh ", "-", "16") == ["16", "mesh", "-", "-", "-", "-", "0", "-", "-"]


def test_start_and_memory():
    assert row(result(), "mesh ", "457") == ["mesh", "fp32", "ONNX", "Runtime", "165", "1.23", "457", "1.7%"]
    bare = network("eager", precision="", size_mb=None, body_share=None, cold_start_s=None, peak_memory_mb=None)
    assert row(result([bare]), "eager", "ONNX") == ["eager", "-", "ONNX", "Runtime", "-", "-", "-", "-"]


def test_stages():
    assert row(result(), "draw") == ["draw", "75.2", "80.0", "90.1*", "76.0", "30", "4", "16.1%"]


@pytest.mark.parametrize("networks", [[], [network(batches=())], [network("mesh.int8.onnxruntime.onnx")] * 4])
def test_fits_a_terminal_of_80_columns(networks):
    widest = {
        "timing": Timing(10000, 12345.678, 12345.678, 12345.678, 12345.678, 200, 200, False),
        "speed_up": 10.234,
    }
    networks = [*networks, network("mesh.fp16.sm90.engine", **widest)] if networks else []
    printed = text(result(networks, stages=() if not networks else (StageResult("network", TIMING, 0.8),)))
    assert max(map(len, printed.splitlines())) <= 80
    assert "…" not in printed


def test_the_longest_name_of_a_file_is_on_one_line():
    printed = text(result([network("mesh.int8.onnxruntime.onnx"), network("PyTorch eager")]))
    assert sum("mesh.int8.onnxruntime " in line for line in printed.splitlines()) == 3  # two batches, and its file


def test_what_is_said_beside_the_tables():
    said = text(result(notes=("[odd] left out",), labels=("untrained",), warnings=("busy machine",)))
    for line in (
        "network: one call.",
        "*: p99 of fewer than 100 samples is little else than the slowest one.",
        "note [odd] left out",
        "note untrained",
        "warning busy machine",
        "A Processor, 2 cores, 4 hardware threads, 16 GB; avx2",
        "A GPU, driver 1.2; float32 products in float32",
        "Linux, Python 3.10.1; numpy 2.0",
        "threads: each engine's default; load average before the run: 0.1 0.2 0.3",
    ):
        assert line in said.splitlines() or any(line == printed.rstrip() for printed in said.splitlines()), line


@pytest.mark.parametrize(
    ("gpu", "tf32", "said"),
    [
        ("A GPU", False, "A GPU; float32 products in float32"),
        ("A GPU", True, "A GPU; float32 products in TF32"),
        (None, False, None),
    ],
)
def test_how_a_gpu_computes_products_is_said(gpu, tf32, said):
    machine = replace(MACHINE, gpu=gpu, tf32=tf32)
    assert machine.gpu_products == said
    assert ("float32 products" in text(result(environment=machine))) == (said is not None)
    assert said is None or said in text(result(environment=machine))


def test_names_are_not_markup():
    assert "mesh[bold] " in text(result([network("mesh[bold].onnx")]))


def test_times_on_the_gpu_have_a_table_of_their_own():
    gpu_ms = {"enqueue": 0.125, "gpu": 4.5, "h2d": 0.25, "d2h": 12.34}
    rows = (BatchResult(1, TIMING, 13.3, None, gpu_ms), BatchResult(16, None, None, None))
    found = result([network("mesh.engine", batches=rows), network("eager")])
    printed = text(found)
    assert "On the GPU, milliseconds a call, medians" in printed
    assert row(found, "mesh.engine", "4.50") == ["1", "mesh.engine", "0.12", "4.50", "0.25", "12.3", "75.2"]
    assert max(map(len, printed.splitlines())) <= 80


def test_without_a_gpu_there_is_no_such_table():
    assert "On the GPU" not in text(result())
