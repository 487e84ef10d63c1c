import json
from collections import defaultdict
from itertools import pairwise
from threading import Thread

import pytest

from jotr_deploy.errors import OutputError
from jotr_deploy.profiling.chrome_trace import trace_events, write_trace
from jotr_deploy.support.spans import NO_FRAME, Span, Spans


def test_no_spans(tmp_path):
    write_trace([], tmp_path / "trace.json")
    (event,) = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert (event["ph"], event["args"]) == ("M", {"name": "jotr-deploy"})


def test_complete_events_in_microseconds():
    spans = [Span("crop", 7, 100.001, 100.0035, "worker"), Span("decode", NO_FRAME, 100.0, 100.001, "main")]
    decode, crop = (event for event in trace_events(spans) if event["ph"] == "X")
    assert (decode["name"], decode["ts"], decode["dur"], decode["args"]) == ("decode", 0, 1000, {})
    assert (crop["name"], crop["ts"], crop["dur"], crop["args"]) == ("crop", 1000, 2500, {"frame": 7})
    names = {event["tid"]: event["args"]["name"] for event in trace_events(spans) if event["name"] == "thread_name"}
    assert (names[decode["tid"]], names[crop["tid"]]) == ("main", "worker")


def test_threads_have_rows_in_which_nothing_overlaps(tmp_path):
    spans = Spans()

    def work():
        for frame in range(50):
            for stage in ("decode", "network", "write"):
                with spans(stage, frame):
                    pass

    threads = [Thread(target=work, name=f"worker {i}") for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    write_trace(spans.spans, tmp_path / "trace.json")
    rows = defaultdict(list)
    for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]:
        if event["ph"] == "X":
            rows[event["tid"]].append(event)
    assert [len(row) for row in rows.values()] == [150] * 3
    for row in rows.values():
        assert all(event["dur"] >= 0 for event in row)
        for before, after in pairwise(sorted(row, key=lambda event: event["ts"])):
            assert before["ts"] + before["dur"] <= after["ts"] + 1e-6


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        write_trace([], tmp_path / "no" / "trace.json")
    assert list(tmp_path.iterdir()) == []
