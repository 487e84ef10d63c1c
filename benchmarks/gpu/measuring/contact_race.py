"""First contact: captures of CUDA graphs in global mode, as ONNX Runtime's, while other threads allocate."""

from __future__ import annotations

import threading

from measuring.report import Report, needs

from jotr_deploy.errors import JotrDeployError
from jotr_deploy.runtime.sessions import cuda
from jotr_deploy.runtime.sessions.capture_lock import CAPTURES

ROUNDS = 50


def measure(report: Report) -> None:
    needs("numpy", "cuda.bindings")
    with report.attempt("without our lock"):
        spoilt = without_lock()
        note = "the defect that the lock is for" if spoilt else "this driver does not mind: the lock is not needed here"
        report.value(f"captures spoilt by an allocation, of {ROUNDS}", spoilt, "", note=note)
    with report.attempt("with our lock"):
        spoilt, allocated = with_lock()
        report.value(f"captures or allocations spoilt under our lock, of {ROUNDS}", spoilt, "", 0)
        report.check("threads allocated meanwhile", allocated > 0, f"{allocated} times")


def without_lock() -> int:
    """Captures or allocations that failed when another thread allocated inside each capture."""
    rt, stream, spoilt = cuda.runtime(), cuda.Stream(), 0
    for _ in range(ROUNDS):
        allocation: list[tuple[object, int]] = []
        rt.cudaStreamBeginCapture(stream.handle, rt.cudaStreamCaptureMode.cudaStreamCaptureModeGlobal)
        other = threading.Thread(target=lambda allocation=allocation: allocation.append(rt.cudaMalloc(1 << 20)))
        other.start()
        other.join()
        status, graph = rt.cudaStreamEndCapture(stream.handle)
        if int(status) == 0:
            rt.cudaGraphDestroy(graph)
        allocated, pointer = allocation[0]
        if int(allocated) == 0:
            rt.cudaFree(pointer)
        spoilt += int(status) != 0 or int(allocated) != 0
        rt.cudaGetLastError()
    stream.release()
    return spoilt


def with_lock() -> tuple[int, int]:
    """Failures, and how often two threads allocated, while this one captured again and again."""
    done, failures, counts = threading.Event(), list[str](), list[int]()

    def allocate() -> None:
        count = 0
        while not done.is_set() or not count:
            try:
                cuda.Memory.on_device(1 << 20).release()
            except JotrDeployError as error:
                failures.append(error.cause)
            count += 1
        counts.append(count)

    threads = [threading.Thread(target=allocate) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        failures += captured()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    return len(failures), sum(counts)


def captured() -> list[str]:
    """Capture a copy again and again, alone; the statuses that were errors."""
    rt, stream = cuda.runtime(), cuda.Stream()
    source, target = cuda.Memory.on_device(1 << 10), cuda.Memory.on_device(1 << 10)
    failures = []
    for _ in range(ROUNDS):
        with CAPTURES.alone():
            rt.cudaStreamBeginCapture(stream.handle, rt.cudaStreamCaptureMode.cudaStreamCaptureModeGlobal)
            stream.on_device(target.pointer, source.pointer, source.nbytes)
            status, graph = rt.cudaStreamEndCapture(stream.handle)
        if int(status) == 0:
            rt.cudaGraphDestroy(graph)
        else:
            failures.append(status.name)
            rt.cudaGetLastError()
    for thing in (source, target, stream):
        thing.release()
    return failures
