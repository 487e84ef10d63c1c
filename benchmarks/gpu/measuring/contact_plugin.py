"""First contact: the C++ plugin, built for this GPU alone and driven by its harness."""

from __future__ import annotations

from measuring.report import LeftOut, Report, needs

from jotr_deploy.errors import MissingDependency


def measure(report: Report) -> None:
    needs("numpy")
    from measuring.plugin_harness import built_and_run, tools

    try:
        found = tools()
    except MissingDependency as error:
        raise LeftOut(f"{error.cause} (headers: a folder include in that of --with, or TENSORRT_ROOT)") from None
    (harness, code), (timing, timing_code) = built_and_run(found, "native")
    lines = harness.strip().splitlines()
    report.check("the harness", code == 0, lines[-1].strip() if lines else "it said nothing")
    for line in lines if code else ():
        report.fact("harness", line.strip())
    report.check("the timing", timing_code == 0)
    for line in timing.strip().splitlines():
        report.fact("enqueue", line.strip())
