import threading
import time
from itertools import pairwise

import pytest

from jotr_deploy.support import spans as module
from jotr_deploy.support.spans import NO_FRAME, Spans


def test_nothing_measured():
    spans = Spans()
    assert (spans.spans, spans.seconds, spans.total("crop")) == ((), {}, 0)


def test_a_span_says_what_when_and_where():
    spans, before = Spans(), time.perf_counter()
    with spans("crop", frame=3):
        pass
    with spans("draw"):
        pass
    crop, draw = spans.spans
    assert (crop.stage, crop.frame, crop.thread) == ("crop", 3, threading.current_thread().name)
    assert before <= crop.start_s <= crop.end_s <= draw.start_s <= draw.end_s <= time.perf_counter()
    assert draw.frame == NO_FRAME
    assert spans.seconds == {"crop": [crop.seconds], "draw": [draw.seconds]}


def test_a_body_that_raises_counts():
    spans = Spans()
    with pytest.raises(ZeroDivisionError), spans("crop"):
        1 / 0  # noqa: B018
    assert len(spans.seconds["crop"]) == 1


def test_the_last_spans_are_kept_and_totals_know_all(monkeypatch):
    monkeypatch.setattr(module, "KEPT", 3)
    spans, ended = Spans(), []
    for frame in range(5):
        with spans("first" if frame == 0 else "crop", frame):
            pass
        ended.append(spans.spans[-1])
    assert spans.spans == tuple(ended[2:])
    assert spans.seconds == {"first": [], "crop": [span.seconds for span in ended[2:]]}
    assert spans.total("first") == ended[0].seconds
    assert spans.total("crop") == pytest.approx(sum(span.seconds for span in ended[1:]))


def test_many_threads_at_once():
    spans, count = Spans(), 200
    start = threading.Barrier(4)

    def work(stage):
        start.wait()
        for frame in range(count):
            with spans(stage, frame):
                spans.seconds  # noqa: B018  another thread reads while spans end

    threads = [threading.Thread(target=work, args=("crop",), name=f"worker {i}") for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(spans.spans) == 4 * count
    for thread in threads:
        own = [span for span in spans.spans if span.thread == thread.name]
        assert [span.frame for span in own] == list(range(count))
        assert all(before.end_s <= after.start_s for before, after in pairwise(own))
    assert spans.total("crop") == pytest.approx(sum(span.seconds for span in spans.spans))


def test_a_frame_whose_number_is_known_only_at_its_end():
    spans, start_s = Spans(), time.perf_counter()
    spans.record("decode", 7, start_s)
    (span,) = spans.spans
    assert (span.stage, span.frame, span.start_s) == ("decode", 7, start_s)
    assert spans.total("decode") == span.seconds >= 0
