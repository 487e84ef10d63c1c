import io
import json

import pytest
from rich.console import Console

from jotr_deploy.profiling.bench_table import frames_report
from jotr_deploy.profiling.frame_times import critical_path, frame_profile
from jotr_deploy.support.spans import NO_FRAME, Span, Spans


def span(stage, frame, start_ms, end_ms, thread="main"):
    return Span(stage, frame, start_ms / 1000, end_ms / 1000, thread)


def pipelined(count=10):
    """A thread decodes in 2 ms, one meshes in 5 ms, one writes in 1 ms; each takes a frame as soon as it can."""
    spans, decoded, meshed, written = [], 0, 0, 0
    for frame in range(count):
        decode = span("decode", frame, decoded, decoded + 2, "reader")
        decoded += 2
        meshed = max(decoded, meshed) + 5
        network = span("network", frame, meshed - 5, meshed, "mesher")
        written = max(meshed, written) + 1
        spans += [decode, network, span("write", frame, written - 1, written, "writer")]
    return spans


def one_after_another(count=4):
    """One thread: 2 ms, 5 ms, 1 ms a frame."""
    times = (("decode", 0, 2), ("network", 2, 7), ("write", 7, 8))
    return [span(stage, n, 8 * n + start, 8 * n + end) for n in range(count) for stage, start, end in times]


def test_nothing_measured():
    found = frame_profile([])
    assert (found.stages, found.frames, found.latency, found.frames_per_s) == ((), 0, None, None)
    assert (found.path, found.workers, found.bound) == ((), (), None)
    assert json.loads(json.dumps(found.as_dict()))["stages"] == []


def test_stages_of_one_thread():
    found = frame_profile(one_after_another())
    assert [(s.name, s.timing.p50_ms, s.timing.kept, s.share) for s in found.stages] == [
        ("decode", 2.0, 4, 0.25), ("network", 5.0, 4, 0.625), ("write", 1.0, 4, 0.125)
    ]  # fmt: skip
    assert (found.frames, found.latency.p50_ms, found.frames_per_s) == (4, 8.0, 125.0)
    assert [(link.stage, link.waits_ms, link.ms) for link in found.path] == [
        ("decode", 0.0, 2.0), ("network", 0.0, 5.0), ("write", 0.0, 1.0)
    ]  # fmt: skip
    assert found.bound == "network sets the rate: thread main is busy 100% of the time, 62% in network"


def test_the_busiest_thread_sets_the_rate():
    found = frame_profile(pipelined())
    assert found.frames_per_s == 200.0  # one each 5 ms
    assert (found.workers[0].thread, found.workers[0].busy) == ("mesher", 0.9778)  # but for the last write
    assert found.bound == "network sets the rate: thread mesher is busy 98% of the time, 98% in network"
    waits = {link.stage: link.waits_ms for link in found.path}
    assert waits["network"] == pytest.approx(3 * 4.5)  # the queue grows by 3 ms a frame
    assert (waits["decode"], waits["write"]) == (0, 0)


@pytest.mark.parametrize("spans", [one_after_another(), pipelined(), pipelined(1)])
def test_the_path_adds_up_to_the_latency(spans):
    found = frame_profile(spans)
    assert sum(link.waits_ms + link.ms for link in found.path) == pytest.approx(found.latency.mean_ms, abs=0.01)
    assert sum(stage.share for stage in found.stages) == pytest.approx(1, abs=0.001)
    assert all(0 <= worker.busy <= 1 for worker in found.workers)


def test_the_order_of_the_spans_does_not_matter():
    assert frame_profile(pipelined()[::-1]) == frame_profile(pipelined())


def test_a_slow_source_sets_the_rate():
    found = frame_profile([span("network", n, 100 * n, 100 * n + 10) for n in range(5)])
    assert found.frames_per_s == 10.0
    assert found.bound == (
        "no thread is busy all the time: the source sets the rate, or what no stage times; "
        "thread main is busy 10% of the time, 10% in network"
    )


def test_what_a_stage_does_twice_for_a_frame_is_one_sample():
    found = frame_profile([span("write", 0, 0, 2), span("draw", 0, 2, 3), span("write", 0, 3, 6)])
    assert {s.name: (s.timing.p50_ms, s.timing.kept) for s in found.stages} == {"write": (5.0, 1), "draw": (1.0, 1)}


def test_spans_of_no_frame_are_samples_of_their_own():
    found = frame_profile([span("decode", NO_FRAME, 0, 2), span("decode", NO_FRAME, 2, 6)])
    assert (found.stages[0].timing.kept, found.stages[0].timing.mean_ms) == (2, 3.0)
    assert (found.frames, found.latency, found.bound is not None) == (0, None, True)


def test_frames_that_were_skipped_or_cut_have_no_latency():
    spans = pipelined(5)
    spans = [s for s in spans if not (s.frame == 0 and s.stage == "decode")]  # no longer kept
    spans = [s for s in spans if not (s.frame == 2 and s.stage != "decode")]  # a live source went on
    found = frame_profile(spans)
    assert found.frames == 3
    assert {s.name: s.timing.kept for s in found.stages} == {"network": 4, "write": 4, "decode": 4}


def test_what_runs_beside_the_path_is_not_on_it():
    decode, network = span("decode", 0, 0, 2), span("network", 0, 3, 9)
    draw, write = span("draw", 0, 9, 15, "a"), span("write", 0, 9, 10, "b")
    assert critical_path([decode, network, draw, write]) == [decode, network, draw]


def test_spans_of_no_length_end():
    assert len(critical_path([span("a", 0, 1, 1), span("b", 0, 1, 1), span("a", 0, 1, 1)])) == 2


def test_spans_inside_one_another_count_once_in_a_thread():
    (worker,) = frame_profile([span("people", 0, 0, 10), span("detect", 0, 2, 6)]).workers
    assert (worker.busy, worker.stages) == (1.0, {"people": 1.0, "detect": 0.4})


def test_real_spans():
    spans = Spans()
    for frame in range(3):
        for stage in ("decode", "crop"):
            with spans(stage, frame):
                sum(range(1000))
    found = frame_profile(spans.spans)
    assert (found.frames, [stage.name for stage in found.stages]) == (3, ["decode", "crop"])
    assert json.loads(json.dumps(found.as_dict()))["workers"][0]["thread"] == spans.spans[0].thread


def text(found):
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(frames_report(found))
    return console.file.getvalue()


def test_printed():
    printed = text(frame_profile(pipelined()))
    rows = {line.split()[0]: line.split()[1:] for line in reversed(printed.splitlines()) if line.strip()}
    assert rows["network"] == ["5.00", "5.00", "5.00*", "5.00", "10", "62.5%", "13.5"]
    assert rows["frame"] == ["21.5", "32.3", "34.7*", "21.5", "10", "-", "13.5"]
    said = printed.splitlines()
    assert "200.0 frames/s over 10 frames." in said
    assert "critical path of a frame, ms: decode 2.00, waits 13.5, network 5.00, write 1.00" in said
    assert "network sets the rate: thread mesher is busy 98% of the time, 98% in" in printed
    assert "*: p99 of fewer than 100 samples is little else than the slowest one." in said


@pytest.mark.parametrize("spans", [[], [span("decode", NO_FRAME, 0, 1)], one_after_another(1)])
def test_few_spans_are_printed_as_well(spans):
    assert "Stages, milliseconds a frame" in text(frame_profile(spans))


def test_names_are_not_markup():
    spans = [each._replace(stage="[bold]", thread="[red]") for each in one_after_another()]
    assert "[bold] sets the rate: thread [red] is busy" in text(frame_profile(spans))
