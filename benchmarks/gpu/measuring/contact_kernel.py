"""First contact: the sampling kernel, its errors in memory that is full of NaN, and its time over an empty kernel."""

from __future__ import annotations

from measuring.report import Report, needs


def measure(report: Report) -> None:
    needs("torch", "numpy", "cuda.bindings")
    errors(report)
    times(report)


def errors(report: Report) -> None:
    """A row for each type: the worst of all cases."""
    from measuring.sampling_kernel import CASES, TOLERANCE, worst_error

    for dtype, limit in TOLERANCE.items():
        with report.attempt(f"kernel, {dtype}"):
            found = {name: worst_error(name, dtype) for name in CASES}
            worst = max(found, key=lambda name: (not found[name] <= limit, found[name]))
            note = f"of {len(found)} cases, worst '{worst}'; memory was NaN before"
            report.value(f"kernel against float64, {dtype}", found[worst], "", limit, note)


def times(report: Report) -> None:
    from measuring.sampling_kernel import BATCHES, copy_bandwidth, speeds

    bandwidth = copy_bandwidth()
    report.value("copy on the device", bandwidth / 1e9, "GB/s", note="read and written")
    for batch in BATCHES:
        for dtype in ("float32", "float16", "bfloat16"):
            with report.attempt(f"times at batch {batch}, {dtype}"):
                rows = {row["form"]: row for row in speeds(batch, dtype, bandwidth)}
                ours, empty = rows["kernel"], rows["empty kernel"]
                others = (
                    f"{name} {row['us'] / ours['us']:.1f}x" for name, row in rows.items() if name.startswith("grid")
                )
                note = f"kernel {ours['us']:.2f} us, empty {empty['us']:.2f} us; {', '.join(others)} as long"
                report.value(f"kernel over empty, batch {batch}, {dtype}", ours["us_over_empty"], "us", note=note)
