"""JSON read entry by entry gives what `json` gives, and says what is wrong with a file."""

from __future__ import annotations

import json
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from jotr_deploy.datasets.published.json_entries import AGAIN, Entry, each_entry, people_of
from jotr_deploy.errors import DatasetError, MissingDependency

CONTENTS: list[dict[str, Any]] = [
    {},
    {"images": []},
    {"a": 1, "b": [1, 22, 333], "c": {"d": [[]]}, "e": None, "f": ["", 'x]}\\"', {}], "g": -1.5e-3},
    {"numbers": [12345678, 123456789, -0.25, True], "text": ["ä", "\u2028", "\U0001f600"]},
    {"long": ["x" * 50, {"y" * 30: ["z" * 40]}]},
]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("content", CONTENTS, ids=range(len(CONTENTS)))
def test_entries_are_those_of_json(
    content: dict[str, Any], indent: int | None, ascii_only: bool, tmp_path: Path
) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps(content, indent=indent, ensure_ascii=ascii_only) + "\n", encoding="utf-8")
    assert dict(each_entry(file)) == content


def test_a_byte_order_mark_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1}', encoding="utf-8-sig")
    assert list(each_entry(tmp_path / "a.json")) == [("a", 1)]


def test_whole_numbers_and_others_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": [1, 1.0, 1e0, -9007199254740993]}')
    [(_, values)] = each_entry(tmp_path / "a.json")
    assert values == [1, 1.0, 1.0, -9007199254740993]
    assert list(map(type, values)) == [int, float, float, int]


WHOLE = '{"images": [{"id": 1}, {"id": 22}], "n": 12, "list": [{"x": [-1.5e-3, true, "\\u00e4 }"]}], "none": []}'


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_cut_off_anywhere_it_is_truncated(length: int, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(WHOLE[:length])
    with pytest.raises(DatasetError) as caught:
        list(each_entry(file))
    assert caught.value.cause == f"{file}: the JSON ends too early: the file is truncated"
    assert caught.value.remedy == AGAIN


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"[1, 2]", "does not start with {"),
        (b"version https://git-lfs.github.com/spec/v1", "does not start with {"),
        (b'{"a" 1}', "parse error: object key and value must be separated by a colon (':')"),
        (b'{"a": 1 "b": 2}', "parse error: after key and value, inside map, I expect ',' or '}'"),
        (b'{"a": [1 2]}', "parse error: after array element, I expect ',' or ']'"),
        (b'{"a": [1, nothing]}', "lexical error: invalid string in json text."),
        (b'{"a": NaN}', "lexical error: invalid char in json text."),
        (b'{"a": 1,}', "parse error: invalid object key (must be a string)"),
        (b'{"a": 1} {"b": 2}', "parse error: trailing garbage"),
        (b'{"a": "\xff"}', "lexical error: invalid bytes in UTF8 string."),
        (b'{"a": "\xed\xa0\x80"}', "'utf-8' codec can't decode byte 0xed in position 0: invalid continuation byte"),
    ],
)
def test_what_is_no_json_is_named(data: bytes, what: str, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(data)
    with pytest.raises(DatasetError) as caught:
        list(each_entry(file))
    assert caught.value.cause == f"{file}: not JSON as expected ({what})"


def test_one_entry_is_held_at_a_time(tmp_path: Path) -> None:
    file, once = tmp_path / "a.json", json.dumps(list(range(1000)))
    file.write_text("{" + ",".join(f'"{key}": {once}' for key in range(2000)) + "}")
    tracemalloc.start()
    for _ in each_entry(file):
        pass
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < file.stat().st_size / 4


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        list(each_entry(tmp_path))
    assert caught.value.cause == f"{tmp_path}: cannot be read (Is a directory)"


def test_without_ijson_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ijson", None)
    with pytest.raises(MissingDependency) as caught:
        list(each_entry(tmp_path / "a.json"))
    assert caught.value.remedy == "pip install '.[datasets]' in a clone of jotr-deploy"


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ({}, "has no 'k'"),
        ([1], "is no object"),
        (None, "is no object"),
        ({"k": [1, 2, 3]}, "'k' has 3 numbers, not 4"),
        ({"k": []}, "'k' has 0 numbers, not 4"),
        ({"k": [1, 2, [3]]}, "'k' must be numbers"),
        ({"k": ["a", 1, 2, 3]}, "'k' must be numbers"),
        ({"k": {"a": 1}}, "'k' must be numbers"),
        ({"k": [10**400, 1, 2, 3]}, "'k' must be numbers"),
        ({"k": [float("nan"), 1, 2, 3]}, "'k' holds NaN or numbers beyond reason"),
        ({"k": [None, 1, 2, 3]}, "'k' holds NaN or numbers beyond reason"),
        ({"k": [1e300, 1, 2, 3]}, "'k' holds NaN or numbers beyond reason"),
    ],
)
def test_numbers_are_checked(value: Any, what: str) -> None:
    with pytest.raises(DatasetError) as caught:
        Entry("a.json: person 3", value).numbers("k", 2, 2)
    assert (caught.value.cause, caught.value.remedy) == (f"a.json: person 3: {what}", AGAIN)


def test_numbers_may_be_nested_otherwise() -> None:
    for value in ([1, 2, 3, 4], [[1, 2], [3, 4]], [[1, 2, 3, 4]]):
        assert Entry("", {"k": value}).numbers("k", 2, 2).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("value", ["", 3, None])
def test_text_is_checked(value: object) -> None:
    with pytest.raises(DatasetError, match=r"^a: 'k' is no text"):
        Entry("a", {"k": value}).text("k")


@pytest.mark.parametrize("value", ["3", 3.5, None])
def test_whole_numbers_are_checked(value: object) -> None:
    with pytest.raises(DatasetError, match=r"^a: 'k' is no whole number"):
        Entry("a", {"k": value}).whole("k")


# ── files in the manner of COCO ──────────────────────────────────────────────────────────────────────────────────


def people(file: Path, content: Any) -> list[tuple[str, int]]:
    file.write_text(json.dumps(content))

    def image(entry: Entry) -> str | None:
        return entry.text("file_name") if entry.text("file_name") != "none.jpg" else None

    return list(people_of(file, image, lambda entry: entry.whole("n") or None))


A, B, NONE = ({"id": number, "file_name": name} for number, name in ((7, "a.jpg"), (3, "b.jpg"), (5, "none.jpg")))


@pytest.mark.parametrize(
    ("images", "annotated", "expected"),
    [
        ([], [], []),
        ([A], [], []),
        ([A, B], [(1, 3, 9), (2, 7, 8)], [("b.jpg", 9), ("a.jpg", 8)]),
        ([A], [(1, 7, 9), (2, 7, 0), (3, 7, 8)], [("a.jpg", 9), ("a.jpg", 8)]),  # 0: the person is left out
        ([A, NONE], [(1, 5, 9), (2, 7, 8)], [("a.jpg", 8)]),  # with the picture everybody in it
    ],
)
@pytest.mark.parametrize("last", ["images", "annotations"])
def test_people_meet_their_pictures(
    images: list[Any], annotated: list[tuple[int, int, int]], expected: list[Any], last: str, tmp_path: Path
) -> None:
    sections = {
        "images": images,
        "annotations": [{"id": number, "image_id": image, "n": n} for number, image, n in annotated],
    }
    sections[last] = sections.pop(last)
    assert people(tmp_path / "a.json", {**sections, "info": {}}) == expected


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"images": []}, "has no list 'annotations'"),
        ({"annotations": []}, "has no list 'images'"),
        ({}, "has no list 'images'"),
        ({"images": [A], "annotations": [{"id": 1, "image_id": 8, "n": 1}]}, "annotation 1: there is no image 8"),
        ({"images": [A], "annotations": [{"id": 1, "n": 1}]}, "annotation 1: has no 'image_id'"),
        ({"images": [{"id": 4}], "annotations": []}, "image 4: has no 'file_name'"),
        ({"images": [3], "annotations": []}, "image: is no object"),
        ({"images": [A], "annotations": {"1": {"id": 1}}}, "has no list 'annotations'"),
    ],
)
def test_what_is_missing_is_named(content: Any, what: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        people(tmp_path / "a.json", content)
    assert (caught.value.cause, caught.value.remedy) == (f"{tmp_path / 'a.json'}: {what}", AGAIN)
