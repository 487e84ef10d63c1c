"""Admission and formats: what there is room for, and what a client may ask for."""

from __future__ import annotations

import pytest

from jotr_deploy.serving.admission import Admission
from jotr_deploy.serving.answer_formats import GLB, JSON, NPZ, PERSON_FIELDS, VERTICES, Wanted
from jotr_deploy.serving.refusals import Refused


def test_requests_beyond_the_limit_are_refused_until_one_leaves() -> None:
    admission = Admission(2, 100)
    admission.check()
    admission.enter()
    admission.enter()
    for ask in (admission.check, admission.enter):
        with pytest.raises(Refused) as refusal:
            ask()
        assert (refusal.value.status, refusal.value.reason) == (429, "full")
        assert refusal.value.headers == {"Retry-After": "1"}
    admission.leave()
    admission.enter()
    assert admission.admitted == 2


def test_bodies_beyond_the_memory_are_refused_and_given_back() -> None:
    admission = Admission(2, 100)
    with admission.holding() as hold, admission.holding() as other:
        hold(60)
        other(40)
        with pytest.raises(Refused) as refusal:
            other(1)
        assert (refusal.value.status, refusal.value.reason) == (429, "memory")
        assert admission.held_bytes == 100
    assert admission.held_bytes == 0
    with admission.holding() as hold:
        hold(100)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, JSON), ("", JSON), ("*/*", JSON), ("application/*", JSON), (JSON, JSON), (NPZ.upper(), NPZ),
        (f"text/html, {GLB}", GLB), (f"{JSON};q=0.5, {NPZ}", NPZ), (f"{JSON};q=x, {NPZ};q=0.1", NPZ),
    ],
)  # fmt: skip
def test_the_format_is_the_one_that_the_client_prefers(accept: str | None, media_type: str) -> None:
    assert Wanted.of(accept, None).media_type == media_type


@pytest.mark.parametrize(
    ("accept", "fields", "status", "cause"),
    [
        ("text/html", None, 406, "no format"),
        ("image/png", None, 406, "no format"),
        (JSON, "betas,hair", 400, "'hair' is not known"),
        (NPZ, "betas", 400, "every field"),
        (GLB, VERTICES, 400, "has none"),
    ],
)
def test_other_wishes_are_refused(accept: str, fields: str | None, status: int, cause: str) -> None:
    with pytest.raises(Refused) as refusal:
        Wanted.of(accept, fields)
    assert refusal.value.status == status
    assert cause in refusal.value.cause


def test_vertices_come_on_request_only() -> None:
    assert VERTICES not in Wanted.of(JSON, None).people_fields
    assert not Wanted.of(NPZ, None).vertices
    assert Wanted.of(NPZ, VERTICES).vertices
    assert Wanted.of(JSON, "vertices_m, betas,betas").people_fields == (VERTICES, "betas")
    assert Wanted.of(JSON, "").people_fields == ()
    assert set(Wanted.of(JSON, ",".join(PERSON_FIELDS)).people_fields) == set(PERSON_FIELDS)
