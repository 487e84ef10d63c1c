"""A format of one's own: one class, listed in the registry of its kind."""

from __future__ import annotations

import numpy as np
import pytest
from canned import Canned, yolox_rows, yolox_session

from jotr_deploy.errors import SessionError
from jotr_deploy.runtime.finding import detection, recognition
from jotr_deploy.runtime.finding.detection import open_detector
from jotr_deploy.runtime.finding.detection.base import Detector
from jotr_deploy.runtime.finding.detection.yolox import Yolox

SIZE = (96, 64)


class EndToEnd(Detector):
    """Corners and scores, ready."""

    name = "end-to-end"
    recipe = recognition.Recipe

    def __init__(self, session, recipe):
        self.session = session

    @staticmethod
    def fits(session):
        return set(session.outputs) == {"corners", "sure"}

    def __call__(self, image_bgr):
        out = recognition.in_batches(self.session, image_bgr.transpose(2, 0, 1)[None])
        return out["corners"][0], out["sure"][0]


def ready() -> Canned:
    answer = {"corners": np.full((1, 2, 4), 7, np.float32), "sure": np.ones((1, 2), np.float32)}
    return Canned({"images": (1, 3, 64, 96)}, {"corners": (1, 2, 4), "sure": (1, 2)}, lambda images: answer)


def test_a_listed_format_is_found_by_its_tensors(monkeypatch):
    with pytest.raises(SessionError):
        open_detector(ready())
    monkeypatch.setattr(detection, "FORMATS", (*detection.FORMATS, EndToEnd))
    boxes, scores = open_detector(ready())(np.zeros((64, 96, 3), np.uint8))
    assert (boxes.tolist(), scores.tolist()) == ([[7, 7, 7, 7]] * 2, [1, 1])
    nobody = yolox_session(yolox_rows(np.zeros((0, 4)), np.zeros(0), SIZE), SIZE)
    assert open_detector(nobody).name == "yolox"


def test_a_named_format_must_fit(monkeypatch):
    monkeypatch.setattr(detection, "FORMATS", (Yolox, EndToEnd))
    with pytest.raises(SessionError) as refusal:
        open_detector(ready(), {"format": "yolox"})
    assert refusal.value.cause.endswith("tried yolox)")
    assert (
        refusal.value.remedy == "give a file in one of the formats yolox, end-to-end, exactly as its exporter writes it"
    )


@pytest.mark.parametrize(
    ("batch", "rows", "calls"), [("n", 3, [3]), ("n", 33, [16, 16, 1]), (2, 3, [2, 2]), (8, 3, [8]), (1, 2, [1, 1])]
)
def test_rows_keep_their_order_over_calls(batch, rows, calls):
    session = Canned({"x": (batch, 3, 2, 2)}, {"y": (batch,)}, lambda images: {"y": images[:, 0, 0, 0]})
    images = np.zeros((rows, 3, 2, 2), np.uint8)
    images[:, 0, 0, 0] = np.arange(rows)
    assert recognition.in_batches(session, images)["y"].tolist() == list(range(rows))
    assert [len(seen) for seen in session.seen] == calls
    assert all(seen.dtype == np.float32 for seen in session.seen)
